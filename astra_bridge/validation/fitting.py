# SPDX-License-Identifier: MIT
"""Parameters of an accelerator, fitted to kernels that somebody measured.

Least squares of ln(predicted / measured), whose far outliers count less (``soft_l1``), by SciPy.
Where few rows say little of a parameter, the accelerator that stands in is the prior.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.gpu import Kernels
from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.files import write_file
from astra_bridge.hardware import Fitted, Hardware, hardware
from astra_bridge.inputs.common import read_text
from astra_bridge.text import show
from astra_bridge.validation.gpu import CLASSES, Class, Values, hardware_of, read_values
from astra_bridge.validation.table import geomean, value

__all__ = [
    "Fit",
    "Measured",
    "Quality",
    "Stage",
    "fit_hardware",
    "least",
    "measured_rows",
    "start_of",
    "stages",
]

Spec = dict[str, Any]
Bounds = dict[str, tuple[float, float, float]]

PRIOR = 0.15
"""What moving a parameter by its own size costs, where an accelerator of a like design is known."""

_EACH = 5
"""One of so many shapes is held out."""

_GEMM: Bounds = {
    "efficiency": (0.95, 0.4, 1.5),
    "memory": (0.87, 0.5, 1),
    "start_us": (6, 1, 15),
    "wave_us": (1.2, 0, 6),
    "k_ns": (0.7, 0, 3),
    "overlap": (4.5, 1, 12),
    "throttle": (0.2, 0, 0.6),
    "write_back": (0.35, 0, 1),
}
_ATTENTION: Bounds = {
    "efficiency": (0.75, 0.3, 1.5),
    "start_us": (8, 1, 60),
    "tail": (0.8, 0, 3),
    "head_half": (20, 0, 200),
    "throttle": (0.1, 0, 0.6),
}
_OPERATORS: dict[str, list[tuple[Spec, Bounds]]] = {
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
_COPY: Bounds = {"start_us": (10, 1, 30), "rate_GBps": (50, 5, 400)}


class Stage(NamedTuple):
    """What is fitted at once.

    Attributes
    ----------
    classes
        Of measurements.
    bounds
        Path of a parameter -> where to start where nothing is known, lowest, highest.
    dtype
        Precision of matrix products; "" where there are none.
    """

    classes: tuple[str, ...]
    bounds: Bounds
    dtype: str = ""

    def covers(self, row: Measured) -> bool:
        """Whether a row is fitted here."""
        return row.name in self.classes and self.dtype in ("", row.dtype)


def stages(dtypes: Iterable[str] = ("bf16", "fp8")) -> list[Stage]:
    """All of them, in their order: layers are made of kernels, which are fitted before."""

    def at(path: str, table: Bounds) -> Bounds:
        return {f"{path}.{name}": bounds for name, bounds in table.items()}

    operators: Bounds = {}
    for op, variants in _OPERATORS.items():
        for i, (_fixed, free) in enumerate(variants):
            operators |= at(f"operators.{op}.{i}", free)
    pageable: Bounds = {
        "start_us": (12, 1, 30), "rate_GBps": (20, 2, 400), "small_GBps": (15, 1, 400)
    }  # fmt: skip
    return [
        *(Stage(("gemm_bf16", "gemm_fp8"), at(f"gemm.{one}", _GEMM), one) for one in dtypes),
        Stage(
            ("attention",),
            at("attention.forward", _ATTENTION)
            | at("attention.backward", _ATTENTION | {"floor_us": (90, 0, 200)})
            | at("decode", {"memory": (0.9, 0.4, 1), "start_us": (9, 1, 20),
                            "write_back": (0.35, 0, 1)}),
        ),
        Stage(
            ("memory_bound",),
            at("memory_bound", {"memory": (0.9, 0.5, 1), "start_us": (4.7, 1, 10),
                                "overlap": (2, 1, 8)}) | operators,
        ),
        Stage(
            ("optimizer",),
            at("optimizer", {"memory": (0.78, 0.3, 1), "start_us": (5, 1, 20),
                             "floor_us": (43, 0, 100)}),
        ),
        Stage(
            ("memcpy",),
            at("copies.pinned", _COPY)
            | at("copies.h2d-pageable", pageable) | at("copies.d2h-pageable", pageable),
        ),
        Stage(
            ("decoder_layers", "serving_layers", "train_step"),
            at("host", {"graph_us": (2, 0, 10), "stream_us": (1.5, 0, 10),
                        "launch_us": (30, 0, 60), "backward": (2, 0.5, 6)}),
        ),
    ]  # fmt: skip


def start_of(table: Sequence[Stage]) -> Spec:
    """Parameters to begin with where no accelerator is known, as in a profile's file."""
    zero: Spec = {}
    for stage in table:
        for path, (start, _low, _high) in stage.bounds.items():
            _put(zero, path, start)
    for op, variants in _OPERATORS.items():
        for i, (fixed, _free) in enumerate(variants):
            zero["operators"].setdefault(op, {}).setdefault(str(i), {}).update(fixed)
    zero["operators"] = {op: list(found.values()) for op, found in zero["operators"].items()}
    zero["gemm"]["fp16"] = dict(zero["gemm"]["bf16"])
    return {"to": "", **zero}


