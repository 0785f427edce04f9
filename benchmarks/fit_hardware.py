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
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import least_squares

from astra_bridge.collectives.nccl import nccl_us
from astra_bridge.compute.gpu import Kernels
from astra_bridge.hardware import Fitted, Hardware, NcclParameters, hardware
from astra_bridge.validation.gpu import CLASSES, read_values
from astra_bridge.validation.table import SHIPPED, read_rows

PROFILES = Path(__file__).parents[1] / "astra_bridge/hardware/profiles"
PREFIX = {"h100-sxm": "h100", "h200": "h200"}

_GEMM = {
    "efficiency": (0.95, 0.4, 1.5),
    "memory": (0.87, 0.5, 1),
    "start_us": (6, 1, 15),
    "wave_us": (1.2, 0, 6),
    "k_ns": (0.7, 0, 3),
    "overlap": (4.5, 1, 12),
    "throttle": (0.2, 0, 0.6),
    "write_back": (0.35, 0, 1),
}
_ATTENTION = {
    "efficiency": (0.75, 0.3, 1.5),
    "start_us": (8, 1, 60),
    "tail": (0.8, 0, 3),
    "head_half": (20, 0, 200),
    "throttle": (0.1, 0, 0.6),
}
_OPERATORS = {
    "copy": [({"passes": 2}, {})],
    "add": [({"passes": 3}, {})],
    "gelu": [({"passes": 2}, {"element_ps": (1.3, 0, 5)})],
    "silu_mul": [({"passes": 5, "kernels": 2}, {})],
    "layer_norm": [({}, {"passes": (2.5, 2, 4), "row_ns": (1.8, 0, 5)})],
    "rms_norm": [({}, {"passes": (2.5, 2, 4), "row_ns": (1.5, 0, 5)})],
    "softmax": [
        # PyTorch keeps rows of up to 9216 in registers.
        ({"passes": 2, "most_columns": 9216}, {"element_ps": (3, 0, 8), "growth": (0.3, 0, 1)}),
        ({"passes": 2}, {"element_ps": (2, 0, 8)}),
    ],
}
_COPY = {"start_us": (10, 1, 30), "rate_GBps": (50, 5, 400)}

Spec = dict[str, Any]


def stages() -> list[tuple[list[str], dict[str, tuple[float, float, float]]]]:
    """Classes that are fitted together, and the parameters: path -> start, low, high."""

    def at(path: str, table: dict[str, tuple[float, float, float]]) -> Spec:
        return {f"{path}.{name}": bounds for name, bounds in table.items()}

    operators: Spec = {}
    for op, variants in _OPERATORS.items():
        for i, (_fixed, free) in enumerate(variants):
            operators |= at(f"operators.{op}.{i}", free)
    pageable = {"start_us": (12, 1, 30), "rate_GBps": (20, 2, 400), "small_GBps": (15, 1, 400)}
    return [
        (["gemm_bf16"], at("gemm.bf16", _GEMM)),
        (["gemm_fp8"], at("gemm.fp8", _GEMM)),
        (
            ["attention"],
            at("attention.forward", _ATTENTION)
            | at("attention.backward", _ATTENTION | {"floor_us": (90, 0, 200)})
            | at("decode", {"memory": (0.9, 0.4, 1), "start_us": (9, 1, 20),
                            "write_back": (0.35, 0, 1)}),
        ),
        (
            ["memory_bound"],
            at("memory_bound", {"memory": (0.9, 0.5, 1), "start_us": (4.7, 1, 10),
                                "overlap": (2, 1, 8)}) | operators,
        ),
        (
            ["optimizer"],
            at("optimizer", {"memory": (0.78, 0.3, 1), "start_us": (5, 1, 20),
                             "floor_us": (43, 0, 100)}),
        ),
        (
            ["memcpy"],
            at("copies.pinned", _COPY)
            | at("copies.h2d-pageable", pageable) | at("copies.d2h-pageable", pageable),
        ),
        (
            ["decoder_layers", "serving_layers", "train_step"],
            at("host", {"graph_us": (2, 0, 10), "stream_us": (1.5, 0, 10),
                        "launch_us": (30, 0, 60), "backward": (2, 0.5, 6)}),
        ),
    ]  # fmt: skip


