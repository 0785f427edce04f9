# SPDX-License-Identifier: MIT
"""Models from Hugging Face's ``config.json``; those that are shipped are such files too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_json
from astra_bridge.inputs.reading import Reader
from astra_bridge.text import nearest, show
from astra_bridge.workload.models.shape import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mixer,
    Mlp,
    Model,
    SelectiveScan,
    StateSpace,
)

__all__ = ["ARCHITECTURES", "model_file", "model_names", "named_model", "read_model"]

_MOST = 2**31 - 1
_DATA = Path(__file__).with_name("data")

# Keys that say nothing about shapes: numerics, training, generation, files, and what every
# configuration of Hugging Face has.
_SILENT = (
    "activation_function", "add_cross_attention", "architectures", "attention_dropout",
    "attention_multiplier", "attention_probs_dropout_prob", "attn_implementation",
    "attn_logit_softcapping", "attn_rotary_emb", "attn_scale", "attn_temperature_tuning",
    "auto_map", "aux_loss_alpha", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "cache_implementation", "calc_logits_for_entire_prompt", "chunk_size_feed_forward",
    "classifier_dropout", "clip_qkv", "compression_config", "cross_attention_hidden_size",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "dual_chunk_attention_config", "early_stopping", "embd_pdrop", "embedding_multiplier",
    "encoder_no_repeat_ngram_size", "eos_token_id", "ep_size", "experts_per_token",
    "exponential_decay_length_penalty", "final_logit_softcapping", "finetuning_task", "flash_attn",
    "floor_scale", "for_llm_compressor", "forced_bos_token_id", "forced_eos_token_id",
    "full_attn_mod", "fused_add_norm", "gradient_checkpointing", "hidden_act", "hidden_activation",
    "hidden_dropout", "hidden_dropout_prob", "id2label", "ignore_keys_at_rope_validation",
    "initial_context_length", "initializer_range", "interpolate_factor", "is_decoder",
    "is_encoder_decoder", "is_llama_config", "kv_cache_scheme", "label2id", "layer_norm_eps",
    "layer_norm_epsilon", "layernorm_full_attention_alpha", "layernorm_full_attention_beta",
    "layernorm_linear_attention_alpha", "layernorm_linear_attention_beta", "layernorm_mlp_alpha",
    "layernorm_mlp_beta", "length_penalty", "load_balance_coeff", "logits_scaling",
    "mamba_hidden_act", "max_length", "max_model_len", "max_position_embeddings",
    "max_sequence_length", "max_window_layers", "min_length", "mlp_hidden_act", "model_max_length",
    "model_name", "model_type", "mtp_transformer_layers", "n_ctx", "n_group", "n_special_tokens",
    "name_or_path", "neftune_noise_alpha", "no_repeat_ngram_size", "no_rope_layer_interval",
    "no_rope_layers", "norm_before_gate", "norm_eps", "norm_topk_prob", "num_beam_groups",
    "num_beams", "num_expert_group", "num_labels", "num_logits_to_keep", "num_mtp_modules",
    "num_parameters", "num_return_sequences", "original_max_position_embeddings",
    "output_attentions", "output_hidden_states", "output_past", "output_router_logits",
    "output_scores", "pad_token_id", "partial_rotary_factor", "postnorm", "predict_special_tokens",
    "prefix", "pretraining_tp", "problem_type", "pruned_heads", "qk_head_dim",
    "quantization_config", "query_pre_attn_scalar", "remove_invalid_values",
    "reorder_and_upcast_attn", "repetition_penalty", "rescale_prenorm_residual",
    "residual_in_fp32", "residual_multiplier", "return_dict", "return_dict_in_generate",
    "rms_norm", "rms_norm_eps", "rope_interleave", "rope_interleaved", "rope_local_base_freq",
    "rope_parameters", "rope_scaling", "rope_theta", "rope_type", "rotary_dim", "rotary_emb_base",
    "rotary_pct", "routed_scaling_factor", "router_aux_loss_coef", "router_jitter_noise",
    "router_z_loss_coef", "scale_attn_by_inverse_layer_idx", "scale_attn_weights", "scoring_func",
    "sep_token_id", "seq_aux", "shared_moe_mode", "sliding_window_size", "sparsity_config",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "suppress_tokens", "swiglu_alpha", "swiglu_limit", "task_specific_params",
    "temperature", "tf_legacy_loss", "tie_encoder_decoder", "time_step_floor",
    "time_step_init_scheme", "time_step_limit", "time_step_max", "time_step_min", "time_step_rank",
    "tokenizer_class", "top_k", "top_p", "topk_group", "topk_method", "torch_dtype", "torchscript",
    "transformers_version", "typical_p", "unsloth_fixed", "unsloth_version", "use_bfloat16",
    "use_bidirectional_attention", "use_cache", "use_flash_attn", "use_grouped_mm",
    "use_grouped_topk", "use_mamba_kernels", "use_mrope", "use_mtp", "use_parallel_residual",
    "use_qk_norm", "z_loss_coefficient",
)  # fmt: skip

# Parts that some models have: understood where a file says that its model has none.
_ABSENT = (
    "attention_out_bias", "lm_head_bias", "qkv_bias", "shared_expert_intermediate_size",
    "shared_intermediate_size",
)  # fmt: skip


def _attention(
    reader: Reader, *, qkv_bias: bool = False, head_norms: bool = False, windowed: bool = True
) -> Attention:
    """Attention; `windowed` is whether a window counts where no key says so."""
    hidden = reader.integer("hidden_size", None, 1, _MOST)
    heads = reader.integer("num_attention_heads", None, 1, _MOST)
    kv_heads = reader.integer("num_key_value_heads", heads, 1, _MOST)
    if heads % kv_heads:
        raise reader.fail("num_key_value_heads", f"{kv_heads} does not divide {heads} heads")
    # Nemotron-H calls it otherwise.
    said = next((key for key in ("head_dim", "attention_head_dim") if key in reader.raw), "")
    if not said and hidden % heads:
        raise reader.fail("num_attention_heads", f"{heads} does not divide hidden_size {hidden}")
    head_dim = reader.integer(said, None, 1, _MOST) if said else hidden // heads
    window = reader.integer("sliding_window", 0, 0, _MOST)
    if not _flag(reader, "use_sliding_window", windowed):
        window = 0
    bias = reader.flag("attention_bias")
    return Attention(
        heads,
        kv_heads,
        head_dim,
        qkv_bias=qkv_bias or bias,
        out_bias=bias,
        head_norms=2 * head_dim if head_norms else 0,
        window=window,
    )


def _flag(reader: Reader, name: str, default: bool) -> bool:
    return reader.flag(name) if name in reader.raw else default


def _list(reader: Reader, name: str, default: Sequence[Any]) -> Sequence[Any]:
    value = reader.raw.get(name, default)
    if not isinstance(value, (list, tuple, range)):
        raise reader.fail(name, f"expected a list, found {show(value)}")
    return value


def _windows(reader: Reader, *default: str) -> list[bool]:
    """By layer, whether it sees a window only; `default` is a pattern that goes on and on."""
    depth = _depth(reader)
    kinds = _list(reader, "layer_types", [default[at % len(default)] for at in range(depth)])
    if len(kinds) != depth or not {str(one) for one in kinds} <= set(_SEEN):
        raise reader.fail(
            "layer_types",
            f"{show(kinds)} is not allowed; allowed: {depth} of {', '.join(_SEEN)}",
        )
    return [_SEEN[str(one)] for one in kinds]


def _stack(
    reader: Reader, attention: Attention, mlp: Mlp | Experts, norms: int, *pattern: str
) -> tuple[Layer, ...]:
    """Layers that are alike but for the window of those that the pattern says."""
    whole = replace(attention, window=0)
    return tuple(
        Layer(attention if seen else whole, mlp, norms) for seen in _windows(reader, *pattern)
    )


def _mlp(reader: Reader) -> Mlp:
    return Mlp(reader.integer("intermediate_size", None, 1, _MOST), True, reader.flag("mlp_bias"))


def _depth(reader: Reader, name: str = "num_hidden_layers") -> int:
    return reader.integer(name, None, 1, 100_000)


def _model(reader: Reader, name: str, layers: tuple[Layer, ...], *, tied: bool = False) -> Model:
    return Model(
        name,
        reader.integer("hidden_size", None, 1, _MOST),
        reader.integer("vocab_size", None, 1, _MOST),
        layers,
        _flag(reader, "tie_word_embeddings", tied),
    )


def _llama(reader: Reader, name: str) -> Model:
    return _model(reader, name, _stack(reader, _attention(reader), _mlp(reader), 2, _WINDOW))


def _qwen2(reader: Reader, name: str) -> Model:
    attention = _attention(reader, qkv_bias=True, windowed=False)
    return _model(reader, name, _stack(reader, attention, _mlp(reader), 2, _WINDOW))


def _qwen3(reader: Reader, name: str) -> Model:
    attention = _attention(reader, head_norms=True, windowed=False)
    return _model(reader, name, _stack(reader, attention, _mlp(reader), 2, _WINDOW))


def _gemma(reader: Reader, name: str) -> Model:
    layers = _stack(reader, _attention(reader), _mlp(reader), 2, _WINDOW)
    return _model(reader, name, layers, tied=True)


def _gemma2(reader: Reader, name: str) -> Model:
    """Norms before and after both parts; every other layer sees a window only."""
    layers = _stack(reader, _attention(reader), _mlp(reader), 4, _WINDOW, _ALL)
    return _model(reader, name, layers, tied=True)


def _mixtral(reader: Reader, name: str) -> Model:
    experts = Experts(
        reader.integer("num_local_experts", 8, 1, _MOST),
        reader.integer("num_experts_per_tok", 2, 1, _MOST),
        reader.integer("intermediate_size", None, 1, _MOST),
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    return _model(reader, name, _stack(reader, _attention(reader), experts, 2, _WINDOW))


def _gpt_oss(reader: Reader, name: str) -> Model:
    """Biases everywhere, sinks, and a window in every other layer (OpenAI, arXiv 2508.10925)."""
    experts = Experts(
        reader.integer("num_local_experts", None, 1, _MOST),
        reader.integer("num_experts_per_tok", 4, 1, _MOST),
        reader.integer("intermediate_size", None, 1, _MOST),
        router_bias=True,
        bias=True,
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    attention = replace(_attention(reader), sinks=True)
    return _model(reader, name, _stack(reader, attention, experts, 2, _WINDOW, _ALL))


def _llama4(reader: Reader, name: str) -> Model:
    """Experts in every layer or some, with a shared one; three of four layers see a chunk only."""
    width = reader.integer("intermediate_size", None, 1, _MOST)
    experts = Experts(
        reader.integer("num_local_experts", 16, 1, _MOST),
        reader.integer("num_experts_per_tok", 1, 1, _MOST),
        width,
        width,
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    mlp = Mlp(reader.integer("intermediate_size_mlp", width, 1, _MOST))
    every = reader.integer("interleave_moe_layer_step", 1, 1, _MOST)
    routed = _list(reader, "moe_layers", range(every - 1, _depth(reader), every))
    chunk = reader.integer("attention_chunk_size", 0, 0, _MOST)
    here = replace(_attention(reader), window=chunk)
    whole = replace(here, window=0)
    layers = tuple(
        Layer(here if seen else whole, experts if at in routed else mlp)
        for at, seen in enumerate(_windows(reader, *(_CHUNK,) * 3, _ALL))
    )
    return _model(reader, name, layers)


def _gemma3(reader: Reader, name: str) -> Model:
    """As Gemma 2, with norms of queries and keys; one of six layers sees all."""
    pattern = (_WINDOW,) * (reader.integer("sliding_window_pattern", 6, 1, 1000) - 1) + (_ALL,)
    layers = _stack(reader, _attention(reader, head_norms=True), _mlp(reader), 4, *pattern)
    return _model(reader, name, layers, tied=True)


def _qwen2_moe(reader: Reader, name: str) -> Model:
    """With a shared expert that has a gate of its own."""
    shared = reader.integer("shared_expert_intermediate_size", None, 1, _MOST)
    return _qwen_experts(reader, name, _attention(reader, qkv_bias=True, windowed=False), shared)


def _qwen3_moe(reader: Reader, name: str) -> Model:
    return _qwen_experts(reader, name, _attention(reader, head_norms=True, windowed=False), 0)


def _qwen_experts(reader: Reader, name: str, attention: Attention, shared: int) -> Model:
    experts = Experts(
        reader.integer("num_experts", None, 1, _MOST),
        reader.integer("num_experts_per_tok", None, 1, _MOST),
        reader.integer("moe_intermediate_size", None, 1, _MOST),
        shared,
        shared_gate=shared > 0,
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    mlp = _mlp(reader)
    every = reader.integer("decoder_sparse_step", 1, 1, _MOST)
    dense = _list(reader, "mlp_only_layers", ())
    whole = replace(attention, window=0)
    layers = tuple(
        Layer(attention if seen else whole, mlp if at in dense or (at + 1) % every else experts)
        for at, seen in enumerate(_windows(reader, _WINDOW))
    )
    return _model(reader, name, layers)


def _deepseek(reader: Reader, name: str) -> Model:
    attention = LatentAttention(
        reader.integer("num_attention_heads", None, 1, _MOST),
        reader.integer("q_lora_rank", 0, 0, _MOST),
        reader.integer("kv_lora_rank", None, 1, _MOST),
        reader.integer("qk_nope_head_dim", None, 1, _MOST),
        reader.integer("qk_rope_head_dim", None, 1, _MOST),
        reader.integer("v_head_dim", None, 1, _MOST),
    )
    return _routed(reader, name, attention)


def _routed(reader: Reader, name: str, attention: Attention | LatentAttention) -> Model:
    """Dense layers, then routed and shared experts, as DeepSeek has them."""
    width = reader.integer("moe_intermediate_size", None, 1, _MOST)
    experts = Experts(
        reader.integer("n_routed_experts", None, 1, _MOST),
        reader.integer("num_experts_per_tok", None, 1, _MOST),
        width,
        width * reader.integer("n_shared_experts", 0, 0, _MOST),
        # DeepSeek-V3's balance without a loss; V2 has none.
        router_bias=reader.raw.get("topk_method", "noaux_tc") == "noaux_tc",
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    first, mlp = reader.integer("first_k_dense_replace", 0, 0, _MOST), _mlp(reader)
    every = reader.integer("moe_layer_freq", 1, 1, _MOST)
    layers = tuple(
        Layer(attention, mlp if at < first or at % every else experts)
        for at in range(_depth(reader))
    )
    predictors = reader.integer("num_nextn_predict_layers", 0, 0, 100)
    return replace(_model(reader, name, layers), predictors=predictors)


def _glm4_moe(reader: Reader, name: str) -> Model:
    """Grouped queries, biased but for the output, and DeepSeek-V3's experts (arXiv 2508.06471)."""
    normed = _flag(reader, "use_qk_norm", False)
    attention = replace(_attention(reader, head_norms=normed), out_bias=False)
    return _routed(reader, name, attention)


