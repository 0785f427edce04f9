# SPDX-License-Identifier: MIT
"""Training steps over many GPUs: ``steps.csv``, each simulated as a whole.

The workload comes from the model, kernels from the profile of the GPU, and communication goes over
a network of nodes.  One set of parameters serves all rows; what a source leaves open is assumed,
and stands in the row.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.hardware import HARDWARE, Hardware, hardware
from astra_bridge.simulation import simulate
from astra_bridge.text import show
from astra_bridge.units import PS_PER_US
from astra_bridge.validation.table import SHIPPED, Row, identity, read_rows, value
from astra_bridge.workload.models import (
    Attention,
    Layer,
    Mlp,
    Model,
    Parallelism,
    TrainingStep,
    flops_per_token,
    model_names,
    named_model,
    training_step,
)
from astra_bridge.workload.models.emission import without_garbage

__all__ = ["Case", "cases", "simulated_us", "steps_rows"]

FILE = "steps.csv"
_COLUMNS = (
    "id", "model", "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq", "gpu", "gpus",
    "tp", "pp", "cp", "ep", "dp", "vpp", "micro_batch", "global_batch", "precision", "recompute",
    "step_s", "tflops_per_gpu", "source",
)  # fmt: skip
_MEASURED = ("step_s", "tflops_per_gpu")


class _Cluster(NamedTuple):
    """What GPUs of a kind stand in.

    Attributes
    ----------
    node : int
        GPUs that are joined by their own links.
    nic_GBps : float
        Of each GPU towards other nodes, one way.
    """

    node: int
    nic_GBps: float


_CLUSTERS = {
    # arXiv 2104.04473, section 5: eight 200 Gb/s InfiniBand adapters a node (DGX A100).
    "a100": _Cluster(8, 25.0),
    # arXiv 2407.21783, section 3.3.1: 400 Gb/s between GPUs; DGX H100 has as much.
    "h100": _Cluster(8, 50.0),
    "h200": _Cluster(8, 50.0),
    "b200": _Cluster(8, 50.0),  # DGX B200: eight of 400 Gb/s
    "gb200": _Cluster(72, 50.0),  # NVL72
    "mi300x": _Cluster(8, 50.0),
}
"""By the beginning of the name of a profile, the longest one."""

NIC_SHARE = 0.94
"""What NCCL gets of an adapter: 46 to 48 GB/s of 400 Gb/s, as its maintainers say
(github.com/NVIDIA/nccl-tests, issue 290).  Inside a node the parameters of NCCL say it."""


class Case(NamedTuple):
    """A row, understood.

    Attributes
    ----------
    name : str
    step : TrainingStep
    hardware : Hardware
    cluster : tuple
    gpus : int
    measured_us : float
    assumed : tuple of str
        What the source leaves open.
    """

    name: str
    step: TrainingStep
    hardware: Hardware
    cluster: _Cluster
    gpus: int
    measured_us: float
    assumed: tuple[str, ...]


def cases(file: Path) -> list[tuple[dict[str, str], Case]]:
    """The rows of a file.

    Raises
    ------
    InputError
        A row is not understood; names file, row and column.
    """
    return [(row, _understood(row, file)) for row in read_rows(file, _COLUMNS)]


def steps_rows(data: Path) -> tuple[list[Row], list[str]]:
    """Each row of a folder's steps.csv, simulated."""
    file = data / FILE
    if not file.is_file():
        return [], []
    fitted = {identity(row, _MEASURED) for row in read_rows(SHIPPED / FILE, _COLUMNS)}
    rows = []
    for row, case in cases(file):
        what = {key: row[key] for key in ("id", "model", "gpu", "gpus", "source")}
        what["assumed"] = "; ".join(case.assumed)
        rows.append(
            Row(
                "steps", _class_of(case.hardware), what, case.measured_us, simulated_us(case),
                _baseline_us(case), identity(row, _MEASURED) in fitted,
            )
        )  # fmt: skip
    return rows, []


def simulated_us(case: Case) -> float:
    """The step of a case as it is simulated."""
    with without_garbage():
        return _simulated_us(case)


