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

from astra_bridge.collectives.nccl import nccl_choice, nccl_us
from astra_bridge.hardware import NcclParameters, hardware, read_hardware
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


# Times, shares and bandwidths: start; bounds are a fiftieth and twenty times of it.
_NCCL = {
    "launch_us": 6, "ll_step_us": 0.8, "ll128_step_us": 1.5, "simple_us": 10, "simple_step_us": 1,
    "ll_channel_GBps": 8, "ll": 0.5, "ll128": 0.5, "simple": 0.75, "own": 2, "rate_growth": 0.03,
    "nvls_step_us": 6, "nvls": 0.8, "pair_us": 12, "pair_rank_us": 0.5, "pair": 0.75,
    "pair_GBps": 16, "pair_ll_us": 8, "pair_ll_GBps": 6,
}  # fmt: skip
_WITH_HOP = ("ll_step_us", "ll128_step_us", "simple_step_us", "pair_rank_us")
"""Not shorter than the network's part of them."""
_NVLS = ("nvls_step_us", "nvls")
_NCCL_GPUS = {"a100-80gb": "A100-SXM4-80GB", "h100-sxm": "H100-SXM"}
_SCALED = {"b200": "B200-SXM"}
"""With few rows: the parameters of another, and one number."""

_NcclRow = tuple[str, int, int, float]


def nccl_measured(gpu: str) -> list[_NcclRow]:
    """Collective, ranks, bytes and us of nccl-tests."""
    return [
        (row["op_name"], int(row["num_gpus"]), int(row["bytes"]), float(row["us"]))
        for row in read_rows(SHIPPED / "nccl/nccl_tests.csv", ("us",))
        if row["gpu"] == gpu
    ]


def fit_nccl(name: str, cross: bool) -> None:
    """Fit NCCL's parameters to nccl-tests on nodes of an accelerator."""
    machine, gpu = hardware(name), _NCCL_GPUS[name]
    rows = nccl_measured(gpu)
    chosen = {row[:3]: nccl_choice(machine, *row[:3]) for row in rows}
    # What no row has run stays at its start, and is no parameter.
    free = [
        one for one in _NCCL
        if one not in _NVLS or any(choice.algorithm == "nvls" for choice in chosen.values())
    ]  # fmt: skip
    start = np.array([_NCCL[one] for one in free], float)
    low = np.array([0.21 if one in _WITH_HOP else _NCCL[one] / 50 for one in free])

    def logs(numbers: np.ndarray, some: list[_NcclRow]) -> np.ndarray:
        named = dict(zip(free, map(float, numbers), strict=True))
        parameters = NcclParameters(**{**_NCCL, **named})
        return np.array([
            math.log(nccl_us(machine, *row[:3], choice=chosen[row[:3]], parameters=parameters)
                     / row[3])
            for row in some
        ])  # fmt: skip

    def best(some: list[_NcclRow]) -> np.ndarray:
        found = least_squares(lambda x: logs(x, some), start, bounds=(low, start * 20),
                              x_scale=start, loss="soft_l1", f_scale=0.1,
                              diff_step=1e-3)  # fmt: skip
        return found.x

    numbers = [float(f"{one:.4g}") for one in best(rows)]
    print(f"{name:10} nccl {len(rows)} rows  fit {percent(logs(np.array(numbers), rows))}", end="")
    if cross:
        sizes = sorted({row[2] for row in rows})
        left = []
        for fold in range(5):
            out = [row for row in rows if sizes.index(row[2]) % 5 == fold]
            left.append(logs(best([row for row in rows if row not in out]), out))
        errors = {f"nccl/{gpu}": np.concatenate(left)}
        for ranks in sorted({row[1] for row in rows}):
            some = [row for row in rows if row[1] == ranks]
            other = best([row for row in rows if row[1] != ranks])
            errors[f"nccl/{gpu}, {ranks} GPUs"] = logs(other, some)
        print(f"  left out: {', '.join(map(percent, errors.values()))}", end="")
        keep_left_out({key: math.expm1(np.abs(one).mean()) for key, one in errors.items()})
    print()
    file = PROFILES / f"{name}.json"
    content = json.loads(file.read_text())
    content.pop("nccl_as", None)
    content["nccl"] = {**_NCCL, **dict(zip(free, numbers, strict=True))}
    file.write_text(json.dumps(content, indent=2) + "\n")


def scale_nccl(name: str) -> None:
    """How much longer NCCL takes than on the H100: the smallest all-reduce alone says it."""
    machine = hardware(name)
    collective, ranks, size, us = min(nccl_measured(_SCALED[name]), key=lambda row: row[2])
    like = read_hardware(PROFILES / "h100-sxm.json").nccl  # as it has just been fitted
    found = us / nccl_us(machine, collective, ranks, size, parameters=like)
    print(f"{name:10} nccl takes {found:.3f} times as long as h100-sxm's, by {size} B")
    file = PROFILES / f"{name}.json"
    content = json.loads(file.read_text())
    content.pop("nccl", None)
    content |= {"nccl_as": "h100-sxm", "nccl_latency": float(f"{found:.3g}")}
    file.write_text(json.dumps(content, indent=2) + "\n")


def percent(logs: np.ndarray) -> str:
    return f"{100 * (math.exp(np.abs(logs).mean()) - 1):5.2f} %"


def main(words: list[str]) -> None:
    cross = "--cross" in words
    only = {word.removeprefix("--only=") for word in words if word.startswith("--only=")}
    if not only or "nccl" in only:
        for name in _NCCL_GPUS:
            fit_nccl(name, cross)
        for name in _SCALED:
            scale_nccl(name)
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