def first() -> Spec:
    """Parameters to begin with, as in a profile's file."""
    zero: Spec = {}
    for _, table in stages():
        for path, (start, _low, _high) in table.items():
            put(zero, path, start)
    for op, variants in _OPERATORS.items():
        for i, (fixed, _free) in enumerate(variants):
            zero["operators"].setdefault(op, {}).setdefault(str(i), {}).update(fixed)
    zero["operators"] = {op: list(found.values()) for op, found in zero["operators"].items()}
    zero["gemm"]["fp16"] = dict(zero["gemm"]["bf16"])
    return {"to": "", **zero}


def put(tree: Any, path: str, number: float) -> None:
    *way, last = path.split(".")
    for name in way:
        tree = tree[int(name)] if isinstance(tree, list) else tree.setdefault(name, {})
    tree[last] = number


def get(tree: Any, path: str) -> float:
    for name in path.split("."):
        tree = tree[int(name)] if isinstance(tree, list) else tree[name]
    return float(tree)


class Rows:
    """Measurements of one accelerator and some classes."""

    def __init__(self, prefix: str, classes: list[str]) -> None:
        self.rows = []
        for name in classes:
            kind = CLASSES[name]
            file = SHIPPED / "gpu" / f"{prefix}_{name}.csv"
            if not file.is_file():
                continue
            for row, values in read_values(file, kind):
                for column in kind.measured:
                    if row.get(column):
                        text = ",".join(str(item) for item in values.values())
                        fold = zlib.crc32(text.encode()) % 5
                        self.rows.append((kind, values, column, float(row[column]), fold, name))

    def logs(self, machine: Hardware, fitted: Spec, folds: set[int]) -> np.ndarray:
        kernels = Kernels(machine, msgspec.convert(fitted, Fitted))
        return np.array([
            math.log(kind.predict(kernels, values, column) / measured)
            for kind, values, column, measured, fold, _ in self.rows if fold in folds
        ])  # fmt: skip

    def names(self, folds: set[int]) -> list[str]:
        """The class of each row."""
        return [row[-1] for row in self.rows if row[-2] in folds]


def fit(
    machine: Hardware, rows: Rows, table: Spec, fitted: Spec, folds: set[int], prior: bool
) -> None:
    """Change the parameters of a table in place."""
    paths = list(table)
    low, high = (np.array([table[path][i] for path in paths], float) for i in (1, 2))
    start = np.clip([get(fitted, path) for path in paths], low + 1e-9, high - 1e-9)
    scale = np.maximum(np.abs(start), 0.02 * (high - low))

    def residuals(numbers: np.ndarray) -> np.ndarray:
        for path, number in zip(paths, numbers, strict=True):
            put(fitted, path, float(number))
        found = rows.logs(machine, fitted, folds)
        # Parameters of a like accelerator are the prior: few rows move them little.
        return np.append(found, (numbers - start) / scale * (0.15 if prior else 0.002))

    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.05,
                          x_scale=scale, diff_step=1e-3, ftol=1e-4, max_nfev=25)  # fmt: skip
    for path, number in zip(paths, found.x, strict=True):
        put(fitted, path, float(f"{number:.4g}"))


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
    everything = set(range(5))
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
            fitted = content.get("fitted") or first()
        if only and "fitted" in content:
            fitted = content["fitted"]
        for classes, table in stages():
            rows = Rows(PREFIX[name], classes)
            if not rows.rows or (only and only.isdisjoint(classes)):
                continue
            begin = json.dumps(fitted)
            fit(machine, rows, table, fitted, everything, prior)
            error = percent(rows.logs(machine, fitted, everything))
            print(f"{name:10} {'+'.join(classes):45} {len(rows.rows):4} rows  fit {error}", end="")
            if cross:
                left: dict[str, list[float]] = {}
                for fold in everything:
                    copy = json.loads(begin if prior else json.dumps(fitted))
                    fit(machine, rows, table, copy, everything - {fold}, prior)
                    logs = rows.logs(machine, copy, {fold})
                    for one, log in zip(rows.names({fold}), logs, strict=True):
                        left.setdefault(one, []).append(abs(log))
                keep_left_out(
                    {
                        f"gpu/{PREFIX[name]}_{one}": math.expm1(np.mean(logs))
                        for one, logs in left.items()
                    }
                )
                print(f"  left out {percent(np.concatenate(list(left.values())))}", end="")
            print(flush=True)
            for path in table:
                print(f"    {path} = {get(fitted, path):g}")
        fitted["gemm"]["fp16"] = dict(fitted["gemm"]["bf16"])
        fitted["to"] = (
            f"kernels, layers and steps of astra_bridge/validation/data/gpu/{PREFIX[name]}_*.csv"
        )
        content.pop("fitted_as", None)
        content["fitted"] = fitted
        file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
