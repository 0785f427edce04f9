# SPDX-License-Identifier: MIT
"""What becomes of recordings and text workloads that others publish.

``python benchmarks/public_files.py --param DIR --hta DIR ...`` takes clones of
facebookresearch/param, facebookresearch/HolisticTraceAnalysis, mlcommons/chakra,
AMD-AGI/TraceLens, deepseek-ai/profile-data (``--profile-data``), aliyun/aicb (``--aicb``),
aliyun/SimAI, astra-sim/tutorials and astra-sim/astra-sim (branch ASTRA-sim-1.0);
``--recordings`` a folder of folders NAME_RANKS with ``kineto.RANK.json.gz`` and
``et.RANK.json.gz``.  Prints a line for each file: ranks, nodes of a rank, and what became of it. Of
a recording that is how its compute, and the end of a replay, differ from the recorded; of a text
workload, the sums of bytes of a rank by kind, and the file's where they are others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import astra_bridge
from astra_bridge.errors import AstraBridgeError
from astra_bridge.sources.across import Job
from astra_bridge.sources.export import RecordedWorkload
from astra_bridge.sources.pytorch import files_of, recorded_job, unmeasured_job
from astra_bridge.trace import MISSING, NodeType, Workload, read_trace
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.formats import count_ranks, read_workload
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import ASTRA_SIM_1, SIMAI
from astra_bridge.trace.overview import duration_ns, overview
from astra_bridge.trace.reader import kind_of_path

RECORDINGS = {
    "param": (
        ("dlrm_kineto/worker{rank}_step_12.*.json", "", None),
        ("dlrm_kineto/worker{rank}_step_12.*.json", "dlrm_pytorch_et/dlrm_eg_{rank}.json", None),
        ("linear_kineto.json.gz", "linear_et.json.gz", None),
        ("resnet_kineto.json.gz", "resnet_et.json.gz", None),
        ("", "linear_et.json.gz", None),
        ("", "resnet_1gpu_et.json", None),
        ("", "1.0.3-chakra.0.0.4/resnet_1gpu_et.json.gz", None),
        ("", "1.1.0-chakra.0.0.4/resnet_2gpu_et.json.gz", 2),
        ("", "hf_GPT2_et.json", None),
        ("", "pt2_et.json", None),
    ),
    "hta": (
        ("critical_path/alexnet/*.json.gz", "", None),
        ("critical_path/simple_add/*.json.gz", "", None),
        ("critical_path/cuda_event_sync/*.json.gz", "", None),
        ("critical_path/cuda_event_sync_multi_stream/*.json.gz", "", None),
        ("execution_trace/benchmark_simple_add_trace.json.gz",
         "execution_trace/benchmark_simple_add_et.json.gz", None),
        ("cupti_profiler/*.json.gz", "", None),
        ("amd_trace/*.json.gz", "", None),
        ("triton_example/*.json.gz", "", None),
        ("nccl_parser_config/*.json.gz", "", 2),
        ("ns_resolution_trace/*.json.gz", "", None),
        ("trace_diff/control/*.json.gz", "", 8),
        ("mtia_inference_trace/*.json.gz", "", None),
        ("trace_compare/base/*.json.gz", "", None),
        ("df_index_resolver/*.json.gz", "", 8),
        ("timeline_analysis/*.json.gz", "", 8),
        ("mtia_trace_single_rank/*.json.gz", "", 8),
        ("negative_queue_length_values_check/*.json.gz", "", 16),
    ),
    "tracelens": (
        ("mi300/resnet_act_checkpoint.json.gz", "", 8),
        ("b200/eager_trace.json.gz", "", 8),
        *((f"{gpu}/{model}*.json.gz", "", None)
          for gpu in ("h100", "mi300")
          for model in ("Falconsai", "Qwen", "facebook_times", "gaunernst", "google_owlv2")),
        ("vllm_decode_full/graph_execution.json.gz", "", None),
        ("vllm_prefilldecode_piecewise/graph_execution.json.gz", "", None),
        ("sglang_decode/sglang*.json.gz", "", None),
        ("sglang_prefilldecode/sglang*.json.gz", "", None),
        ("xdit_flux.1_aiter_sage/profile*.json.gz", "", None),
        ("xdit_sd_3.5/profile*.json.gz", "", None),
        ("gpu_only_trace/*.json.gz", "", None),
        ("torch_compile_triton/*.json.gz", "", None),
    ),
    "profile-data": (("train.json", "", 64),),
    "chakra": (("", "1.0.2-chakra.0.0.4.json", 2), ("chakra.0.et", "", None)),
    "tutorials": (("", "demo3/pytorch_traces/pytorch_et_{rank}.json", None),),
}  # fmt: skip
"""Repository -> Kineto's traces, execution traces, and for how many ranks one of them stands."""

