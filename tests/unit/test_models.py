# SPDX-License-Identifier: MIT
"""Models from configs: parameters, operations and memory against published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.cli.command import dispatch
from astra_bridge.cli.commands import ROOT
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.trace import read_workload
from astra_bridge.workload.generators import generated
from astra_bridge.workload.models import (
    Attention,
    Experts,
    Inference,
    Layer,
    Mlp,
    Model,
    Parallelism,
    TrainingStep,
    active_parameters,
    flops_per_token,
    inference,
    memory,
    memory_text,
    model_names,
    named_model,
    parameters,
    read_model,
    training_step,
)
from astra_bridge.workload.models.formulas import activation_bytes, layer_weights
from astra_bridge.workload.models.operators import Pass, cost
from astra_bridge.workload.models.parallelism import Orbit
from astra_bridge.workload.models.step import parts_of

# Parameters, in 10^9, of the models' cards (the number of elements of their weights).
PUBLISHED = {
    "llama-2-7b": 6.738,
    "llama-2-70b": 68.977,
    "llama-3.1-8b": 8.030,
    "llama-3.1-70b": 70.554,
    "llama-3.1-405b": 405.853,
    "mistral-7b": 7.242,
    "mixtral-8x7b": 46.703,
    "qwen2.5-7b": 7.616,
    "qwen2.5-72b": 72.706,
    "gemma-2-27b": 27.227,
    "deepseek-v3": 671.026,
    "gpt3-175b": 174.6,
    "gpt-neox-20b": 20.555,
    "mamba2-2.7b": 2.7026,
    "nemotron-h-8b": 8.10,
}


@pytest.mark.parametrize("name", model_names())
def test_parameters_are_the_published_ones(name: str) -> None:
    model = named_model(name)
    if name in PUBLISHED:
        assert parameters(model) / 1e9 == pytest.approx(PUBLISHED[name], rel=1e-3)
        return
    # Korthikanti et al. 2022, table 3, and GPT-3's 13B: 12 L h^2 and the embedding, to 1 %.
    h, depth = model.hidden, model.depth
    assert parameters(model) == pytest.approx(12 * depth * h * h + model.vocabulary * h, rel=0.01)


def test_active_parameters() -> None:
    """DeepSeek-V3's README of weights: 36.6 billion, of which 0.9 are the head; Mixtral: 12.9 with
    the embedding's 0.13 (arXiv 2401.04088, section 2.2: "13B active")."""
    assert active_parameters(named_model("deepseek-v3")) / 1e9 == pytest.approx(36.6, abs=0.05)
    mixtral = named_model("mixtral-8x7b")
    active = active_parameters(mixtral) + mixtral.vocabulary * mixtral.hidden
    assert active / 1e9 == pytest.approx(12.88, rel=1e-3)


@pytest.mark.parametrize("name", ["gpt3-175b", "gpt-22b", "gpt-1t"])
def test_operations_of_a_gpt_are_those_of_the_paper(name: str) -> None:
    """Narayanan et al. 2021, appendix: 96 B s l h^2 (1 + s / 6h + V / 16lh) with each layer
    computed again, so 72 B s l h^2 (1 + s / 6h) + 6 B s h V without."""
    model, s = named_model(name), 2048
    layers, h, vocabulary = model.depth, model.hidden, model.vocabulary
    expected = 72 * layers * h * h * (1 + s / (6 * h)) + 6 * h * vocabulary
    assert flops_per_token(model, s) == pytest.approx(expected, rel=1e-12)
    again = flops_per_token(model, s) + layers * (24 * h * h + 4 * s * h)
    paper = 96 * layers * h * h * (1 + s / (6 * h) + vocabulary / (16 * layers * h))
    assert again == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-405b", "qwen2.5-72b"])
def test_operations_are_those_of_palm(name: str) -> None:
    """Chowdhery et al. 2022, appendix B: 6 N + 12 L H Q T, N without the embedding's rows; norms
    and biases, which are in N, take part in no product: below 0.01 %."""
    model, s = named_model(name), 8192
    attention = model.layers[0].mixer
    assert isinstance(attention, Attention)
    n = parameters(model) - model.vocabulary * model.hidden
    expected = 6 * n + 12 * model.depth * attention.heads * attention.head_dim * s
    assert flops_per_token(model, s) == pytest.approx(expected, rel=1e-4)


