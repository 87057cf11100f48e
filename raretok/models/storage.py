"""Blocks whose weights are kept in a shorter dtype and widened while they run.

Half the memory, and no rounding but that of the weights. The last block, and all that stands
outside the blocks, stay wide: the ablation reads them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of a decoder, first to last."""
    n = model.config.num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)


def floating(module: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers that are not whole numbers."""
    every = (*module.parameters(), *module.buffers())
    return (tensor for tensor in every if tensor.is_floating_point())


def set_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """What `module.to(dtype)` does, but for weights that are kept in a dtype of their own."""
    for tensor in floating(module):
        tensor.data = tensor.data.to(getattr(tensor, "kept_in", dtype))


def keep_blocks_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round all weights to `dtype`, and keep those of all blocks but the last in it."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    for block in blocks_of(model)[:-1]:
        for weight in block.parameters():
            weight.kept_in = dtype
        if not block._forward_pre_hooks:
            block.register_forward_pre_hook(widen)
            block.register_forward_hook(narrow)
    set_dtype(model, torch.float32)


def widen(block: nn.Module, args: tuple) -> None:
    for weight in block.parameters():
        if weight.dtype == getattr(weight, "kept_in", None):  # not where an audit made it float64
            weight.data = weight.data.float()


def narrow(block: nn.Module, args: tuple, out: object) -> None:
    if not torch.is_grad_enabled():  # a backward pass reads the weights once more
        set_dtype(block, torch.float32)
