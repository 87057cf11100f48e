"""The architectures that can be trained: one `transformers` configuration for each family."""

from typing import Literal

from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, PretrainedConfig

Family = Literal["gpt2", "neox", "llama"]


def architecture(
    family: Family,
    *,
    n_layers: int,
    d_model: int,
    n_heads: int,
    d_mlp: int,
    d_vocab: int,
    n_ctx: int,
) -> PretrainedConfig:
    """Configuration of these sizes, without dropout; W_U is the embedding in every family."""
    if family == "gpt2":
        return _gpt2(n_layers, d_model, n_heads, d_mlp, d_vocab, n_ctx)
    sizes = {
        "num_hidden_layers": n_layers,
        "hidden_size": d_model,
        "num_attention_heads": n_heads,
        "intermediate_size": d_mlp,
        "vocab_size": d_vocab,
        "max_position_embeddings": n_ctx,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if family == "neox":
        return GPTNeoXConfig(**sizes, use_parallel_residual=True, rotary_pct=0.25)
    sizes["num_key_value_heads"] = max(1, n_heads // 2)
    sizes["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0}
    return LlamaConfig(**sizes)


def _gpt2(
    n_layers: int, d_model: int, n_heads: int, d_mlp: int, d_vocab: int, n_ctx: int
) -> GPT2Config:
    return GPT2Config(
        vocab_size=d_vocab,
        n_positions=n_ctx,
        n_embd=d_model,
        n_layer=n_layers,
        n_head=n_heads,
        n_inner=d_mlp,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
