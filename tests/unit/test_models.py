# SPDX-License-Identifier: MIT
"""Models from configs: parameters, operations and memory against published numbers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.cli.command import dispatch
from astra_bridge.cli.commands import ROOT
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.simulation import simulate
from astra_bridge.trace import NodeType, read_workload
from astra_bridge.workload.generators import generated
from astra_bridge.workload.models import (
    Attention,
    Experts,
    Inference,
    Layer,
    Mlp,
    Model,
    Parallelism,
    SelectiveScan,
    StateSpace,
    TrainingStep,
    active_parameters,
    checkpoint_parameters,
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
from astra_bridge.workload.models.published import amount, published
from astra_bridge.workload.models.step import parts_of

# Elements of the weights in the models' files on Hugging Face, of those that have no others there.
ELEMENTS = {
    "deepseek-v2": 235_741_434_880, "deepseek-v2-lite": 15_706_484_224,
    "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952, "gpt-neox-20b": 20_554_567_680, "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184, "jamba-v0.1": 51_570_323_328, "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192, "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496, "mamba-2.8b": 2_768_345_600,
    "mistral-7b": 7_241_732_096, "mistral-large-2": 122_610_069_504,
    "mistral-nemo-12b": 12_247_782_400, "mistral-small-24b": 23_572_403_200,
    "mixtral-8x7b": 46_702_792_704, "mixtral-8x22b": 140_630_071_296,
    "phi-3-mini": 3_821_079_552, "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688, "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352, "qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264, "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
}  # fmt: skip

# What differs from the published number by more than its digits, and by how much it may [%].
DIFFERENT = {
    "kimi-k2": 1.4,  # 1.04T and 32.6B are in the paper, "1T" and "32B" in the README
    "glm-4.5": 0.7,  # 355B are with MTP, and without embedding and head
    "llama-4-scout": 1.2,  # 109B has the vision encoder
    "qwen2.5-32b": 0.9,  # 32.5B on a card whose files have 32.76
    # Embedding and the rest, each rounded, of another vocabulary.
    "gemma-3-4b": 0.11, "gemma-3-12b": 0.05, "gemma-3-27b": 0.03,
}  # fmt: skip


def agrees(found: int, said: str) -> bool:
    """Whether a number is the published one in its digits, rounded or cut off."""
    unit = {"M": 1e6, "B": 1e9, "T": 1e12}[said[-1]] / 10 ** len(said[:-1].partition(".")[2])
    return amount(said) - unit / 2 <= found < amount(said) + unit


@pytest.mark.parametrize("name", model_names())
def test_parameters_are_the_published_ones(name: str) -> None:
    model, said = named_model(name), published(name)
    assert name not in ELEMENTS or parameters(model) == ELEMENTS[name]
    pairs = [(parameters(model), said.total)]
    if said.active:
        pairs.append((active_parameters(model, embedding=said.embedding), said.active))
    assert said.source
    for found, number in pairs:
        if name in DIFFERENT and not agrees(found, number):
            assert found == pytest.approx(amount(number), rel=DIFFERENT[name] / 100)
        else:
            assert agrees(found, number), (found, number)
    if name in DIFFERENT:
        assert not all(agrees(*pair) for pair in pairs), "it does not differ"


def test_parameters_of_deepseek_v3() -> None:
    """arXiv 2412.19437, abstract: 671B, 37B of them active; README of its repository: 685B with
    MTP, its copies of embedding and head, and the scales of fp8 blocks; README_WEIGHTS.md: 0.9B
    each for embedding and head, 11.5B for the module of MTP, without the product of its inputs.

    Its makers corrected README_WEIGHTS.md on Hugging Face (deepseek-ai/DeepSeek-V3-Base, commit
    32950e4): 36.6B active, "including 0.9B for the output Head".  That is what is computed here,
    to 0.1 %.  Before, as in the copy on GitHub, it said 36.7B with embedding and head, which no way
    of counting gives; the 37B of the paper are the 36.6B, rounded.
    """
    model = named_model("deepseek-v3")
    h, v = model.hidden, model.vocabulary
    assert (parameters(model), round(parameters(model) / 1e9)) == (671_026_419_200, 671)
    # The elements of its files on Hugging Face: in bf16, in fp8, biases of routers in fp32.
    assert checkpoint_parameters(model) == 3_918_786_560 + 680_571_043_840 + 58 * 256 + 256
    scales = 41_555_600 - 59 * 256
    assert round((checkpoint_parameters(model) + scales) / 1e9) == 685
    latent = (
        h * 1536 + 1536 + 1536 * 128 * (128 + 64)  # queries
        + h * (512 + 64) + 512 + 512 * 128 * (128 + 128)  # keys and values
        + 128 * 128 * h
    )  # fmt: skip
    layer = latent + 2 * h + 256 * h + 256 + 257 * 3 * h * 2048
    assert round(v * h / 1e9, 1) == 0.9
    assert round(layer / 1e9, 1) == 11.5
    assert checkpoint_parameters(model) - parameters(model) == layer + 2 * h * h + 3 * h + 2 * v * h
    active = 61 * (latent + 2 * h) + 3 * 3 * h * 18432 + 58 * (257 * h + 256 - h + 9 * 3 * h * 2048)
    active += h + v * h
    assert active_parameters(model) == active == 36_625_618_432
    assert active == pytest.approx(36.6e9, rel=0.001)
    assert round(active / 1e9) == 37
    assert active_parameters(model, embedding=True) == active + v * h == 37_552_297_472
    assert active - v * h == 35_698_939_392, "without either"


def own_model(tmp_path: Path, **config: Any) -> Model:
    """A model of 3 layers, 4 heads of 8 elements, 2 of keys and values."""
    given = {
        "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(given | config))
    return read_model(tmp_path)


PROJECTIONS = 40 * 8 * (4 + 2 + 2) + 4 * 8 * 40
ENDS = 100 * 40 + 40  # embedding or head, and the last norm


def test_parameters_of_glm(tmp_path: Path) -> None:
    """Queries, keys and values are biased, the output is not; routers are, and experts shared."""
    config: dict[str, Any] = {
        "model_type": "glm4_moe", "attention_bias": True, "moe_intermediate_size": 24,
        "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "use_qk_norm": True,
    }  # fmt: skip
    attention = PROJECTIONS + 8 * (4 + 2 + 2) + 2 * 8
    routed = 6 * 40 + 6 + (6 + 1) * 3 * 40 * 24
    expected = 3 * (attention + 2 * 40) + 3 * 40 * 56 + 2 * routed + ENDS + 100 * 40
    model = own_model(tmp_path, **config)
    assert parameters(model) == expected
    assert active_parameters(model) == expected - 100 * 40 - 2 * 4 * 3 * 40 * 24
    assert parameters(own_model(tmp_path, **config | {"use_qk_norm": False})) == expected - 3 * 16
    # What its files have, one module of MTP among it: huggingface.co/zai-org, 358B and 110B.
    assert round(checkpoint_parameters(named_model("glm-4.5")) / 1e9) == 358
    assert round(checkpoint_parameters(named_model("glm-4.5-air")) / 1e9) == 110


def test_parameters_of_minimax(tmp_path: Path) -> None:
    """Queries have one norm over all heads, and keys another."""
    config: dict[str, Any] = {
        "model_type": "minimax_m2", "num_local_experts": 6, "num_experts_per_tok": 2,
        "attn_type_list": [1, 1, 1], "shared_intermediate_size": 0, "num_mtp_modules": 3,
    }  # fmt: skip
    layer = PROJECTIONS + 8 * (4 + 2) + 6 * 40 + 6 + 6 * 3 * 40 * 56 + 2 * 40
    model = own_model(tmp_path, **config)
    assert parameters(model) == 3 * layer + ENDS + 100 * 40
    for key, value in (("attn_type_list", [1, 0, 1]), ("qk_norm_type", "per_head")):
        with pytest.raises(InputError, match=f"{key}: .* is not allowed; allowed: "):
            own_model(tmp_path, **config | {key: value})


def test_parameters_of_olmo_2_and_smollm_3(tmp_path: Path) -> None:
    dense = PROJECTIONS + 3 * 40 * 56 + 2 * 40
    assert parameters(own_model(tmp_path, model_type="olmo2")) == (
        3 * (dense + 8 * (4 + 2)) + ENDS + 100 * 40
    )
    tied = own_model(tmp_path, model_type="smollm3", no_rope_layers=[1, 1, 0])
    assert parameters(tied) == 3 * dense + ENDS
    # 7.30B on the model card of OLMo 2 7B, 3.08B of SmolLM3.
    sizes: dict[str, Any] = {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None,
        "vocab_size": 100352,
    }  # fmt: skip
    assert parameters(own_model(tmp_path, model_type="olmo2", **sizes)) == 7_298_617_344


def test_the_text_of_a_model_that_sees(tmp_path: Path) -> None:
    """Whether the head is the embedding may stand outside; the text's own word counts first."""
    text = {
        "model_type": "qwen3_vl_text", "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151936,
    }  # fmt: skip
    whole = {"model_type": "qwen3_vl", "text_config": text, "vision_config": {"depth": 27}}
    path = tmp_path / "config.json"
    ends = 151936 * 4096
    for outer, inner, tied in (
        ({}, {}, False),
        ({"tie_word_embeddings": False}, {}, False),
        ({"tie_word_embeddings": True}, {}, True),
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, False),
        ({}, {"tie_word_embeddings": True}, True),
    ):
        path.write_text(json.dumps(whole | outer | {"text_config": text | inner}))
        assert parameters(read_model(path)) == 8_190_735_360 - ends * tied, "that of Qwen3 8B"