def _simulated_us(case: Case) -> float:
    workload = training_step(case.step, case.hardware)
    node = case.cluster.node if case.gpus % case.cluster.node == 0 else case.gpus
    hop_ns = case.hardware.nccl.hop_us * 1e3
    # A message crosses two links.  Between nodes NCCL's own latencies have the network's in them.
    dims = [
        (node, case.hardware.datasheet.link_GBps, hop_ns / 2),
        (case.gpus // node, case.cluster.nic_GBps * NIC_SHARE, 0.0),
    ]
    dims = [one for one in dims if one[0] > 1] or dims[:1]
    system: dict[str, Any] = {
        f"{kind}-implementation": ["nccl"] * len(dims)
        for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    }
    system["hardware"] = case.hardware.name
    result = simulate(
        workload=workload,
        system=system | {"preferred-dataset-splits": 1, "active-chunks-per-dimension": 1},
        network={
            "topology": ["Switch"] * len(dims),
            "npus_count": [one[0] for one in dims],
            "bandwidth": [one[1] * 1e9 / 2**30 for one in dims],
            "latency": [one[2] for one in dims],
        },
        backend="analytical-unaware",
        semantics="corrected",
        record_nodes=False,
    )
    return float(result.finish_ps.max()) / PS_PER_US


# ---- a row ----


def _understood(row: dict[str, str], file: Path) -> Case:
    try:
        return _case(row, file)
    except InputError as error:
        raise InputError(error.reason, file=file, key=f"{row['id']}: {error.key}") from None


def _case(row: dict[str, str], file: Path) -> Case:
    def count(name: str, default: int | None = None) -> int:
        if not row[name].strip() and default is not None:
            return default
        return int(value(row, name, file))

    assumed: list[str] = []
    profile = _profile(row["gpu"])
    tensor, stages, context = (count(name, 1) for name in ("tp", "pp", "cp"))
    gpus = count("gpus")
    data = count("dp", gpus // (tensor * stages * context))
    micro_batch = count("micro_batch", 1)
    if not row["micro_batch"].strip():
        assumed.append("micro-batch 1 (not stated)")
    model = _model(row, count)
    said = row["recompute"].split("+")
    recompute = next((one for one in ("full", "selective") if one in said), "none")
    # Before FlashAttention and bf16, as the papers of 2021 and 2022 describe their runs.
    early = row["precision"] == "fp16"
    chunks = count("vpp", 1)
    if not row["vpp"].strip() and stages > 1:
        # arXiv 2407.21783, section 3.3.2: interleaved.
        chunks = 1 if early else model.depth // stages
        assumed.append(
            "1F1B (not stated)"
            if early
            else f"interleaved (arXiv 2407.21783, 3.3.2), {chunks} chunks of a stage (not stated)"
        )
    sequence_parallel = "sequence-parallel" in said or not early
    assumed.append(
        "attention unfused, gradients all-reduced after the last pass (not stated)"
        if early
        else "fused attention, optimizer sharded (ZeRO 1), its communication overlapped "
        "(not stated)"
    )
    if context > 1:
        assumed.append("keys gathered over context-parallel ranks (arXiv 2407.21783, 3.3.2)")
    if not row["recompute"].strip():
        assumed.append("nothing recomputed (not stated)")
    step = TrainingStep(
        model,
        replace(
            Parallelism(
                tensor=tensor, pipeline=stages, data=data, context=context, expert=count("ep", 1)
            ),
            sequence_parallel=sequence_parallel,
            zero=0 if early else 1,
            ring=False,
        ),
        sequence=count("seq"),
        micro_batch=micro_batch,
        micro_batches=_micro_batches(count("global_batch"), data, micro_batch),
        dtype=row["precision"],
        fused_attention=not early,
        schedule="interleaved" if chunks > 1 else "1f1b",
        chunks=chunks,
        recompute=recompute,
        overlap_gradients=not early,
        overlap_weights=not early,
        overlap_messages=not early,
    )
    if row["step_s"].strip():
        measured_us = value(row, "step_s", file) * 1e6
    else:
        rate = value(row, "tflops_per_gpu", file) * 1e12 * gpus
        measured_us = _counted_flops(step, early) / rate * 1e6
        assumed.append(
            "time from the paper's operations, recomputation included"
            if early
            else "time from 6 operations for each weight and token, and attention's, masked half "
            "left out"
        )
    cluster = _CLUSTERS[max((one for one in _CLUSTERS if profile.name.startswith(one)), key=len)]
    return Case(row["id"], step, profile, cluster, gpus, measured_us, tuple(assumed))


def _micro_batches(batch: int, data: int, micro_batch: int) -> int:
    if batch % (data * micro_batch):
        raise InputError(
            f"{batch} sequences are no whole micro-batches of {micro_batch} on {data} "
            "data-parallel ranks",
            key="global_batch",
        )
    return batch // (data * micro_batch)


def _profile(name: str) -> Hardware:
    """The profile whose words the name has, and most of them."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    names = [one for one in HARDWARE.names() if any(one.startswith(known) for known in _CLUSTERS)]
    fits = [one for one in names if set(one.split("-")) <= words]
    if not fits:
        known = ", ".join(names)
        raise InputError(f"{show(name)} is not known; known: {known}", key="gpu")
    return hardware(max(fits, key=lambda one: (len(one.split("-")), len(one))))


def _model(row: dict[str, str], count: Any) -> Model:
    """The model of that name and size, else one of the size: gated, without biases after 2022."""
    plain = re.sub(r"[^a-z0-9.]", "", row["model"].lower())
    for name in model_names():
        if name.replace("-", "") == plain:
            known = named_model(name)
            size = known.depth, known.hidden
            if size == (count("layers", size[0]), count("hidden", size[1])):
                return known
    early = row["precision"] == "fp16"
    heads, hidden = count("heads"), count("hidden")
    layer = Layer(
        Attention(heads, count("kv_heads", heads), hidden // heads, early, early),
        Mlp(count("ffn"), gated=not early, bias=early),
    )
    return Model(
        row["model"],
        hidden,
        count("vocab"),
        (layer,) * count("layers"),
        tied=early,
        layer_norm=early,
        positions=count("seq") if early else 0,
        dropout=early,
    )


def _counted_flops(step: TrainingStep, early: bool) -> float:
    """Operations of a step as the sources of such rows count them."""
    model, tokens = step.model, step.tokens
    if early:
        # Narayanan et al., arXiv 2104.04473, equation 3: with recomputation.
        layers, hidden = model.depth, model.hidden
        share = 1 + step.sequence / (6 * hidden) + model.vocabulary / (16 * layers * hidden)
        return 96.0 * tokens * layers * hidden**2 * share
    # Of the scores of s tokens s / 2 are not masked.
    return float(tokens * flops_per_token(model, step.sequence // 2))


def _baseline_us(case: Case) -> float:
    """All operations at the datasheet's peak."""
    step = case.step
    peak = case.hardware.datasheet.tensor_TFLOPS[step.dtype] * 1e12 * case.gpus
    repeated = 4 / 3 if step.recompute == "full" else 1.0
    return step.tokens * flops_per_token(step.model, step.sequence) * repeated / peak * 1e6


def _class_of(profile: Hardware) -> str:
    return f"{profile.name.partition('-')[0]}_steps"
