# SPDX-License-Identifier: MIT
"""Models from Hugging Face's ``config.json``; those that are shipped are such files too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

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
    StateSpace,
)

__all__ = ["ARCHITECTURES", "model_names", "named_model", "read_model"]

_MOST = 2**31 - 1
_DATA = Path(__file__).with_name("data")

# Keys that say nothing about shapes: numerics, training, generation, files.
_SILENT = (
    "activation_function", "architectures", "attention_dropout", "attention_probs_dropout_prob",
    "attn_implementation", "attn_logit_softcapping", "auto_map", "aux_loss_alpha",
    "bos_token_id", "cache_implementation", "classifier_dropout", "dtype", "embd_pdrop",
    "eos_token_id", "ep_size", "final_logit_softcapping", "gradient_checkpointing",
    "hidden_act", "hidden_activation", "hidden_dropout", "hidden_dropout_prob", "id2label",
    "initializer_range", "label2id", "layer_norm_eps", "layer_norm_epsilon", "layer_types",
    "mamba_hidden_act", "max_position_embeddings", "max_window_layers", "mlp_hidden_act",
    "model_max_length", "model_type", "n_ctx", "n_group", "n_special_tokens",
    "norm_before_gate", "norm_eps", "norm_topk_prob", "num_labels", "num_logits_to_keep",
    "num_nextn_predict_layers", "output_router_logits", "pad_token_id", "partial_rotary_factor",
    "predict_special_tokens", "pretraining_tp", "qk_head_dim", "quantization_config",
    "query_pre_attn_scalar", "reorder_and_upcast_attn", "rescale_prenorm_residual",
    "residual_in_fp32", "rms_norm", "rms_norm_eps", "rope_interleave", "rope_local_base_freq",
    "rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct",
    "routed_scaling_factor", "router_aux_loss_coef", "router_jitter_noise",
    "scale_attn_by_inverse_layer_idx", "scale_attn_weights", "scoring_func", "seq_aux",
    "sliding_window_size", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params",
    "time_step_floor", "time_step_limit", "time_step_max", "time_step_min", "time_step_rank",
    "topk_group", "topk_method", "torch_dtype", "transformers_version", "unsloth_version",
    "use_cache", "use_mamba_kernels", "use_mrope", "use_parallel_residual",
)  # fmt: skip


def _attention(
    reader: Reader, *, qkv_bias: bool = False, head_norms: bool = False, windowed: bool = True
) -> Attention:
    """Attention; `windowed` is whether a window counts where no key says so."""
    hidden = reader.integer("hidden_size", None, 1, _MOST)
    heads = reader.integer("num_attention_heads", None, 1, _MOST)
    kv_heads = _optional(reader, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise reader.fail("num_key_value_heads", f"{kv_heads} does not divide {heads} heads")
    # Nemotron-H calls it otherwise.
    said = next((key for key in ("head_dim", "attention_head_dim") if reader.raw.get(key)), "")
    if not said and hidden % heads:
        raise reader.fail("num_attention_heads", f"{heads} does not divide hidden_size {hidden}")
    head_dim = reader.integer(said, None, 1, _MOST) if said else hidden // heads
    window = _optional(reader, "sliding_window", 0, low=0)
    if not reader.raw.get("use_sliding_window", windowed):
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


def _optional(reader: Reader, name: str, default: int, low: int = 1) -> int:
    """A whole number, which may also be null."""
    if reader.raw.get(name) is None:
        return default
    return reader.integer(name, default, low, _MOST)


def _mlp(reader: Reader) -> Mlp:
    return Mlp(reader.integer("intermediate_size", None, 1, _MOST), True, reader.flag("mlp_bias"))


def _depth(reader: Reader, name: str = "num_hidden_layers") -> int:
    return reader.integer(name, None, 1, 100_000)


def _model(reader: Reader, name: str, layers: tuple[Layer, ...], *, tied: bool = False) -> Model:
    given = reader.flag("tie_word_embeddings") if "tie_word_embeddings" in reader.raw else tied
    return Model(
        name,
        reader.integer("hidden_size", None, 1, _MOST),
        reader.integer("vocab_size", None, 1, _MOST),
        layers,
        given,
    )


def _llama(reader: Reader, name: str) -> Model:
    return _model(reader, name, (Layer(_attention(reader), _mlp(reader)),) * _depth(reader))


def _qwen2(reader: Reader, name: str) -> Model:
    attention = _attention(reader, qkv_bias=True, windowed=False)
    return _model(reader, name, (Layer(attention, _mlp(reader)),) * _depth(reader))


def _qwen3(reader: Reader, name: str) -> Model:
    attention = _attention(reader, head_norms=True, windowed=False)
    return _model(reader, name, (Layer(attention, _mlp(reader)),) * _depth(reader))


def _gemma(reader: Reader, name: str) -> Model:
    return _model(
        reader, name, (Layer(_attention(reader), _mlp(reader)),) * _depth(reader), tied=True
    )


def _gemma2(reader: Reader, name: str) -> Model:
    """Norms before and after both parts; every other layer sees a window only."""
    here = _attention(reader)
    whole, mlp = replace(here, window=0), _mlp(reader)
    layers = tuple(Layer(whole if at % 2 else here, mlp, 4) for at in range(_depth(reader)))
    return _model(reader, name, layers, tied=True)


def _mixtral(reader: Reader, name: str) -> Model:
    experts = Experts(
        reader.integer("num_local_experts", 8, 1, _MOST),
        reader.integer("num_experts_per_tok", 2, 1, _MOST),
        reader.integer("intermediate_size", None, 1, _MOST),
    )
    _check_experts(reader, experts, "num_experts_per_tok")
    return _model(reader, name, (Layer(_attention(reader), experts),) * _depth(reader))


def _gemma3(reader: Reader, name: str) -> Model:
    """As Gemma 2, with norms of queries and keys; one of six layers sees all."""
    here = _attention(reader, head_norms=True)
    whole, mlp = replace(here, window=0), _mlp(reader)
    every = reader.integer("sliding_window_pattern", 6, 1, _MOST)
    layers = tuple(
        Layer(here if (at + 1) % every else whole, mlp, 4) for at in range(_depth(reader))
    )
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
    dense = reader.raw.get("mlp_only_layers") or []
    layers = tuple(
        Layer(attention, mlp if at in dense or (at + 1) % every else experts)
        for at in range(_depth(reader))
    )
    return _model(reader, name, layers)


def _deepseek(reader: Reader, name: str) -> Model:
    attention = LatentAttention(
        reader.integer("num_attention_heads", None, 1, _MOST),
        _optional(reader, "q_lora_rank", 0),
        reader.integer("kv_lora_rank", None, 1, _MOST),
        reader.integer("qk_nope_head_dim", None, 1, _MOST),
        reader.integer("qk_rope_head_dim", None, 1, _MOST),
        reader.integer("v_head_dim", None, 1, _MOST),
    )
    width = reader.integer("moe_intermediate_size", None, 1, _MOST)
    experts = Experts(
        reader.integer("n_routed_experts", None, 1, _MOST),
        reader.integer("num_experts_per_tok", None, 1, _MOST),
        width,
        width * _optional(reader, "n_shared_experts", 0, low=0),
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
    return _model(reader, name, layers)


def _check_experts(reader: Reader, experts: Experts, key: str) -> None:
    if experts.top_k > experts.count:
        raise reader.fail(key, f"{experts.top_k} is more than {experts.count} experts")


def _gpt2(reader: Reader, name: str) -> Model:
    hidden = reader.integer("n_embd", None, 1, _MOST)
    heads = reader.integer("n_head", None, 1, _MOST)
    if hidden % heads:
        raise reader.fail("n_head", f"{heads} does not divide n_embd {hidden}")
    attention = Attention(heads, heads, hidden // heads, qkv_bias=True, out_bias=True)
    mlp = Mlp(_optional(reader, "n_inner", 4 * hidden), gated=False, bias=True)
    positions = _optional(reader, "n_positions", 1024)
    dropout = any(reader.number(key, 0.1, 0, 1) > 0 for key in ("attn_pdrop", "resid_pdrop"))
    tied = reader.flag("tie_word_embeddings") if "tie_word_embeddings" in reader.raw else True
    layers = (Layer(attention, mlp),) * _depth(reader, "n_layer")
    vocabulary = reader.integer("vocab_size", None, 1, _MOST)
    return Model(name, hidden, vocabulary, layers, tied, True, positions, dropout)


def _gpt_neox(reader: Reader, name: str) -> Model:
    hidden = reader.integer("hidden_size", None, 1, _MOST)
    heads = reader.integer("num_attention_heads", None, 1, _MOST)
    if hidden % heads:
        raise reader.fail("num_attention_heads", f"{heads} does not divide hidden_size {hidden}")
    bias = reader.flag("attention_bias") if "attention_bias" in reader.raw else True
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
        bool(reader.raw.get("use_conv_bias", True)),
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


_DENSE = (
    "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window",
    "use_sliding_window", "attention_bias", "intermediate_size", "mlp_bias", "num_hidden_layers",
    "vocab_size", "tie_word_embeddings",
)  # fmt: skip
_QWEN_EXPERTS = (
    *_DENSE, "num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step",
    "mlp_only_layers",
)  # fmt: skip
_DEEPSEEK = (
    *_DENSE, "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_shared_experts",
    "first_k_dense_replace", "moe_layer_freq",
)  # fmt: skip
_MAMBA = (
    "hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings", "n_groups",
    "conv_kernel", "chunk_size", "use_bias", "use_conv_bias", "expand",
)  # fmt: skip

# model_type -> how it is read, and the keys that count.
ARCHITECTURES: dict[str, tuple[Callable[[Reader, str], Model], tuple[str, ...]]] = {
    "llama": (_llama, _DENSE),
    "mistral": (_llama, _DENSE),
    "qwen2": (_qwen2, _DENSE),
    "qwen3": (_qwen3, _DENSE),
    "qwen2_moe": (_qwen2_moe, (*_QWEN_EXPERTS, "shared_expert_intermediate_size")),
    "qwen3_moe": (_qwen3_moe, _QWEN_EXPERTS),
    "gemma": (_gemma, _DENSE),
    "gemma2": (_gemma2, _DENSE),
    "gemma3_text": (_gemma3, (*_DENSE, "sliding_window_pattern")),
    "mixtral": (_mixtral, (*_DENSE, "num_local_experts", "num_experts_per_tok")),
    "deepseek_v2": (_deepseek, _DEEPSEEK),
    "deepseek_v3": (_deepseek, _DEEPSEEK),
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
    "mamba2": (_mamba2, (*_MAMBA, "num_heads", "head_dim", "state_size")),
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
    if not isinstance(given, str) or given not in ARCHITECTURES:
        hint = nearest(given, ARCHITECTURES) if isinstance(given, str) else ""
        raise reader.fail(
            "model_type", f"{show(given)} is not allowed; allowed: {', '.join(ARCHITECTURES)}{hint}"
        )
    read, keys = ARCHITECTURES[given]
    for key, value in reader.raw.items():
        if key not in keys and key not in _SILENT and not key.startswith(("_", "$")):
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
    if given not in model_names():
        raise InputError(
            f"{show(given)} is not allowed; allowed: {', '.join(model_names())}, or the path of a "
            f"config.json{nearest(given, model_names())}",
            key=key,
        )
    return read_model(_DATA / f"{given}.json")
