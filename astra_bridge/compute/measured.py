# SPDX-License-Identifier: MIT
"""A table of measured kernels, with interpolation between them.

The time per unit of work (the product of a kernel's numbers) changes slowly with its shape, so that
is what is interpolated: the mean of the nearest rows of the same words, by the inverse square of
their distance in the logarithms of the shape (Shepard, "A two-dimensional interpolation function
for irregularly-spaced data", ACM 1968).  A row's own shape gives its own time.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.gpu.model import texts_of
from astra_bridge.compute.gpu.text import Kernel, kernels_of
from astra_bridge.compute.model import ComputeModel, ComputeNodes
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import read_text
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.text import show
from astra_bridge.units import PS_PER_US

__all__ = ["MODEL", "Table", "read_table"]

_NEAREST = 4
_FURTHEST = 16.0
"""Factor in one number beyond which the table says nothing."""

_Key = tuple[str, int, tuple[str, ...]]


class _Rows(NamedTuple):
    shape: NDArray[np.float64]  # logarithms, (rows, numbers)
    per_work: NDArray[np.float64]  # logarithms of us per unit of work


class Table:
    """Measured kernels.

    Parameters
    ----------
    rows
        Text of a kernel, and us.
    file
        For messages.

    Examples
    --------
    >>> table = Table([("gemm 512 512 512", 10.0), ("gemm 2048 512 512", 40.0)])
    >>> round(table.kernel_us("gemm 1024 512 512"), 6)
    20.0
    """

    def __init__(self, rows: list[tuple[str, float]], file: Path | None = None) -> None:
        self.file = file
        found: dict[_Key, list[tuple[list[float], float]]] = defaultdict(list)
        for text, us in rows:
            one = self._one(text)
            shape = [math.log(max(number, 1)) for number in one.numbers]
            found[_key(one)].append((shape, math.log(us) - sum(shape)))
        self._rows = {
            key: _Rows(np.array([shape for shape, _ in values]), np.array([us for _, us in values]))
            for key, values in found.items()
        }

    def _one(self, text: str) -> Kernel:
        found = kernels_of(text)
        if len(found) != 1 or found[0].times != 1:
            raise InputError(f"{show(text)} is not one kernel", file=self.file, key="kernel")
        return found[0]

    def kernel_us(self, text: str) -> float:
        """Time of the kernels of a text [us].

        Raises
        ------
        InputError
            The table has none like one of them.
        """
        return sum(one.times * self._us(one) for one in kernels_of(text))

    def _us(self, one: Kernel) -> float:
        rows = self._rows.get(_key(one))
        said = " ".join((one.word, *map(str, one.numbers), *one.words))
        if rows is None:
            known = ", ".join(sorted({" ".join((key[0], *key[2])) for key in self._rows}))
            raise InputError(f"no kernel like {show(said)}; it has {known}", file=self.file)
        shape = np.array([math.log(max(number, 1)) for number in one.numbers])
        away = np.abs(rows.shape - shape)
        distance = (away**2).sum(axis=1)
        nearest = np.argsort(distance, kind="stable")[:_NEAREST]
        if away[nearest[0]].max(initial=0.0) > math.log(_FURTHEST):
            raise InputError(
                f"no kernel near {show(said)}: the nearest is more than {_FURTHEST:.0f} times as "
                "large or small",
                file=self.file,
            )
        if distance[nearest[0]] == 0:
            per_work = rows.per_work[nearest[0]]
        else:
            weight = 1 / distance[nearest]
            per_work = (weight * rows.per_work[nearest]).sum() / weight.sum()
        return float(np.exp(per_work + shape.sum()))


def _key(one: Kernel) -> _Key:
    return one.word, len(one.numbers), one.words


def read_table(path: str | Path) -> Table:
    """Read a CSV file with the columns ``kernel`` and ``us``.

    Raises
    ------
    InputError
        The file cannot be read, or a line of it is not understood.
    """
    file = Path(path)
    rows = []
    reader = csv.DictReader(read_text(file).splitlines())
    if not {"kernel", "us"} <= set(reader.fieldnames or ()):
        raise InputError("needs the columns kernel and us", file=file)
    for row in reader:
        try:
            us = float(row["us"] or "")
        except ValueError:
            us = math.nan
        if not 0 < us < math.inf:
            said = f"{show(row['us'])} is not allowed; allowed: a number above 0"
            raise InputError(said, file=file, key=f"line {reader.line_num}: us")
        rows.append((row["kernel"] or "", us))
    try:
        return Table(rows, file)
    except InputError as error:
        raise InputError(error.reason, file=file, key=error.key) from None


def _duration_ps(nodes: ComputeNodes, system: SystemConfig) -> NDArray[np.float64]:
    if system.measured_kernels is None:
        raise InputError(
            "missing: a CSV file with the columns kernel and us",
            file=system.source,
            key="measured-kernels",
        )
    table = read_table(system.measured_kernels)
    known: dict[str, float] = {}
    found = np.zeros(len(nodes), np.float64)
    rows = zip(nodes.num_ops.tolist(), nodes.tensor_bytes.tolist(), texts_of(nodes), strict=True)
    for at, (ops, moved, text) in enumerate(rows):
        key = f"totals {ops} {moved}" if text is None else text
        if key not in known:
            known[key] = table.kernel_us(key)
        found[at] = known[key]
    return found * PS_PER_US


MODEL = ComputeModel("measured", "A table of measured kernels, with interpolation.", _duration_ps)