def test_operations_of_llama_405b() -> None:
    """Llama 3, section 3.2.1 and table 4: 3.8e25 for 15.6e12 tokens is 6 N D to 1 %."""
    model = named_model("llama-3.1-405b")
    assert 6 * parameters(model) * 15.6e12 == pytest.approx(3.8e25, rel=0.01)


def test_operations_of_deepseek() -> None:
    """6 per active parameter, and attention with heads of 192 (keys) and 128 (values) elements."""
    model, s = named_model("deepseek-v3"), 4096
    expected = 6 * active_parameters(model) + 6 * model.depth * s * 128 * (192 + 128)
    assert flops_per_token(model, s) == pytest.approx(expected, rel=1e-3)


def test_nodes_have_the_operations_of_the_formula() -> None:
    """The nodes of a step add up to what the formula says, but that attention's pairs which are
    masked are left out, and its scores are computed again backward: 2.5 times forward for 2."""
    model = named_model("llama-3.1-8b")
    s, split = 2048, Parallelism(tensor=4, pipeline=2, data=2, zero=0)
    made = training_step(TrainingStep(model, split, s, micro_batch=2, micro_batches=3))
    kinds, _ = made.kinds()
    found = 0
    for kind in kinds:
        for node in kind.nodes:
            if "num_ops" in node.attributes and not node.name.startswith("optimizer"):
                found += int(node.attributes["num_ops"])  # type: ignore[call-overload]
    attention = 4 * s * model.hidden * model.depth
    expected = flops_per_token(model, s) - 3 * attention + (1 + 2.5) * attention / 2
    assert found * 4 == pytest.approx(expected * 2 * 3 * s, rel=1e-9)


# Memory


def test_activations_are_those_of_the_paper() -> None:
    """Korthikanti et al. 2022, table 2."""
    model = named_model("gpt3-175b")
    (layer,) = set(model.layers)
    s, b, h, a, t = 2048, 1, 12288, 96, 8
    sbh, scores = s * b * h, 5 * a * s / h

    def found(t: int = 1, **more: bool) -> float:
        given = {"fused": False, **more}
        return activation_bytes(model, layer, b, s, t, **given)

    assert found() == sbh * (34 + scores)
    assert found(t, sequence_parallel=False) == sbh * (10 + 24 / t + scores / t)
    assert found(t) == sbh / t * (34 + scores)
    assert found(t, selective=True) == sbh * 34 / t
    assert found(t, fused=True) == sbh * 34 / t