NETWORK = {"topology": ["Switch"], "bandwidth": [400], "latency": [500]}
REPLAY = {"scheduling-policy": "LIFO", "preferred-dataset-splits": 1, "replay-only": 1}
RUN: dict[str, Any] = {
    f"{kind}-implementation": ["ring"]
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
} | {"scheduling-policy": "LIFO", "peak-perf": 900, "local-mem-bw": 3350}
KINDS = ("kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset")


def unpacked(folder: Path, scratch: Path) -> list[Path]:
    """All files of a folder, those in tar archives too."""
    for archive in sorted(folder.rglob("*.t*gz")):
        if archive.name.endswith((".tgz", ".tar.gz")):
            with tarfile.open(archive) as content:
                content.extractall(scratch, filter="data")
    return [path for root in (folder, scratch) for path in sorted(root.rglob("*"))]


def found(files: list[Path], pattern: str) -> dict[int, Path]:
    """The files that fit the end of a pattern, by rank."""
    parts = re.split(r"(\{rank\}|\*)", pattern)
    words = {"{rank}": r"(\d+)", "*": r"[^/]*"}
    matcher = re.compile(
        r".*(?:^|/)" + "".join(words.get(part, re.escape(part)) for part in parts) + "$"
    )
    hits = [(match, path) for path in files if (match := matcher.match(path.as_posix()))]
    if "{rank}" not in pattern:
        return {0: hits[0][1]} if hits else {}
    return dict(sorted((int(match[1]), path) for match, path in hits))


def recorded_us(file: Path) -> float:
    """The sum of what Kineto's trace says of kernels, copies and fills, collectives aside."""
    data = file.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    events = json.loads(text)["traceEvents"]
    return sum(
        event["dur"] for event in events
        if event.get("cat") in KINDS and "nccl" not in str(event["name"]).lower()
    )  # fmt: skip


def of_recording(
    kineto: dict[int, Path], execution: dict[int, Path], ranks: int | None
) -> tuple[Workload, str]:
    """What became of a recording."""
    made = Inferences()
    if kineto:
        job = recorded_job(kineto, execution, ranks, made)
    else:
        job = unmeasured_job(execution, ranks, made)
    workload = RecordedWorkload(job).workload()
    trace = workload.of_rank(0)
    collectives = int((trace.type == NodeType.COMM_COLL).sum())
    said = f"{collectives} collectives"
    if not kineto:
        return workload, f"{said}; operations for the roofline; {ran(workload)}"
    network = NETWORK | {"npus_count": [workload.ranks]}
    result = astra_bridge.simulate(
        workload=workload, system=REPLAY, network=network, semantics="corrected"
    )
    spans = np.array([one.span_ns for one in job.ranks], np.float64)
    replay = np.array(result.finish_ns) / spans - 1
    said += f"; {in_order(job)} streams in order"
    gpu = (trace.type == NodeType.COMP) & ~trace.is_cpu_op
    recorded = recorded_us(next(iter(kineto.values())))
    if recorded:
        said += f"; compute {duration_ns(trace)[gpu].sum() / 1000 / recorded - 1:+.2%}"
    said += f"; replay {replay.min():+.1%}"
    return workload, said + (f" to {replay.max():+.1%}" if len(set(replay.round(3))) > 1 else "")


def ran(workload: Workload) -> str:
    """What ``trace check`` and a run say of a workload."""
    errors = [one for one in check_workload(workload) if one.stops]
    if errors:
        return f"check: {errors[0].what}"
    timed = (workload.of_rank(0).num_ops != MISSING).any()
    system = RUN | {"roofline-enabled": int(timed)}
    network = NETWORK | {"npus_count": [workload.ranks]}
    result = astra_bridge.simulate(workload=workload, system=system, network=network)
    return f"runs in {max(result.finish_ns) / 1000:,.0f} us"


def in_order(job: Job) -> int:
    """How many streams of all ranks run their kernels in the order of the recording.

    Raises
    ------
    AssertionError
        One does not.
    """
    streams: dict[tuple[int, int], int] = {}
    for rank, one in enumerate(job.ranks):
        for at, step in enumerate(one.steps):
            if step.stream < 0:
                continue
            before = streams.get((rank, step.stream))
            if before is not None:
                other = one.steps[before]
                assert step.start_ns >= other.start_ns, (rank, step.stream, step.name)
                assert before in step.deps or step.deps == other.deps, (rank, step.stream, at)
            streams[rank, step.stream] = at
    return len(streams)


