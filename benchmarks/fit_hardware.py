# SPDX-License-Identifier: MIT
"""Fit the parameters of profiles of accelerators to measured kernels, and write them there.

    python benchmarks/fit_hardware.py [--cross] [NAME ...]

NAME is a profile of which the package has measurements: h100-sxm, h200; all of them by default,
in this order, because the parameters of the first are the prior of the second.  Least squares of
ln(predicted / measured), whose far outliers count less (``soft_l1``), by SciPy.  ``--cross`` leaves
out a fifth of the shapes, fits the rest, and prints the error on what was left out, five times.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from astra_bridge.collectives.nccl import nccl_us
from astra_bridge.hardware import NcclParameters, hardware
from astra_bridge.validation.fitting import (
    PRIOR,
    Measured,
    Stage,
    least,
    logs_of,
    measured_rows,
    parameter,
    stages,
    start_of,
)
from astra_bridge.validation.table import SHIPPED, read_rows

PROFILES = Path(__file__).parents[1] / "astra_bridge/hardware/profiles"
PREFIX = {"h100-sxm": "h100", "h200": "h200"}


def rows_of(prefix: str, stage: Stage) -> list[Measured]:
    """Measurements of one accelerator that a stage is fitted to."""
    files = {name: SHIPPED / "gpu" / f"{prefix}_{name}.csv" for name in stage.classes}
    rows = [row for name, one in files.items() if one.is_file() for row in measured_rows(one, name)]
    return [row for row in rows if stage.covers(row)]


def keep_left_out(errors: dict[str, float]) -> None:
    """Write errors on rows that a fit had not seen where docs/validation.md finds them."""
    file = SHIPPED / "left_out.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    known |= {name: round(float(error), 4) for name, error in errors.items()}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


# Protocols and bandwidths: start; bounds are a fiftieth and twenty times of it.
_NCCL = {
    "launch_us": 6, "ll_step_us": 0.8, "ll128_step_us": 1.5, "simple_us": 10, "simple_step_us": 1,
    "ll_channel_GBps": 8, "ll": 0.5, "ll128": 0.5, "simple": 0.75, "own": 2, "rate_growth": 0.03,
    "nvls_us": 15, "nvls_rank_us": 2, "nvls": 0.6, "pair_us": 12, "pair_rank_us": 0.5,
    "pair": 0.75, "pair_ll_us": 8, "pair_ll_GBps": 6,
}  # fmt: skip
_NCCL_GPUS = {"a100-80gb": "A100-SXM4-80GB", "h100-sxm": "H100-SXM", "b200": "B200-SXM"}
_FEW = 50
"""With fewer rows than this, the H100's parameters are the prior."""


