# SPDX-License-Identifier: MIT
"""docs/validation.md, as ``astra-bridge validate --output`` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from astra_bridge.validation.report import Report
from astra_bridge.validation.table import SHIPPED, Row, Summary

__all__ = ["page", "percent", "shape_of"]

_HEAD = """# Validation

This page was written by a command, from measurements that the package has:

```sh
astra-bridge validate all --output out
```

`--data DIR` judges any other folder of the same layout with the same parameters, and `--json
FILE` has every row. The error of a class is `exp(mean |ln(predicted / measured)|) - 1`; the
worst one is of a single row. Beside it stands the *baseline*: what is usually assumed. Rows
that parameters were fitted to are counted; *left out* is the error on a fifth of the shapes,
five times, that a fit of the other ones had not seen (`benchmarks/fit_hardware.py --cross`),
which is what to expect of shapes that are not here.
"""

_SETS = {
    "gpu": """## Kernels, layers and steps of one GPU

One NVIDIA H100 80GB HBM3 and one H200, PyTorch 2.11, CUDA 13.0; medians between CUDA events
with a cold L2 cache, so the time of a launch is in them. Predicted by the
[profiles](hardware.md) `h100-sxm` and `h200`. The baseline is the roofline with the datasheet's
peaks.
""",
    "transfer": """## Other GPUs by the H100's parameters

Rows of the H200, and NCCL's of the B200, once more, with the parameters fitted to the H100 and
only the datasheet changed.
""",
    "nccl": """## NCCL on one node

nccl-tests of NVIDIA's public aiconfigurator data (Apache-2.0): one process, fp16, out of place,
512 B to 512 MiB, the algorithm and protocol that NCCL chose itself. The baseline has two
parameters for each collective and number of GPUs, taken from the measurements themselves: the
time of the smallest size and the bandwidth of the largest. Each row is a run of the algorithm
[`nccl`](formats/system.md#nccl) on `analytical-unaware`. The B200 has the H100's parameters, its
own datasheet, and one number fitted to its smallest all-reduce: all its times are 1.61 of the
H100's. Three rows of the H100's all-to-all on 8 GPUs took twice as long as their neighbours of
half and of twice the size, and are most of its error.
""",
}

_SETS["parity"] = """## Parity with the public simulators

Answers of ASTRA-sim 2.0, of its RDMA fork of ns-3 and of gem5 24.0's Garnet, which ship with
the package (`astra-bridge validate parity`). The error of a case is that of its rank, or
message, that is furthest off.
"""

_SETS["steps"] = """## Training steps on 8 to 16,384 GPUs

Published steps, each simulated as a whole: the workload made of the model
([models.md](models.md)), durations of its kernels by the profile of the GPU, collectives as NCCL
would choose them (`nccl`) over nodes and their network adapters (`analytical-unaware`,
`corrected`). Inside a node the times are those that were fitted to nccl-tests; between nodes
NCCL's own constants, and 47 GB/s of a 400 Gb/s adapter, which NCCL's maintainers expect
(nccl-tests, issue 290). What a source leaves open is assumed, and stands in the row with what says
it, or "not stated". These assumptions were chosen with the rows in view, so the error here is of
rows that were fitted, not of new ones. The baseline is all operations at the datasheet's peak.
"""

_MISSING = """## What is not modelled

* **Noise.** A row that was disturbed while it was measured stays in the table, and counts:
  `h100_memory_bound` has an RMSNorm that took nine times as long as its neighbours.
* **Choices of libraries.** Which kernel cuBLAS or cuDNN takes for a shape is not known; the
  best of many tiles stands for it.
* **The host.** One time per launch stands for a framework's work, which varies with its version
  and the processor.
* **NCCL beyond a node.** Between nodes, latencies and shares are those of NCCL's own tuning,
  which are made to choose by: no measurement of them is here. NCCL's rings and trees over several
  GPUs of each node are a part inside nodes and one between them, through all adapters. Nodes
  without NVSwitch, CollNet (SHARP between nodes), NVLSTree, and registered buffers are not
  modelled.
* **NCCL's latency.** What a step takes is known where it was measured: the B200's steps take 1.61
  of the H100's time, which no datasheet says, so the H100's parameters fail for small sizes.
* **Caches between kernels.** What one kernel leaves in the L2 cache for the next is not
  followed.
"""


def percent(share: float) -> str:
    """As the tables print an error."""
    return f"{100 * share:.1f} %"


def shape_of(row: Row) -> str:
    """What a row is about, in one line."""
    return " ".join(f"{key}={item}" for key, item in row.what.items() if item)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cross() -> dict[str, Any]:
    """What the last fit said of rows that it had not seen: class -> error."""
    found: dict[str, Any] = json.loads((SHIPPED / "left_out.json").read_text(encoding="utf-8"))
    return found


def page(report: Report) -> str:
    """The whole page.

    Parameters
    ----------
    report
        Of all sets.
    """
    cross = _cross()
    parts = [_HEAD]
    for name, text in _SETS.items():
        own = [one for one in report.summaries if one.set == name]
        if not own:
            continue
        parts.append(text)
        parts.append(_table(
            ("class", "rows", "fitted", "error", "left out", "worst", "baseline"),
            [_line(one, cross) for one in own],
        ))  # fmt: skip
        rows = [row for row in report.rows if row.set == name]
        if name == "steps":
            parts.append(_each_step(rows))
            continue
        if all(row.error == 0 for row in rows):
            continue
        worst = sorted(rows, key=lambda row: -abs(row.predicted_us / row.measured_us - 1))[:5]
        parts.append("The worst rows:\n")
        parts.append(_table(
            ("class", "row", "measured [us]", "predicted [us]"),
            [(row.kind, shape_of(row), f"{row.measured_us:.1f}", f"{row.predicted_us:.1f}")
             for row in worst],
        ))  # fmt: skip
    parts.append(_MISSING)
    if report.notes:
        parts.append("".join(f"* {note}.\n" for note in report.notes))
    return "\n".join(parts)


def _each_step(rows: Sequence[Row]) -> str:
    """All steps, with what is assumed of each."""
    header = ("step", "GPUs", "measured [s]", "predicted [s]", "error", "baseline", "assumed")
    return _table(header, [
        (row.what["id"], row.what["gpus"], f"{row.measured_us / 1e6:.2f}",
         f"{row.predicted_us / 1e6:.2f}", f"{row.error:+.1%}",
         f"{row.baseline_us / row.measured_us - 1:+.1%}", row.what["assumed"])
        for row in rows
    ])  # fmt: skip


def _line(one: Summary, cross: dict[str, Any]) -> tuple[str, ...]:
    left_out = cross.get(f"{one.set}/{one.kind}")
    return (
        one.kind,
        str(one.rows),
        str(one.fitted),
        percent(one.error_geomean),
        "" if left_out is None else percent(left_out),
        percent(one.error_worst),
        percent(one.baseline_geomean),
    )