def test_memory_is_16_bytes_per_parameter_and_less_when_shared() -> None:
    """ZeRO, section 3.1: 2 + 2 + 12 bytes; sections 5.1 to 5.3: divided by the ranks."""
    model = named_model("llama-3.1-8b")
    n = parameters(model)

    def found(zero: int, **more: int) -> tuple[int, int, int]:
        split = Parallelism(data=4, zero=zero, prefetch=0, **more)
        (one,) = memory(TrainingStep(model, split, gradient_bytes=2))
        return one.weights, one.gradients, one.optimizer

    part = -(-n // 4)
    layer = layer_weights(model, model.layers[0]).dense
    assert found(0) == (2 * n, 2 * n, 12 * n)
    assert found(1) == (2 * n, 2 * n, 12 * part)
    assert found(2) == (2 * n, 2 * part, 12 * part)
    assert found(3) == (2 * part + 2 * layer, 2 * part, 12 * part)
    assert found(1, shard=2) == (2 * n, 2 * n, 12 * -(-n // 2))


def test_cache_of_keys_and_values() -> None:
    """2 L kv d elements per token: 128 KiB for Llama-3.1 8B; 61 x 576 for DeepSeek-V3."""
    for name, each in (("llama-3.1-8b", 131072), ("deepseek-v3", 61 * 576 * 2)):
        run = Inference(named_model(name), sequence=1000, phase="decode", output_tokens=24)
        assert memory(run)[0].cache == 1024 * each


def test_table_of_memory() -> None:
    run = TrainingStep(named_model("llama-3.1-8b"), Parallelism(pipeline=4), recompute="full")
    lines = memory_text(memory(run), hardware("h100-sxm")).splitlines()
    assert lines[-1] == "h100-sxm has 80 GiB"
    assert [line.split()[0] for line in lines[2:-1]] == ["0", "1-2", "3"]
    same = memory_text(memory(Inference(named_model("mamba2-2.7b"), Parallelism(pipeline=4))))
    assert [line.split()[0] for line in same.splitlines()[2:]] == ["0", "1-2", "3"]


# Groups


def test_groups_follow_the_order_of_ranks() -> None:
    """Megatron-LM's default: tensor, then context, data, pipeline; experts within data."""
    split = Parallelism(tensor=2, pipeline=2, data=4, context=2, expert=4)
    assert split.orbit("tp") == Orbit(1, 2)
    assert split.orbit("cp") == Orbit(2, 2)
    assert split.orbit("dp") == Orbit(4, 4)
    assert split.orbit("pp") == Orbit(16, 2)
    assert split.replicas == (Orbit(2, 8),)
    assert split.experts == Orbit(2, 4)
    assert split.expert_replicas == (Orbit(8, 2),)
    last = Parallelism(tensor=2, pipeline=2, data=4, context=2, expert=4, order="tp-cp-dp-ep-pp")
    assert last.experts == Orbit(4, 4)
    assert last.expert_replicas == (Orbit(2, 2),)
    # Llama 3, section 3.3.2: tensor, context, pipeline, data.
    llama = Parallelism(tensor=2, pipeline=2, data=4, context=2, order="tp-cp-pp-dp-ep")
    assert llama.orbit("pp") == Orbit(4, 2)
    assert llama.orbit("dp") == Orbit(8, 4)
    assert llama.replicas == (Orbit(2, 2), Orbit(8, 4))
    hybrid = Parallelism(data=8, shard=4)
    assert hybrid.shards(hybrid.replicas) == ((Orbit(1, 4),), (Orbit(4, 2),))


def test_stages_share_layers_as_evenly_as_they_can() -> None:
    counts = [part.last - part.first for part in parts_of(named_model("deepseek-v3"), 16)]
    assert counts == [3, *[4] * 13, 3, 3]
    (first, last) = parts_of(named_model("llama-3.1-8b"), 2, (10, 22))
    assert (first.embedding, first.head, first.last) == (True, False, 10)
    assert (last.embedding, last.head, last.last) == (False, True, 32)


def test_imbalance_of_experts_is_drawn_once() -> None:
    split = Parallelism(data=8, expert=8)
    model = named_model("mixtral-8x7b")
    run = TrainingStep(model, split, imbalance=0.5, seed=3)
    again = TrainingStep(model, split, imbalance=0.5, seed=3)
    assert (run.loads == again.loads).all()
    assert run.loads.mean(axis=1) == pytest.approx([1.0] * 32)
    assert run.loads.std(axis=1).mean() == pytest.approx(0.5, rel=0.25)
    assert len(training_step(run).kinds()[0]) == 8
    even = TrainingStep(model, split)
    assert (even.loads == 1).all()
    assert len(training_step(even).kinds()[0]) == 1


# Inputs


def write(folder: Path, **changes: Any) -> Path:
    content = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 100,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
        "torch_dtype": "bfloat16", "rope_theta": 10000.0,
    }  # fmt: skip
    content |= changes
    file = folder / "config.json"
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return file


def test_a_config_is_read_from_its_folder(tmp_path: Path) -> None:
    write(tmp_path)
    model = read_model(tmp_path)
    assert model.name == tmp_path.name
    assert model.layers == (Layer(Attention(8, 2, 8), Mlp(128)),) * 4
    assert named_model(str(tmp_path / "config.json")) == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "lama"},
            "model_type: 'lama' is not allowed; allowed: llama, .*mean 'llama'",
        ),
        ({"model_type": None}, "model_type: None is not allowed"),
        ({"hidden_sizes": 3}, "hidden_sizes: 3: unknown key of a llama.*'hidden_size'"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"hidden_size": "64"}, "hidden_size: '64' is not allowed"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide 8 heads"),
        ({"num_attention_heads": 6}, "num_attention_heads: 6 does not divide hidden_size 64"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: -1 is not allowed"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as error:
        read_model(file)
    assert str(file) in str(error.value)


def test_a_window_counts_where_the_architecture_has_one(tmp_path: Path) -> None:
    """Mistral's always; Qwen's where a key says so; Gemma 2's in every other layer."""
    for name, changes, windows in (
        ("mistral", {}, [16] * 4),
        ("qwen2", {}, [0] * 4),
        ("qwen2", {"use_sliding_window": True}, [16] * 4),
        ("gemma2", {}, [16, 0] * 2),
        ("gemma3_text", {"sliding_window_pattern": 4}, [16, 16, 16, 0]),
    ):
        model = read_model(write(tmp_path, model_type=name, sliding_window=16, **changes))
        assert [getattr(layer.mixer, "window", 0) for layer in model.layers] == windows


def test_experts_of_qwen3_and_first_dense_layers(tmp_path: Path) -> None:
    file = write(
        tmp_path, model_type="qwen3_moe", num_experts=16, num_experts_per_tok=4,
        moe_intermediate_size=32, mlp_only_layers=[0],
    )  # fmt: skip
    kinds = [type(layer.mlp) for layer in read_model(file).layers]
    assert kinds == [Mlp, Experts, Experts, Experts]


# Configs as they are published, with all of their keys that say nothing about shapes.
REAL = {
    "qwen1.5-moe-a2.7b": (14.316, {
        "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5632,
        "max_position_embeddings": 8192, "max_window_layers": 21, "model_type": "qwen2_moe",
        "moe_intermediate_size": 1408, "norm_topk_prob": False, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 16, "output_router_logits": False, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "use_sliding_window": False, "vocab_size": 151936,
    }),
    "qwen3-30b-a3b": (30.532, {
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
        "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
        "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32,
        "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "rope_scaling": None, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    }),
    "gemma-3-1b": (0.99989, {
        "architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None,
        "cache_implementation": "hybrid", "head_dim": 256, "hidden_size": 1152,
        "hidden_activation": "gelu_pytorch_tanh", "intermediate_size": 6912,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000,
        "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144,
    }),
    "deepseek-v2-lite": (15.706, {
        "architectures": ["DeepseekV2ForCausalLM"], "aux_loss_alpha": 0.001,
        "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944,
        "kv_lora_rank": 512, "model_type": "deepseek_v2", "moe_intermediate_size": 1408,
        "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2,
        "norm_topk_prob": False, "num_attention_heads": 16, "num_experts_per_tok": 6,
        "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": None,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "routed_scaling_factor": 1.0,
        "scoring_func": "softmax", "seq_aux": True, "topk_method": "greedy",
        "v_head_dim": 128, "vocab_size": 102400,
    }),
    "gpt2": (0.12444, {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
        "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
        "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_published_configs_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    billions, content = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert parameters(read_model(tmp_path)) / 1e9 == pytest.approx(billions, rel=1e-3)


MODEL = Model("small", 64, 128, (Layer(Attention(8, 4, 8), Mlp(64)),) * 8)
MOE = Model("moe", 64, 128, (Layer(Attention(8, 4, 8), Experts(8, 2, 32)),) * 8)


@pytest.mark.parametrize(
    ("model", "split", "more", "message"),
    [
        (MODEL, {"tensor": 3}, {}, "tensor: 3 does not divide 8 heads"),
        (MODEL, {"pipeline": 9}, {}, "pipeline: 8 layers cannot be cut into 9 parts"),
        (MODEL, {"context": 3}, {}, "context: 3 does not divide 4096 tokens"),
        (MODEL, {"data": 2, "expert": 2}, {}, "expert: small has no experts"),
        (MOE, {"data": 3, "expert": 3}, {}, "expert: 3 ranks cannot share 8 experts"),
        (MOE, {"data": 2, "expert": 4}, {}, "expert: 4 does not divide the 2"),
        (MODEL, {"data": 4, "shard": 3}, {}, "shard: 3 does not divide the 4"),
        (MODEL, {"order": "tp-dp"}, {}, "order: 'tp-dp' is not allowed; allowed: tp, cp, ep, dp"),
        (MODEL, {"zero": 4}, {}, "zero: 4 is not allowed"),
        (MODEL, {}, {"recompute": "some"}, "recompute: 'some' is not allowed; allowed: none"),
        (MODEL, {}, {"dtype": "int8"}, "dtype: 'int8' is not allowed"),
        (MODEL, {"pipeline": 2}, {"stage_layers": (3, 3)}, "stage_layers: 3,3 are 2 parts of 6"),
        (MODEL, {"context": 2}, {"fused_attention": False}, "context: needs fused attention"),
        (MODEL, {"pipeline": 2}, {"schedule": "dualpipe"}, "schedule: dualpipe needs"),
    ],
)
def test_impossible_steps_are_refused(
    model: Model, split: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TrainingStep(model, Parallelism(**split), **more)


# The command


def test_command_prints_memory_and_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "step"
    words = ["workload", "model", "llama-3.1-8b", "--gpu", "h100-sxm", "--tp", "4", "--pp", "2"]
    more = ["--global-batch-size", "8", "--dp", "2"]
    assert dispatch(ROOT, [*words, *more, "-o", str(prefix)]) == 0
    said = capsys.readouterr().out
    assert "8.030 x 10^9 parameters" in said
    assert f"  --workload-configuration={prefix}\n  --semantics=corrected\n" in said
    workload = read_workload(prefix, 16)
    assert len(workload.columns) == 2
    first = workload.columns[0]
    computes = first.num_ops > 0
    assert (first.duration_ns[computes] > 0).all()
    # As a flag or by position, but not both, and one of them.
    for wrong in ([], [str(prefix), "-o", str(prefix)]):
        with pytest.raises(InputError, match="OUT or --output: is the prefix"):
            dispatch(ROOT, [*words, *more, *wrong])


def test_what_does_not_fit_is_refused_unless_forced(tmp_path: Path) -> None:
    words = ["workload", "model", "llama-3.1-70b", "--gpu", "h100-sxm", str(tmp_path / "a")]
    with pytest.raises(InputError, match=r"stage 0 needs .* GiB, and h100-sxm has 80; .*--force"):
        dispatch(ROOT, words)
    assert dispatch(ROOT, [*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lama"], "MODEL: 'lama' is not allowed; allowed: deepseek-v3"),
        (["llama-3.1-8b", "--gpu", "h1"], "--gpu: .*'h1'"),
        (["llama-3.1-8b", "--tp", "3"], "--tp: 3 does not divide 32 heads"),
        (["llama-3.1-8b", "--cp", "3"], "--cp: 3 does not divide"),
        (["llama-3.1-8b", "--rank-order", "tp"], "--rank-order: 'tp' is not allowed"),
        (["llama-3.1-8b", "--global-batch-size", "3", "--dp", "2"], "--global-batch-size: 3 seq"),
        (["llama-3.1-8b", "--vpp", "2", "--pp", "2"], "--schedule: interleaved needs"),
        (["llama-3.1-8b", "--inference", "train"], "--inference: 'train' is not allowed"),
        (["llama-3.1-8b", "--stage-layers", "a"], "--stage-layers: 'a' is not allowed"),
        (["llama-3.1-8b", "--dtype", "fp8", "--gpu", "a100-80gb", "--force"], "no matrix products"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dispatch(ROOT, ["workload", "model", *words, "-o", str(tmp_path / "x")])


def test_an_experiment_names_a_model(tmp_path: Path) -> None:
    made = generated({"generator": "model", "model": str(write(tmp_path)), "dp": 2}, ranks=2)
    assert made.ranks == 2
    with pytest.raises(InputError, match=r"workload\.tp: 3 does not divide"):
        generated({"generator": "model", "model": "llama-3.1-8b", "tp": 3}, ranks=3)


def test_kernels_and_durations() -> None:
    """Durations are those of the kernels; fp8 is in the products only."""
    model = named_model("llama-3.1-8b")
    run = TrainingStep(model, Parallelism(tensor=2), dtype="fp8")
    kinds, _ = training_step(run, hardware("h100-sxm")).kinds()
    texts = [str(node.attributes.get("kernels", "")) for node in kinds[0].nodes]
    assert any("gemm 4096 3072 4096 fp8" in text for text in texts)
    assert any("attention 1 16 4 4096 4096 128" in text for text in texts)
    slow = TrainingStep(model, Parallelism(tensor=2))

    def total(run: TrainingStep) -> int:
        (kind,), _ = training_step(run, hardware("h100-sxm")).kinds()
        return sum(int(node.attributes.get("duration_ns", 0)) for node in kind.nodes)  # type: ignore[call-overload]

    assert total(run) < total(slow)


def test_decode_reads_the_cache_once() -> None:
    run = Inference(named_model("llama-3.1-8b"), sequence=1000, phase="decode", output_tokens=2)
    kinds, _ = inference(run).kinds()
    texts = [str(node.attributes.get("kernels", "")) for node in kinds[0].nodes]
    assert sum(text.count("decode 1 8 1000 128") for text in texts) == 32
    assert sum(text.count("decode 1 8 1001 128") for text in texts) == 32


def test_backward_is_twice_forward() -> None:
    model = named_model("llama-3.1-8b")
    from astra_bridge.workload.models.layers import Compute, Slice, layer_steps

    (step,) = layer_steps(model, model.layers[0], Slice(Parallelism(), 1, 128, 128))
    assert isinstance(step, Compute)
    products = tuple(one for one in step.operators if one.word == "gemm")
    forward = cost(products).operations
    assert cost(products, Pass.BACKWARD).operations == 2 * forward
    for half in (Pass.INPUT, Pass.WEIGHT):
        assert cost(products, half).operations == forward