def fit_nccl(name: str, cross: bool) -> None:
    """Fit NCCL's parameters to nccl-tests on nodes of an accelerator."""
    machine = hardware(name)
    rows = [
        (row["op_name"], int(row["num_gpus"]), int(row["bytes"]), float(row["us"]))
        for row in read_rows(SHIPPED / "nccl/nccl_tests.csv", ("us",))
        if row["gpu"] == _NCCL_GPUS[name]
    ]
    few = len(rows) < _FEW
    table = json.loads((PROFILES / "h100-sxm.json").read_text())["nccl"] if few else _NCCL
    start = np.array([table[one] for one in _NCCL], float)

    def logs(numbers: np.ndarray, some: list[tuple[str, int, int, float]]) -> np.ndarray:
        parameters = NcclParameters(**dict(zip(_NCCL, map(float, numbers), strict=True)))
        return np.array([
            math.log(nccl_us(machine, *row[:3], parameters=parameters) / row[3]) for row in some
        ])  # fmt: skip

    def best(some: list[tuple[str, int, int, float]]) -> np.ndarray:
        def residuals(x: np.ndarray) -> np.ndarray:
            return np.append(logs(x, some), np.log(x / start) * (0.05 if few else 0))

        found = least_squares(residuals, start, bounds=(start / 50, start * 20), x_scale=start,
                              loss="soft_l1", f_scale=0.1, diff_step=1e-3)  # fmt: skip
        return found.x

    numbers = [float(f"{one:.4g}") for one in best(rows)]
    print(f"{name:10} nccl {len(rows)} rows  fit {percent(logs(np.array(numbers), rows))}", end="")
    if cross:
        sizes = sorted({row[2] for row in rows})
        left = []
        for fold in range(5):
            out = [row for row in rows if sizes.index(row[2]) % 5 == fold]
            left.append(logs(best([row for row in rows if row not in out]), out))
        gpu = _NCCL_GPUS[name]
        errors = {f"nccl/{gpu}": np.concatenate(left)}
        four = [row for row in rows if row[1] == 4]
        if four:
            other = logs(best([row for row in rows if row[1] != 4]), four)
            errors[f"nccl/{gpu}, 4 GPUs"] = other
        print(f"  left out: {', '.join(map(percent, errors.values()))}", end="")
        keep_left_out({key: math.expm1(np.abs(one).mean()) for key, one in errors.items()})
    print()
    file = PROFILES / f"{name}.json"
    content = json.loads(file.read_text())
    content.pop("nccl_as", None)
    content["nccl"] = dict(zip(_NCCL, numbers, strict=True))
    file.write_text(json.dumps(content, indent=2) + "\n")


def percent(logs: np.ndarray) -> str:
    return f"{100 * (math.exp(np.abs(logs).mean()) - 1):5.2f} %"


def main(words: list[str]) -> None:
    cross = "--cross" in words
    only = {word.removeprefix("--only=") for word in words if word.startswith("--only=")}
    if not only or "nccl" in only:
        for name in _NCCL_GPUS:
            fit_nccl(name, cross)
    if only == {"nccl"}:
        return
    for name in [word for word in words if not word.startswith("--")] or list(PREFIX):
        file = PROFILES / f"{name}.json"
        content = json.loads(file.read_text())
        machine = hardware(name)
        prior = bool(machine.fitted_as or name == "h200")
        if prior:
            fitted = json.loads((PROFILES / "h100-sxm.json").read_text())["fitted"]
        else:
            fitted = content.get("fitted") or start_of(stages())
        if only and "fitted" in content:
            fitted = content["fitted"]
        pull = PRIOR if prior else 0.002
        for stage in stages():
            rows = rows_of(PREFIX[name], stage)
            classes = dict.fromkeys(row.name for row in rows)
            if not rows or (only and only.isdisjoint(classes)):
                continue
            begin = json.dumps(fitted)
            least(machine, rows, stage.bounds, fitted, pull)
            error = percent(logs_of(machine, fitted, rows))
            print(f"{name:10} {'+'.join(classes):45} {len(rows):4} rows  fit {error}", end="")
            if cross:
                left: dict[str, list[float]] = {}
                for fold in range(5):
                    copy = json.loads(begin if prior else json.dumps(fitted))
                    out = [row for row in rows if row.order % 5 == fold]
                    rest = [row for row in rows if row.order % 5 != fold]
                    least(machine, rest, stage.bounds, copy, pull)
                    for row, log in zip(out, logs_of(machine, copy, out), strict=True):
                        left.setdefault(row.name, []).append(abs(log))
                keep_left_out(
                    {
                        f"gpu/{PREFIX[name]}_{one}": math.expm1(np.mean(logs))
                        for one, logs in left.items()
                    }
                )
                print(f"  left out {percent(np.concatenate(list(left.values())))}", end="")
            print(flush=True)
            for path in stage.bounds:
                print(f"    {path} = {parameter(fitted, path):g}")
        fitted["gemm"]["fp16"] = dict(fitted["gemm"]["bf16"])
        fitted["to"] = (
            f"kernels, layers and steps of astra_bridge/validation/data/gpu/{PREFIX[name]}_*.csv"
        )
        content.pop("fitted_as", None)
        content["fitted"] = fitted
        file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