def _minimax_m2(reader: Reader, name: str) -> Model:
    """Norms of all heads of queries, and of keys, at once; experts in every layer."""
    attention = _whole_norms(_attention(reader), _flag(reader, "use_qk_norm", True))
    kinds = _list(reader, "attn_type_list", ())
    if any(kind != 1 for kind in kinds):
        raise reader.fail("attn_type_list", f"{show(kinds)} is not allowed; allowed: 1 everywhere")
    if (norm := reader.text("qk_norm_type", "per_layer")) != "per_layer":
        raise reader.fail("qk_norm_type", f"{show(norm)} is not allowed; allowed: per_layer")
    experts = Experts(
        reader.integer("num_local_experts", None, 1, _MOST),
        reader.integer("num_experts_per_tok", None, 1, _MOST),
        reader.integer("intermediate_size", None, 1, _MOST),
        router_bias=_flag(reader, "use_routing_bias", True),
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    return _model(reader, name, _stack(reader, attention, experts, 2, _WINDOW))


def _olmo2(reader: Reader, name: str) -> Model:
    """Norms of all heads of queries, and of keys, at once (arXiv 2501.00656)."""
    attention = _whole_norms(_attention(reader), True)
    return _model(reader, name, _stack(reader, attention, _mlp(reader), 2, _WINDOW))


def _whole_norms(attention: Attention, normed: bool) -> Attention:
    wide = (attention.heads + attention.kv_heads) * attention.head_dim
    return replace(attention, head_norms=wide if normed else 0)


def _smollm3(reader: Reader, name: str) -> Model:
    layers = _stack(reader, _attention(reader, windowed=False), _mlp(reader), 2, _WINDOW)
    return _model(reader, name, layers, tied=True)


def _check_experts(reader: Reader, experts: Experts, key: str) -> None:
    if experts.top_k > experts.count:
        raise reader.fail(key, f"{experts.top_k} is more than {experts.count} experts")


def _gpt2(reader: Reader, name: str) -> Model:
    hidden = reader.integer("n_embd", None, 1, _MOST)
    heads = reader.integer("n_head", None, 1, _MOST)
    if hidden % heads:
        raise reader.fail("n_head", f"{heads} does not divide n_embd {hidden}")
    attention = Attention(heads, heads, hidden // heads, qkv_bias=True, out_bias=True)
    mlp = Mlp(reader.integer("n_inner", 4 * hidden, 1, _MOST), gated=False, bias=True)
    positions = reader.integer("n_positions", 1024, 1, _MOST)
    dropout = any(reader.number(key, 0.1, 0, 1) > 0 for key in ("attn_pdrop", "resid_pdrop"))
    tied = _flag(reader, "tie_word_embeddings", True)
    layers = (Layer(attention, mlp),) * _depth(reader, "n_layer")
    vocabulary = reader.integer("vocab_size", None, 1, _MOST)
    return Model(name, hidden, vocabulary, layers, tied, True, positions, dropout)


def _gpt_neox(reader: Reader, name: str) -> Model:
    hidden = reader.integer("hidden_size", None, 1, _MOST)
    heads = reader.integer("num_attention_heads", None, 1, _MOST)
    if hidden % heads:
        raise reader.fail("num_attention_heads", f"{heads} does not divide hidden_size {hidden}")
    bias = _flag(reader, "attention_bias", True)
    attention = Attention(heads, heads, hidden // heads, qkv_bias=bias, out_bias=bias)
    mlp = Mlp(reader.integer("intermediate_size", None, 1, _MOST), gated=False, bias=True)
    layers = (Layer(attention, mlp),) * _depth(reader)
    vocabulary = reader.integer("vocab_size", None, 1, _MOST)
    return Model(name, hidden, vocabulary, layers, reader.flag("tie_word_embeddings"), True)


def _state_space(reader: Reader, prefix: str, groups: str, bias: bool) -> StateSpace:
    """A Mamba-2 mixer, whose keys have other names in hybrids."""
    return StateSpace(
        reader.integer(f"{prefix}num_heads", None, 1, _MOST),
        reader.integer(f"{prefix}head_dim", None, 1, _MOST),
        reader.integer("state_size" if not prefix else "ssm_state_size", 128, 1, _MOST),
        reader.integer(groups, 8, 1, _MOST),
        reader.integer("conv_kernel", 4, 1, _MOST),
        reader.integer("chunk_size", 256, 1, _MOST),
        bias,
        _flag(reader, "use_conv_bias", True),
    )


def _mamba2(reader: Reader, name: str) -> Model:
    mixer = _state_space(reader, "", "n_groups", reader.flag("use_bias"))
    return _model(reader, name, (Layer(mixer, None, 1),) * _depth(reader))


def _nemotron_h(reader: Reader, name: str) -> Model:
    """Single blocks in the order of a pattern: M Mamba-2, * attention, - feed-forward."""
    pattern = reader.text("hybrid_override_pattern", "")
    bias = reader.flag("use_bias") or reader.flag("mamba_proj_bias")
    mixer = _state_space(reader, "mamba_", "n_groups", bias)
    mlp = Mlp(reader.integer("intermediate_size", None, 1, _MOST), False, reader.flag("mlp_bias"))
    kinds: dict[str, tuple[Mixer | None, Mlp | None]] = {
        "M": (mixer, None),
        "*": (_attention(reader), None),
        "-": (None, mlp),
    }
    if len(pattern) != _depth(reader) or not set(pattern) <= set(kinds):
        raise reader.fail(
            "hybrid_override_pattern",
            f"{show(pattern)} is not allowed; allowed: num_hidden_layers letters M, * and -",
        )
    return _model(reader, name, tuple(Layer(*kinds[one], 1) for one in pattern))


def _scan(reader: Reader, prefix: str) -> SelectiveScan:
    """A Mamba mixer, whose keys have other names in hybrids."""
    hidden = reader.integer("hidden_size", None, 1, _MOST)
    if prefix:
        width = reader.integer(f"{prefix}expand", 2, 1, 1000) * hidden
    else:
        width = reader.integer("intermediate_size", 2 * hidden, 1, _MOST)
    rank = f"{prefix}dt_rank" if prefix else "time_step_rank"
    steps = -(-hidden // 16)
    return SelectiveScan(
        width,
        reader.integer(f"{prefix}d_state" if prefix else "state_size", 16, 1, _MOST),
        steps if reader.raw.get(rank) == "auto" else reader.integer(rank, steps, 1, _MOST),
        reader.integer(f"{prefix}d_conv" if prefix else "conv_kernel", 4, 1, _MOST),
        reader.flag(f"{prefix}proj_bias" if prefix else "use_bias"),
        _flag(reader, f"{prefix}conv_bias" if prefix else "use_conv_bias", True),
        inner_norms=bool(prefix) and _flag(reader, "mamba_inner_layernorms", True),
    )


def _mamba(reader: Reader, name: str) -> Model:
    layers = (Layer(_scan(reader, ""), None, 1),) * _depth(reader)
    return _model(reader, name, layers, tied=True)


def _jamba(reader: Reader, name: str) -> Model:
    """Mamba with attention in one of some layers, and experts in others (arXiv 2403.19887)."""
    attention, scan, mlp = _attention(reader), _scan(reader, "mamba_"), _mlp(reader)
    experts = Experts(
        reader.integer("num_experts", 16, 1, _MOST),
        reader.integer("num_experts_per_tok", 2, 1, _MOST),
        mlp.width,
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    turns = []
    for what, offset, period in (("attn", 4, 8), ("expert", 1, 2)):
        every = reader.integer(f"{what}_layer_period", period, 1, _MOST)
        turns.append((every, reader.integer(f"{what}_layer_offset", offset, 0, every - 1)))
    (attending, first), (routing, second) = turns
    layers = tuple(
        Layer(
            attention if at % attending == first else scan,
            experts if experts.count > 1 and at % routing == second else mlp,
        )
        for at in range(_depth(reader))
    )
    return _model(reader, name, layers)


def _bamba(reader: Reader, name: str) -> Model:
    """Mamba-2 with attention in the layers that are listed; each has a feed-forward part."""
    heads = reader.integer("mamba_n_heads", 128, 1, _MOST)
    width = reader.integer("mamba_expand", 2, 1, 1000) * reader.integer(
        "hidden_size", None, 1, _MOST
    )
    if width % heads:
        raise reader.fail("mamba_n_heads", f"{heads} does not divide {width}")
    given = reader.raw.get("mamba_d_head", "auto")
    mixer = StateSpace(
        heads,
        width // heads if given == "auto" else reader.integer("mamba_d_head", None, 1, _MOST),
        reader.integer("mamba_d_state", 256, 1, _MOST),
        reader.integer("mamba_n_groups", 1, 1, _MOST),
        reader.integer("mamba_d_conv", 4, 1, _MOST),
        reader.integer("mamba_chunk_size", 256, 1, _MOST),
        reader.flag("mamba_proj_bias"),
        _flag(reader, "mamba_conv_bias", True),
    )
    attention, mlp = _attention(reader), _mlp(reader)
    attending = _list(reader, "attn_layer_indices", ())
    layers = tuple(
        Layer(attention if at in attending else mixer, mlp) for at in range(_depth(reader))
    )
    return _model(reader, name, layers)


_WINDOW, _ALL, _CHUNK = "sliding_attention", "full_attention", "chunked_attention"
_SEEN = {_WINDOW: True, _ALL: False, _CHUNK: True}
"""What ``layer_types`` may say -> whether it is a window."""

_DENSE = (
    "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window",
    "use_sliding_window", "attention_bias", "intermediate_size", "mlp_bias", "num_hidden_layers",
    "vocab_size", "tie_word_embeddings", "layer_types",
)  # fmt: skip
_QWEN_EXPERTS = (
    *_DENSE, "num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step",
    "mlp_only_layers",
)  # fmt: skip
_ROUTED = (
    "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_shared_experts",
    "first_k_dense_replace", "moe_layer_freq", "num_nextn_predict_layers",
)  # fmt: skip
_DEEPSEEK = (
    *_DENSE, *_ROUTED, "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
    "v_head_dim",
)  # fmt: skip
_MAMBA = (
    "hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings", "n_groups",
    "conv_kernel", "chunk_size", "use_bias", "use_conv_bias", "expand",
)  # fmt: skip

# What a class of Hugging Face takes where a key is missing, of keys that are missing in files that
# people have (transformers, src/transformers/models/*/configuration_*.py).
_DEFAULTS: dict[str, dict[str, int]] = {
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen2_moe": {"num_key_value_heads": 16},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "qwen3_moe": {"num_key_value_heads": 4},
    "qwen2_5_vl_text": {"num_key_value_heads": 8},
    "qwen3_vl_text": {"num_key_value_heads": 32, "head_dim": 128},
    "qwen3_vl_moe_text": {"num_key_value_heads": 16},
    "gemma": {"num_key_value_heads": 16, "head_dim": 256},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096},
    "gemma3_text": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "sliding_window": 4096,
    },
    "gpt_oss": {
        "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "attention_bias": True,
    },
    "llama4_text": {"num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 8192},
    "glm4_moe": {"num_key_value_heads": 8},
    "minimax_m2": {"num_key_value_heads": 8, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4},
    "jamba": {"num_key_value_heads": 8},
    "bamba": {"num_key_value_heads": 8},
}  # fmt: skip

# model_type -> how it is read, and the keys that count.
ARCHITECTURES: dict[str, tuple[Callable[[Reader, str], Model], tuple[str, ...]]] = {
    "llama": (_llama, _DENSE),
    "granite": (_llama, _DENSE),
    "mistral": (_llama, _DENSE),
    "phi3": (_llama, (*_DENSE, "resid_pdrop")),
    "qwen2": (_qwen2, _DENSE),
    "qwen3": (_qwen3, _DENSE),
    "qwen2_5_vl_text": (_qwen2, _DENSE),
    "qwen3_vl_text": (_qwen3, _DENSE),
    "qwen3_vl_moe_text": (_qwen3_moe, _QWEN_EXPERTS),
    "qwen2_moe": (_qwen2_moe, (*_QWEN_EXPERTS, "shared_expert_intermediate_size")),
    "qwen3_moe": (_qwen3_moe, _QWEN_EXPERTS),
    "gemma": (_gemma, _DENSE),
    "gemma2": (_gemma2, _DENSE),
    "gemma3_text": (_gemma3, (*_DENSE, "sliding_window_pattern")),
    "mixtral": (_mixtral, (*_DENSE, "num_local_experts", "num_experts_per_tok")),
    "gpt_oss": (_gpt_oss, (*_DENSE, "num_local_experts", "num_experts_per_tok")),
    "llama4_text": (
        _llama4,
        (*_DENSE, "num_local_experts", "num_experts_per_tok", "intermediate_size_mlp",
         "interleave_moe_layer_step", "moe_layers", "attention_chunk_size"),
    ),
    "deepseek_v2": (_deepseek, _DEEPSEEK),
    "deepseek_v3": (_deepseek, _DEEPSEEK),
    "kimi_k2": (_deepseek, _DEEPSEEK),
    "glm4_moe": (_glm4_moe, (*_DENSE, *_ROUTED, "use_qk_norm")),
    "minimax_m2": (
        _minimax_m2,
        (*_DENSE, "num_local_experts", "num_experts_per_tok", "attn_type_list", "use_qk_norm",
         "qk_norm_type", "use_routing_bias", "mlp_intermediate_size"),
    ),
    "olmo2": (_olmo2, _DENSE),
    "smollm3": (_smollm3, _DENSE),
    "gpt2": (
        _gpt2,
        ("n_embd", "n_head", "n_inner", "n_positions", "n_layer", "vocab_size", "attn_pdrop",
         "resid_pdrop", "tie_word_embeddings"),
    ),
    "gpt_neox": (
        _gpt_neox,
        ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers",
         "vocab_size", "tie_word_embeddings", "attention_bias"),
    ),
    "mamba": (
        _mamba,
        (*_MAMBA, "intermediate_size", "state_size", "time_step_rank", "d_inner", "d_model",
         "n_layer", "ssm_cfg", "pad_vocab_size_multiple"),
    ),
    "mamba2": (_mamba2, (*_MAMBA, "num_heads", "head_dim", "state_size")),
    "jamba": (
        _jamba,
        (*_DENSE, "num_experts", "num_experts_per_tok", "attn_layer_period", "attn_layer_offset",
         "expert_layer_period", "expert_layer_offset", "mamba_d_state", "mamba_d_conv",
         "mamba_expand", "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias",
         "mamba_inner_layernorms"),
    ),
    "bamba": (
        _bamba,
        (*_DENSE, "attn_layer_indices", "mamba_n_heads", "mamba_d_head", "mamba_d_state",
         "mamba_n_groups", "mamba_d_conv", "mamba_expand", "mamba_chunk_size", "mamba_conv_bias",
         "mamba_proj_bias"),
    ),
    "nemotron_h": (
        _nemotron_h,
        (*_DENSE, *_MAMBA, "hybrid_override_pattern", "mamba_num_heads", "mamba_head_dim",
         "ssm_state_size", "mamba_proj_bias", "attention_head_dim"),
    ),
}  # fmt: skip


def read_model(path: str | Path) -> Model:
    """Read a ``config.json``.

    Parameters
    ----------
    path
        Of the file, or of the folder that it is in.

    Raises
    ------
    InputError
        The file cannot be read, its ``model_type`` is not known, or a key or value is not
        understood; keys that say nothing about shapes are passed over, all others are refused.

    Examples
    --------
    >>> read_model(_DATA / "llama-3.1-8b.json").depth
    32
    """
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    reader = Reader(load_json(file), file)
    given = reader.raw.get("model_type")
    if given not in tuple(ARCHITECTURES) and "text_config" in reader.raw:
        # A model that sees or hears, too: what it reads and writes is within.
        outer = reader.raw
        reader = Reader(outer["text_config"], file, "text_config")
        given = reader.raw.get("model_type")
        tied = {"tie_word_embeddings": outer.get("tie_word_embeddings")}
        reader = Reader(tied | dict(reader.raw), file, "text_config")
    if not isinstance(given, str) or given not in ARCHITECTURES:
        hint = nearest(given, ARCHITECTURES) if isinstance(given, str) else ""
        raise reader.fail(
            "model_type", f"{show(given)} is not allowed; allowed: {', '.join(ARCHITECTURES)}{hint}"
        )
    read, keys = ARCHITECTURES[given]
    # Null is what a class makes of the others, and no key at all what it takes by default.
    known = _DEFAULTS.get(given, {}) | dict(reader.raw)
    said = {key: value for key, value in known.items() if value is not None}
    reader = Reader(said, file, reader.where)
    for key, value in reader.raw.items():
        if key in keys or key in _SILENT or key.startswith(("_", "$")):
            continue
        if key in _ABSENT:
            if value:
                raise reader.fail(key, f"{show(value)} is not understood; allowed: false or 0")
        else:
            raise reader.fail(
                key,
                f"{show(value)}: unknown key of a {given}{nearest(key, keys)}; those that count: "
                f"{', '.join(keys)}",
            )
    return read(reader, file.parent.name if file.name == "config.json" else file.stem)


@cache
def model_names() -> tuple[str, ...]:
    """Names of the models that are shipped."""
    return tuple(sorted(file.stem for file in _DATA.glob("*.json")))


def model_file(name: str, *, key: str = "model") -> Path:
    """The file of a model that is shipped.

    Raises
    ------
    InputError
        Nothing has this name.
    """
    if name not in model_names():
        raise InputError(
            f"{show(name)} is not allowed; allowed: a name that `astra-bridge models` prints, or "
            f"the path of a config.json{nearest(name, model_names())}",
            key=key,
        )
    return _DATA / f"{name}.json"


def named_model(given: str | Path, *, key: str = "model") -> Model:
    """The model of a name, or of a ``config.json``.

    Parameters
    ----------
    given
        A name of :func:`model_names`, or a path: whatever ends in ``.json`` or has a ``/``.
    key
        Where it stands, for messages.

    Raises
    ------
    InputError
        As :func:`read_model`, or nothing has this name.

    Examples
    --------
    >>> named_model("mixtral-8x7b").experts
    8
    """
    if isinstance(given, Path) or given.endswith(".json") or "/" in given:
        return read_model(given)
    return read_model(model_file(given, key=key))
