"""The architectures that can be trained: one `transformers` configuration for each family."""

from typing import Any

from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, PretrainedConfig

from raretok.models.architecture import Family

# W_U is the embedding in every family, and there is no dropout.
NAMES = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "d_mlp": "intermediate_size",
    "d_vocab": "vocab_size",
    "n_ctx": "max_position_embeddings",
}
OF_GPT2 = NAMES | {"d_mlp": "n_inner"}  # it takes the other names too
FIXED: dict[str, dict[str, Any]] = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "neox": {"use_parallel_residual": True, "rotary_pct": 0.25, "tie_word_embeddings": True},
    "llama": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": True,
    },
}


def architecture(family: Family, **sizes: int) -> PretrainedConfig:
    """Configuration of these sizes, by the names that NAMES has them."""
    names = OF_GPT2 if family == "gpt2" else NAMES
    values = {names[name]: size for name, size in sizes.items()} | FIXED[family]
    values |= {"bos_token_id": 0, "eos_token_id": 0}
    if family == "llama":
        values["num_key_value_heads"] = max(1, sizes["n_heads"] // 2)
    make = {"gpt2": GPT2Config, "neox": GPTNeoXConfig, "llama": LlamaConfig}[family]
    return make(**values)
