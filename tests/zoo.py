"""The decoder architectures of the installed transformers, each as a tiny random model."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from calibnb.errors import UserError
from calibnb.trees.attention import Body

TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 64
LAYERS = 4
WINDOW = 8

# Why some are not here.
NOT_TINY = {
    "bailing_hybrid": "sizes that depend on each other",
    "blt": "a patcher of fixed sizes",
    "cohere_compass_text": "rotary parameters for each kind of layer",
    "dots3_note": "sizes of a nested configuration that depend on each other",
    "gemma3n": "needs timm",
    "gemma4_assistant": "reads another model's states",
    "gemma4_unified_assistant": "reads another model's states",
    "musicgen": "no text configuration of its own",
    "musicgen_melody": "no text configuration of its own",
    "qwen4_exp": "sizes without defaults",
    "qwen4_exp_text": "sizes without defaults",
    "zamba": "layers tied by number",
    "zamba2": "sizes that depend on each other",
}
TINY = [t for t in TYPES if t not in NOT_TINY]

# What configurations call their sizes.
SIZES: dict[str, int | float] = (
    dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY)
    | dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim", "word_embed_proj_dim", "embedding_size"), 32)
    | dict.fromkeys(("dim", "emb_dim", "attention_hidden_size", "lru_width", "mamba_d_ssm"), 32)
    | dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_dim", "d_ff", "n_inner", "block_ffn_dim"), 48)
    | dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "ffn_intermediate_size"), 48)
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4)
    | dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "encoder_attention_heads"), 4)
    | dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads", "index_n_heads"), 2)
    | dict.fromkeys(("head_dim", "global_head_dim", "hidden_size_per_layer_input", "state_size", "ssm_state_size"), 8)
    | dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "mamba_d_state", "mamba_head_dim"), 8)
    | dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8)
    | dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim", "index_head_dim", "mamba_d_head"), 16)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "mamba_expand"), 2)
    | dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "num_dense_layers", "encoder_layers"), 1)
    | {"rotary_dim": 4, "index_topk": 12, "num_kv_shared_layers": 2, "max_window_layers": 2}
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3, "init_std": 0.3}
)
WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size")
# What is None by default and then made of other sizes, or wanted.
ALSO_IF_NONE = ("head_dim", "num_key_value_heads", "num_experts_per_tok")

EXTRA: dict[str, dict[str, Any]] = {
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4, "head_dim": 16},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * LAYERS},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hrm_text": {"initializer_range": 0.1},  # its many cycles enlarge the rounding of wider weights
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe", "mamba"], "n_groups": 1},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 5]},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}


def _small(default: dict[str, Any], window: int | None) -> dict[str, Any]:
    """Arguments that make a configuration tiny, from what it is by default."""
    made: dict[str, Any] = {}
    for key, value in default.items():
        if isinstance(value, dict) and key.endswith("_config"):
            made[key] = _small(value, window) | {k: value[k] for k in ("model_type",) if k in value}
        elif key in SIZES and (value is not None or key in ALSO_IF_NONE):
            made[key] = SIZES[key]
        elif key in WINDOWS:
            # None where there is none by default or a switch says so; elsewhere a window longer than any text here.
            made[key] = window or (None if value is None or "use_sliding_window" in default else 512)
        elif key == "use_sliding_window":
            made[key] = window is not None
        elif key == "layer_types" and "use_sliding_window" in default:
            continue  # made of the switch
        elif key in ("layer_types", "mlp_layer_types") and value is not None:
            made[key] = list(islice(cycle(dict.fromkeys(value)), LAYERS))  # each kind in turn
    if "kv_lora_rank" in made:  # keys and values are made of a latent state, one for each head
        made["num_key_value_heads"] = made["num_attention_heads"]
    return made


def tiny(model_type: str, window: int | None = WINDOW, **more: Any) -> PreTrainedModel:
    """A random model of four layers in float32, with windows of that width wherever it has any.

    Attention is sdpa, and eager for those that do not know it.
    """
    kind = CONFIG_MAPPING[model_type]
    config = kind(**_small(kind().to_dict(), window) | EXTRA.get(model_type, {}) | more)
    implementation = "sdpa" if MODEL_FOR_CAUSAL_LM_MAPPING[kind]._supports_sdpa else "eager"
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=torch.float32)
    torch.set_rng_state(state)
    return model.eval()


@cache
def made(model_type: str, window: int | None) -> PreTrainedModel:
    """As `tiny`, made once; not to be changed."""
    return tiny(model_type, window)


@cache
def body_of(model_type: str, window: int | None) -> Body | str:
    """The body of a tiny model, or the line that refuses it."""
    try:
        return Body(made(model_type, window))
    except UserError as error:
        return str(error)