def _put(tree: Any, path: str, number: float) -> None:
    *way, last = path.split(".")
    for name in way:
        tree = tree[int(name)] if isinstance(tree, list) else tree.setdefault(name, {})
    tree[last] = number


def parameter(tree: Any, path: str) -> float | None:
    """The value at a path of parameters; None where there is none."""
    for name in path.split("."):
        if isinstance(tree, list):
            tree = tree[int(name)] if int(name) < len(tree) else None
        else:
            tree = (tree or {}).get(name)
        if tree is None:
            return None
    return float(tree)


class Measured(NamedTuple):
    """A measured time.

    Attributes
    ----------
    kind, name
        Its class, and what that is called.
    values, column
        The row, and which of its times.
    us
        The time.
    shape
        The row without its times, as text.
    """

    kind: Class
    name: str
    values: Values
    column: str
    us: float
    shape: str

    @property
    def dtype(self) -> str:
        """Precision of a matrix product; else ""."""
        return str(self.values.get("dtype", "")).partition("_")[0]

    @property
    def order(self) -> int:
        """Of shapes, like a random one, but always the same."""
        return zlib.crc32(self.shape.encode())


def measured_rows(file: Path, name: str) -> list[Measured]:
    """All times of a file of a class.

    Raises
    ------
    InputError
        It cannot be read, or lacks a column or a value.
    """
    kind = CLASSES[name]
    found = []
    for row, values in read_values(file, kind):
        shape = ",".join(str(item) for item in values.values())
        found += [
            Measured(kind, name, values, column, value(row, column, file), shape)
            for column in kind.measured
            if row.get(column)
        ]
    return found


def logs_of(card: Hardware, fitted: Spec, rows: Iterable[Measured]) -> NDArray[np.float64]:
    """ln(predicted / measured) of each."""
    kernels = Kernels(card, msgspec.convert(fitted, Fitted))
    return np.array([
        math.log(row.kind.predict(kernels, row.values, row.column) / row.us) for row in rows
    ])  # fmt: skip


