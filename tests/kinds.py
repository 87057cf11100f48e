"""Kinds of models that users bring, each as a tiny configuration, and which of them are refused.

Two layers, 16 dimensions, random weights: what a kind computes, its own forward pass says.
"""

from pathlib import Path

import torch
import transformers

from raretok.models.loading import untrained_twin
from tests.tiny import write_tokenizer

IDS = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
HEADS = {"num_attention_heads": 2, "num_hidden_layers": 2}
PLAIN = {"hidden_size": 16, "intermediate_size": 48, "max_position_embeddings": 32} | HEADS | IDS
GROUPED = PLAIN | {"num_key_value_heads": 1}
WITH_HEAD_DIM = GROUPED | {"head_dim": 8}
OLD = {"n_embd": 16, "n_inner": 48, "n_layer": 2, "n_head": 2, "n_positions": 32} | IDS
OPT = HEADS | IDS | {"hidden_size": 16, "ffn_dim": 48, "max_position_embeddings": 32}
MPT = {"d_model": 16, "expansion_ratio": 3, "n_layers": 2, "n_heads": 2, "max_seq_len": 32} | IDS
FALCON = HEADS | IDS | {"hidden_size": 16}
MAMBA = {"mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
FALCON_H1 = WITH_HEAD_DIM | MAMBA | {"mamba_d_ssm": 16, "mamba_n_heads": 2}
BERT = HEADS | {"hidden_size": 16, "intermediate_size": 48, "max_position_embeddings": 32}
BERT |= {"vocab_size": 300, "pad_token_id": 0}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 24}
LOCAL = {"num_local_experts": 2, "num_experts_per_tok": 1}
ROUTED = {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_shared_experts": 1}
ROUTED |= {"moe_intermediate_size": 24, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 2}
LATENT = PLAIN | ROUTED | {"num_key_value_heads": 2, "kv_lora_rank": 8, "v_head_dim": 8}
LATENT |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
ROPE = {"rope_theta": 1e4, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 2.0}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8}
LINEAR |= {"linear_value_head_dim": 8, "linear_num_key_heads": 1, "linear_num_value_heads": 2}