def chakra_workloads(folder: Path) -> Iterator[tuple[str, Workload | None, str]]:
    """Sets of Chakra traces: ``PREFIX.0.et`` and those of the other ranks."""
    for first in sorted(folder.rglob("*.0.et")):
        prefix = Path(str(first).removesuffix(".0.et"))
        title = prefix.relative_to(folder).as_posix()
        try:
            ranks = len([*prefix.parent.glob(f"{prefix.name}.*.et")])
            workload = read_workload(prefix, ranks)
            yield title, workload, ran(workload)
        except AstraBridgeError as error:
            yield title, None, f"refused: {_reason(error)}"


def recordings(folder: Path, name: str) -> Iterator[tuple[str, Workload | None, str]]:
    with tempfile.TemporaryDirectory() as scratch:
        files = unpacked(folder, Path(scratch))
        for first, second, ranks in RECORDINGS[name]:
            title = " + ".join(filter(None, (first, second)))
            kineto = found(files, first) if first else {}
            execution = found(files, second) if second else {}
            if not (kineto or execution):
                yield title, None, "not there"
                continue
            try:
                if first.endswith(".et"):
                    yield title, _chakra(kineto[0]), "read"
                else:
                    yield title, *of_recording(kineto, execution, ranks)
            except AstraBridgeError as error:
                yield title, None, f"refused: {_reason(error)}"


def _chakra(file: Path) -> Workload:
    return Workload((read_trace(file),), np.zeros(1, np.int32))


def _reason(error: AstraBridgeError) -> str:
    return str(getattr(error, "reason", error))[:160]


def own_recordings(folder: Path) -> Iterator[tuple[str, Workload | None, str]]:
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        kineto = files_of(one / "kineto.{rank}.json.gz", "--recordings")
        execution = files_of(one / "et.{rank}.json.gz", "--recordings")
        said = re.search(r"_(\d+)$", one.name)
        world = int(said[1]) if said else 1
        yield one.name, *of_recording(kineto, execution, None if world == len(kineto) else world)


def sizes_of(file: Path) -> Counter[str]:
    """Bytes of a text workload by kind of communication, as far as its parallelism sends them."""
    head, _, *lines = file.read_text().splitlines()
    parallelism = head.split()[0]
    sizes: Counter[str] = Counter()
    layers = [words for line in lines if len(words := line.split()) > 11]
    for first, words in zip((True, *(False,) * len(layers)), layers, strict=False):
        own = words[12] if len(words) > 12 else parallelism
        sent = {"DATA": (9,), "DATA_REORDER": (9,), "MODEL": (3, 6)}.get(own, (3, 6, 9))
        for at in sent:
            # Nobody needs what the first layer's input gradients are, but in transformers.
            if at == 6 and first and ("MODEL" in parallelism or "CUSTOM" in parallelism):
                continue
            sizes[words[at].split("_")[0]] += int(words[at + 1])
    del sizes["NONE"]
    return sizes


def text_workloads(
    folder: Path, *, run: bool = False
) -> Iterator[tuple[str, Workload | None, str]]:
    for file in sorted(folder.rglob("*.txt")):
        kind = kind_of_path(file)
        if kind not in (SIMAI, ASTRA_SIM_1):
            continue
        try:
            ranks = count_ranks(file) or 16
            workload = read_workload(file, ranks)
        except AstraBridgeError as error:
            yield file.name, None, f"refused: {_reason(error)}"
            continue
        expected = sizes_of(file)
        sums: Counter[str] = Counter()
        for one in overview(workload).communication:
            sums[one.kind.replace("-", "").upper()] += one.bytes // ranks
        if kind is ASTRA_SIM_1:
            # Its sizes are Chakra's: of an all-gather, what one rank has.
            sums["ALLGATHER"] //= ranks
        parts = ", ".join(
            f"{kind} {sums[kind]:,} B{'' if sums[kind] == size else f' of {size:,}'}"
            for kind, size in sorted(expected.items()) if size
        )  # fmt: skip
        inferred = "; ".join(said.partition("inferred: ")[2] for said in workload.warnings)
        parts += f" ({inferred})" if inferred else ""
        yield file.name, workload, f"{parts}; {ran(workload)}" if run else parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in (*RECORDINGS, "recordings", "aicb", "simai", "astra-sim"):
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    given = {
        name.replace("_", "-"): path for name, path in vars(parser.parse_args()).items() if path
    }
    print("| file | ranks | nodes | verdict |\n|---|---|---|---|")
    for name, path in given.items():
        if name in RECORDINGS:
            rows = recordings(path, name)
            if name == "tutorials":
                rows = chain(rows, chakra_workloads(path), text_workloads(path, run=True))
        else:
            rows = own_recordings(path) if name == "recordings" else text_workloads(path)
        for title, workload, said in rows:
            ranks = f"{workload.ranks:,}" if workload else ""
            nodes = f"{len(workload.of_rank(0)):,}" if workload else ""
            print(f"| {name}: {title} | {ranks} | {nodes} | {said} |", flush=True)


if __name__ == "__main__":
    main()