def least(
    card: Hardware, rows: Sequence[Measured], bounds: Bounds, fitted: Spec, prior: float
) -> None:
    """Fit the parameters at some paths, in place.

    Parameters
    ----------
    prior
        What moving a parameter by its own size costs.

    Raises
    ------
    MissingDependency
        SciPy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MissingDependency(
            "calibration needs SciPy: pip install 'astra-bridge[calibrate]'"
        ) from None
    paths = list(bounds)
    low, high = (np.array([bounds[path][i] for path in paths], float) for i in (1, 2))
    known = [parameter(fitted, path) for path in paths]
    begin = [
        bounds[path][0] if one is None else one for path, one in zip(paths, known, strict=True)
    ]
    start = np.clip(begin, low + 1e-9, high - 1e-9)
    scale = np.maximum(np.abs(start), 0.02 * (high - low))

    def residuals(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        for path, number in zip(paths, numbers, strict=True):
            _put(fitted, path, float(number))
        return np.append(logs_of(card, fitted, rows), (numbers - start) / scale * prior)

    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.05,
                          x_scale=scale, diff_step=1e-3, ftol=1e-4, max_nfev=25)  # fmt: skip
    for path, number in zip(paths, found.x, strict=True):
        _put(fitted, path, float(f"{number:.4g}"))


class Quality(NamedTuple):
    """How far a class of kernels is off.

    Attributes
    ----------
    name : str
        Of the class.
    used, held_out : int
        Rows that parameters were fitted to, and others.
    before, after : float or None
        ``exp(mean |ln(predicted / measured)|) - 1`` of the others, by the parameters that stand in
        and by the fitted ones; None where there are no others.
    fit_before, fit_after : float
        The same of those that were used.
    """

    name: str
    used: int
    held_out: int
    before: float | None
    after: float | None
    fit_before: float
    fit_after: float


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit gave.

    Attributes
    ----------
    card : Hardware
        Whose datasheet was taken, and whose parameters were the prior.
    fitted : dict
        The parameters, as in a profile's file.
    qualities : list of Quality
        By class.
    rows : list of dict
        Each time: ``class``, ``shape``, ``time``, ``used``, ``measured_us``, ``before_us`` and
        ``after_us``.
    """

    card: Hardware
    fitted: Spec
    qualities: list[Quality]
    rows: list[dict[str, Any]]

    def save(self, file: str | Path) -> None:
        """Write a profile, whose name is that of the file.

        Raises
        ------
        InputError
            The file cannot be written, or does not end in ``.json``.
        """
        place = Path(file)
        if place.suffix != ".json":
            raise InputError("a profile ends in .json", file=place)
        card = self.card
        content = {
            "name": place.stem,
            "summary": card.summary,
            "datasheet": msgspec.to_builtins(card.datasheet),
            "fitted": self.fitted,
            "nccl": card.own_nccl and msgspec.to_builtins(card.own_nccl),
            "nccl_as": card.nccl_as,
        }
        content = {key: one for key, one in content.items() if one is not None}
        write_file(place, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def fit_hardware(files: Sequence[str | Path], card: str | Path | Hardware | None = None) -> Fit:
    """Fit a profile's parameters to measured kernels.

    One of five shapes of each class is not used but held out, to tell how good the fit is.  Classes
    of which there are no rows keep the parameters that stand in.

    Parameters
    ----------
    files
        CSV files of the classes of `CLASSES`, or folders of them.  The class is that of the file's
        name (``h100_memcpy.csv``), else the one that has the columns.
    card
        The accelerator: a name, a profile's path, or an object.  None is that of the first file's
        name.

    Raises
    ------
    InputError
        A file cannot be read or is of no class, or the accelerator has no parameters to begin with.
    MissingDependency
        SciPy is not installed.

    Examples
    --------
    >>> from astra_bridge.validation.table import SHIPPED
    >>> found = fit_hardware([SHIPPED / "gpu/h200_optimizer.csv"], "b200")
    >>> found.qualities[0].fit_after < found.qualities[0].fit_before
    True
    """
    places = [one for given in files for one in _files(Path(given))]
    if not places:
        raise InputError("there are no CSV files", key="kernels")
    prefixes = dict.fromkeys(file.stem.partition("_")[0] for file in places)
    if card is None:
        if len(prefixes) > 1:
            raise InputError(
                f"files of several accelerators: {show(', '.join(prefixes))}; say which one",
                key="--hardware",
            )
        card = hardware_of(places[0].stem.partition("_")[0], places[0])
    one = card if isinstance(card, Hardware) else hardware(card)
    rows = [row for file in places for row in measured_rows(file, class_of(file))]
    if not rows:
        raise InputError("no rows", file=places[0])
    prior = _plain(one.fitted)
    table = _for_rows(rows, prior, Kernels(one))
    fitted = _plain(prior)
    used = _used(rows)
    for stage in table:
        own = [row for row, use in zip(rows, used, strict=True) if use and stage.covers(row)]
        if own:
            least(one, own, stage.bounds, fitted, PRIOR)
    qualities, each = _judged(one, prior, fitted, rows, used)
    fitted["to"] = _said(one, qualities, places)
    return Fit(one, fitted, qualities, each)


def _plain(parameters: Any) -> Spec:
    """As in a profile's file; a copy."""
    found: Spec = msgspec.json.decode(msgspec.json.encode(parameters))
    return found


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("*.csv")) if place.is_dir() else [place]