KINDS = {
    "gpt2": ("GPT2Config", OLD),
    "gpt2 untied": ("GPT2Config", OLD | {"tie_word_embeddings": False}),
    "gpt2 without scale": ("GPT2Config", OLD | {"scale_attn_weights": False}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 16, "intermediate_size": 48, "num_layers": 2, "num_heads": 2}
        | {"attention_types": [[["global", "local"], 1]], "window_size": 16}
        | {"max_position_embeddings": 32}
        | IDS,
    ),
    "gptj": ("GPTJConfig", OLD | {"rotary_dim": 4}),
    "codegen": ("CodeGenConfig", OLD | {"n_embd": 32, "n_head": 4, "n_ctx": 32, "rotary_dim": 4}),
    "neox": ("GPTNeoXConfig", PLAIN),
    "neox sequential": ("GPTNeoXConfig", PLAIN | {"use_parallel_residual": False}),
    "opt": ("OPTConfig", OPT | {"word_embed_proj_dim": 16}),
    "opt-350m": ("OPTConfig", OPT | {"word_embed_proj_dim": 8, "do_layer_norm_before": False}),
    "bloom": ("BloomConfig", {"hidden_size": 16, "n_layer": 2, "n_head": 2} | IDS),
    "mpt": ("MptConfig", MPT),
    "mpt with a scale": ("MptConfig", MPT | {"logit_scale": 0.5}),
    "xglm": (
        "XGLMConfig",
        {"d_model": 16, "ffn_dim": 48, "num_layers": 2, "attention_heads": 2}
        | {"max_position_embeddings": 32}
        | IDS,
    ),
    "llama": ("LlamaConfig", GROUPED),
    "llama with biases": ("LlamaConfig", GROUPED | {"mlp_bias": True, "attention_bias": True}),
    "llama tied": ("LlamaConfig", GROUPED | {"tie_word_embeddings": True}),
    "llama 3": ("LlamaConfig", GROUPED | {"rope_parameters": ROPE | LLAMA3}),
    "llama yarn": ("LlamaConfig", GROUPED | {"rope_parameters": ROPE | YARN}),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 8}),
    "ministral3": ("Ministral3Config", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", WITH_HEAD_DIM),
    "qwen3_5": ("Qwen3_5TextConfig", WITH_HEAD_DIM | LINEAR),
    "gemma": ("GemmaConfig", WITH_HEAD_DIM),
    "gemma2": ("Gemma2Config", WITH_HEAD_DIM | {"sliding_window": 8}),
    "gemma2 uncapped": ("Gemma2Config", WITH_HEAD_DIM | {"final_logit_softcapping": None}),
    "gemma3": ("Gemma3TextConfig", WITH_HEAD_DIM | {"sliding_window": 8}),
    "vaultgemma": ("VaultGemmaConfig", WITH_HEAD_DIM | {"sliding_window": 8}),
    "nanochat": ("NanoChatConfig", GROUPED),
    "phi": ("PhiConfig", GROUPED),
    "phi with query norms": ("PhiConfig", GROUPED | {"qk_layernorm": True}),
    "phi3": ("Phi3Config", GROUPED),
    "stablelm": ("StableLmConfig", GROUPED),
    "stablelm parallel": ("StableLmConfig", GROUPED | {"use_parallel_residual": True}),
    "starcoder2": ("Starcoder2Config", GROUPED),
    "gpt_bigcode": ("GPTBigCodeConfig", OLD),
    "nemotron": ("NemotronConfig", GROUPED),
    "smollm3": ("SmolLM3Config", GROUPED),
    "glm": ("GlmConfig", WITH_HEAD_DIM),
    "glm4": ("Glm4Config", WITH_HEAD_DIM),
    "arcee": ("ArceeConfig", GROUPED),
    "apertus": ("ApertusConfig", GROUPED),
    "seed_oss": ("SeedOssConfig", WITH_HEAD_DIM),
    "ernie4_5": ("Ernie4_5Config", WITH_HEAD_DIM),
    "hunyuan": ("HunYuanDenseV1Config", WITH_HEAD_DIM),
    "bitnet": ("BitNetConfig", GROUPED),
    "lfm2": (
        "Lfm2Config",
        GROUPED
        | {"block_auto_adjust_ff_dim": False, "conv_L_cache": 3}
        | {"layer_types": ["conv", "full_attention"]},
    ),
    "falcon_h1": ("FalconH1Config", FALCON_H1),
    "falcon_h1 with multipliers": (
        "FalconH1Config",
        FALCON_H1 | {"mlp_multipliers": [0.7, 0.5], "lm_head_multiplier": 0.3},
    ),
    "bamba": ("BambaConfig", GROUPED | MAMBA | {"attn_layer_indices": [1], "mamba_n_heads": 4}),
    "jais2": ("Jais2Config", WITH_HEAD_DIM),
    "granite": (
        "GraniteConfig",
        GROUPED
        | {"embedding_multiplier": 2.0, "residual_multiplier": 0.22}
        | {"logits_scaling": 3.0, "attention_multiplier": 0.2},
    ),
    "cohere": ("CohereConfig", GROUPED | {"logit_scale": 0.0625}),
    "cohere2": ("Cohere2Config", GROUPED | {"logit_scale": 0.25, "sliding_window": 8}),
    "falcon 7b": ("FalconConfig", FALCON | {"multi_query": True, "bias": False}),
    "falcon rw": (
        "FalconConfig",
        FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "falcon 40b": (
        "FalconConfig",
        FALCON | {"num_kv_heads": 1, "new_decoder_architecture": True, "bias": False},
    ),
    "olmo": ("OlmoConfig", GROUPED),
    "olmo2": ("Olmo2Config", GROUPED),
    "olmo3": ("Olmo3Config", GROUPED | {"sliding_window": 8}),
    "olmo hybrid": ("OlmoHybridConfig", GROUPED),
    "exaone4": ("Exaone4Config", GROUPED | {"sliding_window": 8}),
    "bert": ("BertConfig", BERT),
    "bert as decoder": ("BertConfig", BERT | {"is_decoder": True}),
    "bert-generation": ("BertGenerationConfig", BERT | IDS | {"is_decoder": True}),
    "modernbert-decoder": (
        "ModernBertDecoderConfig",
        BERT | IDS | {"cls_token_id": 0, "sep_token_id": 0},
    ),
    "mixtral": ("MixtralConfig", GROUPED | {"num_local_experts": 2}),
    "qwen2_moe": ("Qwen2MoeConfig", GROUPED | SHARED),
    "qwen2_moe, last layer dense": ("Qwen2MoeConfig", GROUPED | SHARED | {"mlp_only_layers": [1]}),
    "qwen3_moe": ("Qwen3MoeConfig", WITH_HEAD_DIM | EXPERTS),
    "qwen3_moe, last layer dense": (
        "Qwen3MoeConfig",
        WITH_HEAD_DIM | EXPERTS | {"mlp_only_layers": [1]},
    ),
    "gpt_oss": ("GptOssConfig", WITH_HEAD_DIM | LOCAL),
    "olmoe": ("OlmoeConfig", GROUPED | {"num_experts": 2, "num_experts_per_tok": 1}),
    "granitemoe": ("GraniteMoeConfig", GROUPED | LOCAL),
    "deepseek_v2, all layers dense": ("DeepseekV2Config", LATENT | {"q_lora_rank": None}),
    "deepseek_v3, all layers dense": ("DeepseekV3Config", LATENT | {"q_lora_rank": 8}),
    "glm4_moe, all layers dense": ("Glm4MoeConfig", WITH_HEAD_DIM | ROUTED),
    "ernie4_5_moe, last layer dense": (
        "Ernie4_5_MoeConfig",
        GROUPED
        | {"moe_num_experts": 2, "moe_k": 1, "moe_intermediate_size": 24}
        | {"moe_layer_start_index": 0, "moe_layer_end_index": 0, "moe_num_shared_experts": 1},
    ),
    "llama4, all layers dense": (
        "Llama4TextConfig",
        WITH_HEAD_DIM
        | {"num_local_experts": 2, "moe_layers": [], "intermediate_size_mlp": 48}
        | {"layer_types": ["full_attention"] * 2},
    ),
    "jamba, last layer dense": (
        "JambaConfig",
        GROUPED
        | {"num_experts": 2, "expert_layer_period": 2, "expert_layer_offset": 0}
        | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4}
        | {"use_mamba_kernels": False},
    ),
    "mamba": ("MambaConfig", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4} | IDS),
    "mamba2": (
        "Mamba2Config",
        {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4}
        | {"head_dim": 8, "n_groups": 1}
        | IDS,
    ),
    "rwkv": (
        "RwkvConfig",
        {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16}
        | {"intermediate_size": 48, "context_length": 32}
        | IDS,
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        WITH_HEAD_DIM | {"lru_width": 16, "attention_window_size": 16},
    ),
    "nemotron_h": (
        "NemotronHConfig",
        {"hidden_size": 16, "intermediate_size": 48, "num_attention_heads": 2, "head_dim": 8}
        | {"num_key_value_heads": 1, "layers_block_type": ["mamba", "attention"]}
        | {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1}
        | {"max_position_embeddings": 32}
        | IDS,
    ),
    "openai-gpt": (
        "OpenAIGPTConfig",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 300},
    ),
    "biogpt": ("BioGptConfig", PLAIN),
    "helium": ("HeliumConfig", WITH_HEAD_DIM),
    "persimmon": ("PersimmonConfig", PLAIN),
    "minicpm3": ("MiniCPM3Config", GROUPED),
    "exaone_moe": ("ExaoneMoeConfig", GROUPED),
    "doge": ("DogeConfig", GROUPED),
}
UNWRAPPED = "is not a decoder with a dense last MLP that TransformerLens can wrap"
ELSEWHERE = "does not compute"  # what transformers does
AFTERWARDS = "so another step follows its last block"
NOT_WRAPPED = [
    *("opt-350m", "bert-generation", "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe"),
    *("granitemoe", "mamba", "mamba2", "rwkv", "recurrent_gemma", "nemotron_h", "openai-gpt"),
    *("biogpt", "helium", "persimmon", "exaone_moe", "doge"),
]
REFUSED = {
    "gpt2 without scale": ELSEWHERE,
    **dict.fromkeys(("bert", "bert as decoder", "modernbert-decoder"), AFTERWARDS),
    **dict.fromkeys(NOT_WRAPPED, UNWRAPPED),
    "phi with query norms": UNWRAPPED,
    "minicpm3": "cannot be run",
}


def write_kind(folder: Path, kind: str) -> Path:
    """A model directory of a kind, every weight random but for those that set a time scale."""
    name, values = KINDS[kind]
    model = untrained_twin(getattr(transformers, name)(**values), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "A_log" not in name and "dt_bias" not in name:
                parameter.add_(
                    (0.3 * torch.randn(parameter.shape, generator=generator)).to(parameter)
                )
    model.save_pretrained(folder)
    return write_tokenizer(folder)
