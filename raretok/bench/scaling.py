"""How the fast path's time grows with positions, neurons and vocabulary: no model needed."""

from pathlib import Path
from typing import Any

import torch

from raretok.ablation.head import FinalHead
from raretok.bench.contenders import Scored, fast_effects
from raretok.bench.measure import best_of
from raretok.bench.run import check_writable
from raretok.models.training import check_device
from raretok.text.streams import write_json

D_MODEL = 512
BASE = {"positions": 512, "neurons": 2_048, "vocabulary": 16_384}
GRID = {  # one size changes, the others stay at BASE
    "positions": (128, 256, 512, 1_024, 2_048),
    "neurons": (512, 1_024, 2_048, 4_096, 8_192),
    "vocabulary": (4_096, 8_192, 16_384, 32_768, 65_536),
}
SEED = 0


def scaling(*, device: str = "cpu", out: Path | None = None) -> list[dict[str, Any]]:
    """Seconds of the fast path, the capture left out, at each size of the grid.

    One record a point: `axis` (the size that changes), the three sizes and `seconds`. Written to
    `out` as JSON if it is given. Raises `UserError`.
    """
    check_device(device)
    check_writable(out)
    records = [record for axis in GRID for record in along(axis, device)]
    if out:
        write_json(out, records)
    return records


def along(axis: str, device: str) -> list[dict[str, Any]]:
    """One size of the grid varied; its points are timed in turn."""
    sizes = [BASE | {axis: value} for value in GRID[axis]]
    cases = [synthetic(**size, device=device) for size in sizes]
    tasks = {
        f"{size[axis]} {axis}": (lambda case=case: fast_effects(*case))
        for size, case in zip(sizes, cases, strict=True)
    }
    seconds = best_of(tasks, device, "scaling")
    return [
        {"axis": axis, **size, "d_model": D_MODEL, "seconds": found, "device": device}
        for size, found in zip(sizes, seconds.values(), strict=True)
    ]


def synthetic(
    positions: int, neurons: int, vocabulary: int, device: str = "cpu"
) -> tuple[FinalHead, Scored]:
    """A head with random weights and random activations, at the scale of a trained model's.

    Logits of unit spread times 3 give a prediction with a long tail, activations are sparse as
    after a GELU.
    """
    draw = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    W_out = normal(neurons, D_MODEL) / D_MODEL**0.5
    W_out = W_out - W_out.mean(dim=1, keepdim=True)
    head = FinalHead(
        W_out=W_out,
        W_out_sq=W_out.square().sum(dim=1),
        G=normal(D_MODEL, vocabulary) * 3 / D_MODEL**0.5,
        logit_bias=torch.zeros(vocabulary, device=device),
        eps=1e-5,
        centred=True,
    )
    post = 0.3 * normal(positions, neurons).relu()
    target = torch.randint(vocabulary, (positions,), generator=draw).to(device)
    return head, Scored(10 * normal(positions, D_MODEL), post, target, post.mean(dim=0))