def class_of(file: Path) -> str:
    """The class of a file: by its name, else by its columns.

    Raises
    ------
    InputError
        It is of none.
    """
    _, _, name = file.stem.partition("_")
    if name in CLASSES:
        return name
    header = set(next(csv.reader(read_text(file).splitlines()), []))
    fits = {
        name: len(kind.columns)
        for name, kind in CLASSES.items()
        if {*kind.texts, *kind.columns, kind.measured[0]} <= header
    }
    if not fits:
        columns = "; ".join(
            f"{name}: {', '.join((*kind.texts, *kind.columns, kind.measured[0]))}"
            for name, kind in CLASSES.items()
        )
        raise InputError(
            f"is of no class of measurements: it has the columns {show(', '.join(sorted(header)))};"
            f" a class needs {columns}",
            file=file,
        )
    return max(fits, key=lambda name: fits[name])


def _least_bytes(row: Measured) -> float:
    return float(row.values["min_bytes"])


def _element_bytes(row: Measured) -> float:
    """Bytes of one pass over bf16 elements."""
    return 2 * float(row.values["rows"]) * float(row.values["cols"])


def _for_rows(rows: Sequence[Measured], prior: Spec, kernels: Kernels) -> list[Stage]:
    """Stages for the precisions and operators that there are, with a prior of each."""
    dtypes = dict.fromkeys(row.dtype for row in rows if row.dtype)
    for dtype in dtypes:
        prior["gemm"].setdefault(dtype, dict(prior["gemm"]["bf16"]))
    more: Bounds = {}
    own: dict[str, list[Measured]] = {}
    for row in rows:
        if row.name == "memory_bound" and row.values["op"] not in prior["operators"]:
            own.setdefault(str(row.values["op"]), []).append(row)
    for op, some in own.items():
        # The bandwidth is not theirs alone: they begin with as many passes as their times say.
        least_passes = float(np.median([_least_bytes(row) / _element_bytes(row) for row in some]))
        ratio = float(np.median([row.us / CLASSES["memory_bound"].predict(kernels, row.values, "us")
                                 for row in some]))  # fmt: skip
        passes = least_passes * min(max(ratio, 0.8), 4.0)
        prior["operators"][op] = [{"passes": passes, "element_ps": 0.0}]
        more[f"operators.{op}.0.passes"] = (passes, 0.5 * passes, 2 * passes)
        more[f"operators.{op}.0.element_ps"] = (0, 0, 20)
    return [
        stage._replace(bounds=stage.bounds | more) if "memory_bound" in stage.classes else stage
        for stage in stages(dtypes)
    ]


def _used(rows: Sequence[Measured]) -> list[bool]:
    """Whether parameters are fitted to a row: not to one of five shapes of its class."""
    held = set()
    for name in {row.name for row in rows}:
        shapes = sorted({(row.order, row.shape) for row in rows if row.name == name})
        if len(shapes) > 1:
            held |= {(name, shape) for _, shape in shapes[1::_EACH]}
    return [(row.name, row.shape) not in held for row in rows]


def _judged(
    card: Hardware, prior: Spec, fitted: Spec, rows: Sequence[Measured], used: Sequence[bool]
) -> tuple[list[Quality], list[dict[str, Any]]]:
    runs = [np.exp(logs_of(card, parameters, rows)) for parameters in (prior, fitted)]
    each = [
        {"class": row.name, "shape": row.shape, "time": row.column, "used": use,
         "measured_us": row.us, "before_us": float(before) * row.us,
         "after_us": float(after) * row.us}
        for row, use, before, after in zip(rows, used, *runs, strict=True)
    ]  # fmt: skip
    qualities = []
    for name in dict.fromkeys(row.name for row in rows):

        def errors(use: bool, name: str = name) -> list[float | None]:
            at = [i for i, one in enumerate(each) if one["class"] == name and one["used"] == use]
            return [geomean(run[at].tolist()) if at else None for run in runs]

        own = [one["used"] for one in each if one["class"] == name]
        before, after = errors(False)
        fit_before, fit_after = errors(True)
        assert fit_before is not None
        assert fit_after is not None
        qualities.append(
            Quality(name, sum(own), len(own) - sum(own), before, after, fit_before, fit_after)
        )
    return qualities, each


def _said(card: Hardware, qualities: Sequence[Quality], files: Sequence[Path]) -> str:
    """What the parameters were fitted to, in words."""
    parts = []
    for one in qualities:
        others = "" if one.after is None or one.before is None else (
            f"; {one.after:.1%} off on {one.held_out} others, {one.before:.1%} before"
        )  # fmt: skip
        parts.append(f"{one.name} ({one.used} rows{others})")
    names = ", ".join(file.name for file in files)
    return f"{', '.join(parts)} of {names}; all else as {card.fitted_as or card.name}"