@pytest.mark.parametrize(
    "key", ["qkv_bias", "lm_head_bias", "attention_out_bias", "shared_expert_intermediate_size"]
)
def test_parts_that_a_model_does_not_have_may_be_named(key: str, tmp_path: Path) -> None:
    expected = parameters(own_model(tmp_path, model_type="llama"))
    for nothing in (False, 0, None):
        assert parameters(own_model(tmp_path, model_type="llama", **{key: nothing})) == expected
    with pytest.raises(InputError, match=f"{key}: .* is not understood; allowed: false or 0"):
        own_model(tmp_path, model_type="llama", **{key: 64})


def test_the_table_of_models_names_files_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    assert dispatch(ROOT, ["models", "mixtral-8x7b", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:7] == [
        "mixtral-8x7b",
        "46.703",
        "46.7B",
        "+0.0",
        "%",
        "12.749",
        "12.880",
    ]
    assert lines[3].split()[-1] == str(file)
    assert dispatch(ROOT, ["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(model_names())
    with pytest.raises(InputError, match="model: 'llama' is not allowed"):
        dispatch(ROOT, ["models", "llama"])


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


@pytest.mark.parametrize("name", ["jamba-v0.1", "bamba-9b", "mamba-2.8b", "nemotron-h-8b"])
def test_operations_of_state_spaces(name: str) -> None:
    """2 for each weight of a product; 9 for each channel and element of the state of a Mamba (its
    authors' count: state-spaces/mamba, issue 110); a Mamba-2 works by chunks of Q tokens, 2 Q N a
    group for their scores, 2 Q P a head for the product with these, and 4 N P a head for the states
    before and behind (Dao and Gu 2024, section 6).  The nodes of a step add up to it."""
    model, s = named_model(name), 2048
    h, per_token, masked = model.hidden, 2 * model.vocabulary * model.hidden, 0
    for layer in model.layers:
        mixer, mlp = layer.mixer, layer.mlp
        if isinstance(mixer, SelectiveScan):
            r, n, w = mixer.rank, mixer.state, mixer.width
            per_token += 2 * (h * 2 * w + w * (r + 2 * n) + r * w + w * h) + 9 * w * n
        elif isinstance(mixer, StateSpace):
            a, d, g, n = mixer.heads, mixer.head_dim, mixer.groups, mixer.state
            per_token += 2 * (h * (2 * a * d + 2 * g * n + a) + a * d * h)
            per_token += 2 * 256 * n * g + 2 * 256 * d * a + 4 * n * d * a
        elif isinstance(mixer, Attention):
            a, d, kv = mixer.heads, mixer.head_dim, mixer.kv_heads
            per_token += 2 * (h * (a + 2 * kv) * d + a * d * h) + 4 * s * a * d
            masked += 4 * s * a * d
        if isinstance(mlp, Experts):
            per_token += 2 * (h * mlp.count + mlp.top_k * 3 * h * mlp.width)
        elif isinstance(mlp, Mlp):
            per_token += 2 * (3 if mlp.gated else 2) * h * mlp.width
    assert flops_per_token(model, s, backward=False) == per_token
    (kind,), _ = training_step(TrainingStep(model, sequence=s)).kinds()
    found = sum(
        int(node.attributes.get("num_ops", 0))  # type: ignore[call-overload]
        for node in kind.nodes
        if not node.name.startswith("optimizer")
    )
    # Attention leaves out its masked half, and computes scores again: 3.5 / 2 for 3.
    expected = s * (3 * (per_token - masked) + 1.75 * masked)
    assert found == pytest.approx(expected, rel=1e-9)


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


# Offload to the host.

SMALL = Model("small", 512, 1024, (Layer(Attention(8, 8, 64), Mlp(2048)),) * 4)


def copies(made: Any) -> dict[str, list[tuple[str, int]]]:
    """Names and bytes of the copies of rank 0: each way."""
    found: dict[str, list[tuple[str, int]]] = {"to the host": [], "from it": []}
    ways = {NodeType.MEM_STORE: "to the host", NodeType.MEM_LOAD: "from it"}
    for node in made.traces[0].nodes:
        if node.type in ways:
            found[ways[node.type]].append((node.name, node.attributes["tensor_size"]))
    return found


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("gradient_bytes", [2, 4])
def test_an_optimizer_on_the_host_gets_gradients_and_gives_weights(
    zero: int, gradient_bytes: int
) -> None:
    """Each parameter that a rank owns: its gradient there, its weight of 2 bytes back."""
    run = TrainingStep(
        SMALL, Parallelism(data=4, zero=zero), sequence=1024, micro_batches=3,
        gradient_bytes=gradient_bytes, offload="optimizer",
    )  # fmt: skip
    found = copies(training_step(run))
    owned = parameters(SMALL) // (4 if zero else 1)
    assert sum(size for _, size in found["to the host"]) == owned * gradient_bytes
    assert found["from it"] == [("weights.reload", 2 * owned)]
    # Each block's gradients go when they are reduced, the last block's first.
    names = [name for name, _ in found["to the host"]]
    assert names == [*(f"{one}.offload" for one in ("head", "layer3", "layer2")), *names[3:]]
    plain = replace(run, offload="none")
    assert copies(training_step(plain)) == {"to the host": [], "from it": []}
    (kept,), (without,) = memory(run), memory(plain)
    assert without.optimizer == 12 * owned
    assert kept == without._replace(optimizer=0)


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_activations_on_the_host_come_back_before_they_are_needed(recompute: str) -> None:
    """Of all layers but the last one, for each micro-batch, once each way."""
    run = TrainingStep(
        SMALL, Parallelism(data=2), sequence=1024, micro_batches=3, recompute=recompute,
        offload="activations",
    )  # fmt: skip
    made = training_step(run)
    found = copies(made)
    # Of s b h elements: a layer's input of 2 bytes each; or 34, of which 11 are attention's, and a
    # feed-forward part that is 4 times as wide as the model, without masks of dropout.
    each = (
        2 * 1024 * 512
        if recompute == "full"
        else activation_bytes(SMALL, SMALL.layers[0], 1, 1024, 1)
    )
    assert [size for _, size in found["to the host"]] == [each] * 3 * 3
    assert [size for _, size in found["from it"]] == [each] * 3 * 3
    assert found["from it"][0][0] == "layer2.reload.m0"
    nodes = made.traces[0].nodes
    by_name = {node.name: node.id for node in nodes}
    for layer in range(3):
        reload = nodes[by_name[f"layer{layer}.reload.m1"]]
        assert by_name[f"layer{layer}.offload.m1"] in reload.data_deps
        first = min(
            node.id for node in nodes if node.name.startswith(f"layer{layer}.backward.m1")
            or node.name.startswith(f"layer{layer}.again.m1")
        )  # fmt: skip
        assert reload.id in nodes[first].data_deps
        # It does not wait for the pass over the layer behind it.
        behind = {n.id for n in nodes if n.name.startswith(f"layer{layer + 1}.backward.m1")}
        assert not behind & set(reload.data_deps)
    (kept,), (without,) = memory(run), memory(replace(run, offload="none"))
    # The last layer's, the one that computes, and the one that is copied, in place of four.
    head = without.activations - 4 * each
    assert kept.activations == head + 3 * each


def test_what_is_offloaded_takes_as_long_as_its_copies() -> None:
    """An optimizer of 30 bytes a parameter at the host's rate, then a copy of 2 at the link's."""
    run = TrainingStep(
        SMALL, Parallelism(data=2, zero=1), sequence=1024, offload="both", host_optimizer_GBps=50.0
    )
    made = training_step(run, "h100-sxm")
    names = [f"{kind}-implementation" for kind in ("all-reduce", "all-gather", "reduce-scatter")]
    result = simulate(
        workload=made.workload(),
        system={name: ["ring"] for name in names},
        network={
            "topology": ["Switch"], "npus_count": [2], "bandwidth": [450], "latency": [500],
        },
        remote_memory={"memory-type": "HOST_MEMORY", "hardware": "h100-sxm"},
        semantics="corrected",
    )  # fmt: skip
    nodes, times = made.traces[0].nodes, result.nodes_of(0)
    took = {node.name: int(times.end_ps[node.id] - times.start_ps[node.id]) for node in nodes}
    owned = parameters(SMALL) // 2
    # fp32: gradient, weight and two moments are read, the latter three written; bf16 weight.
    moved = owned * (4 + 2 * 12 + 2)
    assert took["optimizer.step0"] == round(moved / 50.0) * 1000
    copy = hardware("h100-sxm").fitted.copies["pinned"]
    first = min(2 * owned, copy.small_bytes)
    small_us = first / ((copy.small_GBps or copy.rate_GBps) * 1e3)
    copied_us = copy.start_us + small_us + (2 * owned - first) / (copy.rate_GBps * 1e3)
    assert took["weights.reload"] == pytest.approx(1e6 * copied_us, abs=1000)  # to the ns
    weights = next(node.id for node in nodes if node.name == "weights.reload")
    assert times.end_ps[weights] == result.finish_ps[0]


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
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
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
        ({"model_type": ...}, "model_type: None is not allowed"),
        ({"model_type": ["llama"]}, "model_type: .'llama'. is not allowed"),
        ({"hidden_sizes": 3}, "hidden_sizes: 3: unknown key of a llama.*'hidden_size'"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"hidden_size": ...}, "hidden_size: missing"),
        ({"vocab_size": ...}, "vocab_size: missing"),
        ({"head_dim": 0}, "head_dim: 0 is not allowed"),
        ({"head_dim": "auto"}, "head_dim: 'auto' is not allowed"),
        (
            {"tie_word_embeddings": "yes"},
            "tie_word_embeddings: 'yes' is not allowed; .*true, false",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types: .*allowed: 4 of sliding_attention"),
        ({"layer_types": "all"}, "layer_types: expected a list, found 'all'"),
        (
            {"model_type": "llava", "text_config": {"hidden_size": 3}},
            r"text_config\.model_type: None is not allowed; allowed: llama",
        ),
        ({"model_type": "llava", "text_config": 3}, "text_config: expected keys and values"),
        (
            {"model_type": "llava", "text_config": {"model_type": "vicuna"}},
            "'vicuna' is not allowed",
        ),
        ({"model_type": "bamba", "mamba_n_heads": 7}, "mamba_n_heads: 7 does not divide 128"),
        ({"model_type": "jamba", "attn_layer_period": 2, "attn_layer_offset": 2}, "to 1"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "9 is more than 8 experts"),
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
    "deepseek-v3": (671.026, {
        "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_deepseek.X"},
        "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
        "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
        "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
        "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "pretraining_tp": 1,
        "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128],
        },
        "rms_norm_eps": 1e-06, "rope_scaling": {"factor": 40, "mscale": 1.0, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
        "seq_aux": True, "tie_word_embeddings": False, "topk_group": 4,
        "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "transformers_version": "4.33.1",
        "use_cache": True, "v_head_dim": 128, "vocab_size": 129280,
    }),
    "gpt-oss-20b": (20.915, {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
        "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
        "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
        "num_local_experts": 32, "output_router_logits": False, "pad_token_id": 199999,
        "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn"],
                                "quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "rope_type": "yarn"},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "swiglu_limit": 7.0, "tie_word_embeddings": False, "transformers_version": "4.55.0",
        "use_cache": True, "vocab_size": 201088,
    }),
    "jamba-v0.1": (51.570, {
        "architectures": ["JambaForCausalLM"], "attention_dropout": 0.0,
        "attn_layer_offset": 4, "attn_layer_period": 8, "bos_token_id": 1, "eos_token_id": 2,
        "calc_logits_for_entire_prompt": False, "expert_layer_offset": 1,
        "expert_layer_period": 2, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "mamba_conv_bias": True,
        "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_dt_rank": "auto", "mamba_expand": 2,
        "mamba_inner_layernorms": True, "mamba_proj_bias": False, "model_type": "jamba",
        "n_ctx": 262144, "num_attention_heads": 32, "num_experts": 16, "num_experts_per_tok": 2,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_logits_to_keep": 1,
        "output_router_logits": False, "pad_token_id": 0, "rms_norm_eps": 1e-06,
        "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_cache": True, "use_mamba_kernels": True,
        "vocab_size": 65536,
    }),
    "bamba-9b": (9.780, {
        "architectures": ["BambaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attn_layer_indices": [9, 18, 27], "attn_rotary_emb": 64, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4,
        "mamba_d_head": "auto", "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1,
        "mamba_n_heads": 128, "mamba_proj_bias": False, "max_position_embeddings": 262144,
        "mlp_bias": False, "model_type": "bamba", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_logits_to_keep": 1,
        "partial_rotary_factor": 0.5, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 128256,
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


# What other people's files have: (changes, what becomes of the first layer).
OTHERS: dict[str, tuple[dict[str, Any], Attention]] = {
    "no num_key_value_heads": ({"num_key_value_heads": ...}, Attention(8, 8, 8)),
    "null for num_key_value_heads": ({"num_key_value_heads": None}, Attention(8, 8, 8)),
    "a head_dim of its own": ({"head_dim": 16}, Attention(8, 2, 16)),
    "a head_dim that hidden / heads is not": (
        {"head_dim": 16, "num_attention_heads": 6}, Attention(6, 2, 16),
    ),
    "null for head_dim": ({"head_dim": None}, Attention(8, 2, 8)),
    "a scaled rope": (
        {
            "rope_scaling": {
                "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3",
            },
        },
        Attention(8, 2, 8),
    ),
    "quantization": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        Attention(8, 2, 8),
    ),
    "lists of tokens": ({"eos_token_id": [1, 2], "pad_token_id": None}, Attention(8, 2, 8)),
    "everything that every config has": (
        {"is_decoder": False, "use_bfloat16": False, "top_k": 50, "id2label": {"0": "a"}},
        Attention(8, 2, 8),
    ),
    "null for what nobody knows": ({"some_new_key": None}, Attention(8, 2, 8)),
    "null for a window": ({"model_type": "mistral", "sliding_window": None}, Attention(8, 2, 8)),
    "no window of a Mistral": ({"model_type": "mistral"}, Attention(8, 2, 8, window=4096)),
    "no heads of keys of a Mistral": (
        {"model_type": "mistral", "num_key_value_heads": ..., "num_attention_heads": 16},
        Attention(16, 8, 4, window=4096),
    ),
    "layers by type": (
        {
            "model_type": "qwen3", "use_sliding_window": True, "sliding_window": 9, "head_dim": 8,
            "layer_types": ["sliding_attention", *["full_attention"] * 3],
        },
        Attention(8, 2, 8, head_norms=16, window=9),
    ),
    "biases": ({"attention_bias": True}, Attention(8, 2, 8, qkv_bias=True, out_bias=True)),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_configs_of_others_are_read(tmp_path: Path, what: str) -> None:
    changes, attention = OTHERS[what]
    model = read_model(write(tmp_path, **changes))
    assert model.layers[0].mixer == attention
    if what == "layers by type":
        assert [getattr(layer.mixer, "window", 0) for layer in model.layers] == [9, 0, 0, 0]
    else:
        assert len(set(model.layers)) == 1


# Models that see, too: the text_config of Gemma 3 leaves out what its class takes by default.
SEEING: dict[str, tuple[dict[str, Any], int]] = {
    "gemma3": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
            "image_token_index": 262144, "model_type": "gemma3", "mm_tokens_per_image": 256,
            "text_config": {
                "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
            "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
        },
        3_880_099_328 + 64 * 2560,  # 64 tokens more than are used
    ),
    "mistral3": (
        {
            "model_type": "mistral3", "spatial_merge_size": 2,
            "text_config": {
                "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
                "intermediate_size": 32768, "model_type": "mistral", "num_attention_heads": 32,
                "num_hidden_layers": 40, "num_key_value_heads": 8, "rope_theta": 1e9,
                "sliding_window": None, "use_cache": True, "vocab_size": 131072,
            },
            "vision_config": {"model_type": "pixtral"},
        },
        23_572_403_200,
    ),
    "llama4": (
        {
            "model_type": "llama4",
            "text_config": {
                "attention_chunk_size": 8192, "head_dim": 128, "hidden_size": 5120,
                "interleave_moe_layer_step": 1, "intermediate_size": 8192,
                "intermediate_size_mlp": 16384, "model_type": "llama4_text", "moe_layers": None,
                "no_rope_layers": [], "num_attention_heads": 40, "num_experts_per_tok": 1,
                "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 16,
                "use_qk_norm": True, "vocab_size": 202048,
            },
            "vision_config": {"model_type": "llama4_vision_model"},
        },
        107_769_861_120,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEING)
def test_of_models_that_see_the_text_is_read(tmp_path: Path, name: str) -> None:
    content, count = SEEING[name]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    assert parameters(read_model(file)) == count
    content["text_config"]["num_hidden_layers"] = "many"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"text_config\.num_hidden_layers: 'many' is not allowed"):
        read_model(file)


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
    assert "8,030,261,248 parameters, 7,504,924,672 active (with the output head" in said
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


@pytest.mark.parametrize(
    "options",
    [
        "--tp 2 --dp 2",
        "--tp 2 --dp 2 --per-rank",
        "--pp 2 --dp 2 --zero 3 --schedule zb-h1 --micro-batches 4",
        "--tp 2 --inference disaggregated --output-tokens 2",
    ],
)
def test_a_shell_script_runs_what_the_command_prints(tmp_path: Path, options: str) -> None:
    """The lines that begin with two blanks are the flags, all of them; files have the prefix."""
    write(tmp_path)
    examples = Path(__file__).parents[2] / "examples/analytical"
    astra_bridge = shlex.join([sys.executable, "-m", "astra_bridge"])
    (tmp_path / "network.yml").write_text(
        "topology: [ Switch ]\nnpus_count: [ 4 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
    )
    script = f"""set -eu
    mkdir out
    {astra_bridge} workload model config.json {options} -o out/step > said
    flags=$(sed -n 's/^  //p' said)
    test "$(ls out | grep -vc '^step[.]' || true)" = 0
    {astra_bridge} run $flags --system-configuration={examples}/system.json \\
        --network-configuration=network.yml \\
        --remote-memory-configuration={examples}/no_memory.json
    """
    ran = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(" finished, ") == 4
    said = (tmp_path / "said").read_text()
    assert ("--comm-group-configuration=out/step.comm_group.json" in said) == (
        "--per-rank" in options
    )


def test_what_does_not_fit_is_refused_unless_forced(tmp_path: Path) -> None:
    words = ["workload", "model", "llama-3.1-70b", "--gpu", "h100-sxm", str(tmp_path / "a")]
    with pytest.raises(InputError, match=r"stage 0 needs .* GiB, and h100-sxm has 80; .*--force"):
        dispatch(ROOT, words)
    assert dispatch(ROOT, [*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["llama-3-8b"], "MODEL: 'llama-3-8b' is not allowed; .*mean 'llama-3.1-8b'"),
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
