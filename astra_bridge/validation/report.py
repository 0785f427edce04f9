# SPDX-License-Identifier: MIT
"""What ``astra-bridge validate`` finds: sets of measurements, classes of a set, rows of a class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.validation.gpu import gpu_rows
from astra_bridge.validation.nccl import nccl_rows
from astra_bridge.validation.parity import parity_rows
from astra_bridge.validation.steps import steps_rows
from astra_bridge.validation.table import SHIPPED, Row, Summary, geomean, summarize

__all__ = ["SETS", "Report", "validate"]


class Report(NamedTuple):
    """Rows, their summaries, and what could not be judged.

    Attributes
    ----------
    rows
        All measurements.
    summaries
        By set and class, in the order of the sets; a set's last one, of class "all", is the whole.
    notes
        Sentences.
    """

    rows: list[Row]
    summaries: list[Summary]
    notes: list[str]

    def content(self) -> dict[str, Any]:
        """As ``--json`` writes it."""
        return {
            "sets": [
                {
                    "set": one.set,
                    "class": one.kind,
                    "rows": one.rows,
                    "rows_fitted": one.fitted,
                    "error_geomean": round(one.error_geomean, 6),
                    "error_worst": round(one.error_worst, 6),
                    "baseline_geomean": round(one.baseline_geomean, 6),
                    **self._without_far(one),
                }
                for one in self.summaries
            ],
            "rows": [
                {
                    "set": row.set,
                    "class": row.kind,
                    **row.what,
                    "measured_us": row.measured_us,
                    "predicted_us": round(row.predicted_us, 4),
                    "baseline_us": round(row.baseline_us, 4),
                    "error": round(row.error, 6),
                    "fitted": row.fitted,
                }
                for row in self.rows
            ],
            "notes": self.notes,
        }

    def _without_far(self, one: Summary) -> dict[str, Any]:
        """What a class would be without rows that are far off, where it has a few of them."""
        own = [row for row in self.rows if row.set == one.set and one.kind in row.classes]
        near = _near(own)
        if not near:
            return {}
        error = geomean(row.predicted_us / row.measured_us for row in near)
        return {
            "far_factor": _FAR,
            "rows_not_far": len(near),
            "error_geomean_not_far": round(error, 6),
        }


_FAR = 3.0
"""Factor beyond which a row is said to be off on its own."""


def _near(rows: list[Row]) -> list[Row]:
    """Rows but those that are far off; none where there are no such, or more than a few."""
    near = [row for row in rows if 1 / _FAR < row.predicted_us / row.measured_us < _FAR]
    return near if 0 < len(rows) - len(near) <= 0.1 * len(rows) else []


def _far(rows: list[Row]) -> list[str]:
    """Of classes with few rows that are far off: which, and the error of all others."""
    notes = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        near = _near(own)
        if near:
            every = geomean(row.predicted_us / row.measured_us for row in own)
            rest = geomean(row.predicted_us / row.measured_us for row in near)
            names = "; ".join(
                " ".join(item for item in row.what.values() if item)
                for row in own
                if row not in near
            )
            notes.append(
                f"{kind}: {100 * every:.1f} % on all {len(own)} rows, {100 * rest:.1f} % on the "
                f"{len(near)} that are not off by more than a factor of {_FAR:g}; off are: {names}"
            )
    return notes


def _gpu(data: Path) -> tuple[list[Row], list[str]]:
    rows = gpu_rows(data)
    # What one accelerator's parameters say of another one of its design.
    return rows + gpu_rows(data, stand_in="h100-sxm", only="h200"), _far(rows)


def _nccl(data: Path) -> tuple[list[Row], list[str]]:
    rows, notes = nccl_rows(data)
    return rows + nccl_rows(data, stand_in="h100-sxm", only="B200")[0], notes


SETS: dict[str, Callable[[Path], tuple[list[Row], list[str]]]] = {
    "gpu": _gpu,
    "nccl": _nccl,
    "steps": steps_rows,
    "parity": parity_rows,
}
"""Name -> rows and notes of a folder of measurements."""


def validate(
    what: str = "all", data: str | Path | None = None, card: str | Path | None = None
) -> Report:
    """Predict measurements.

    Parameters
    ----------
    what
        One of :data:`SETS`, or "all".
    data
        Folder of the layout of the package's own copy; None is that copy.
    card
        Of the set gpu: an accelerator, by name or by its profile's path, in place of the ones that
        the names of files mean.

    Raises
    ------
    InputError
        The folder is not there, has none of what is asked for, or a file of it is not understood.

    Examples
    --------
    >>> report = validate("gpu")
    >>> report.summaries[0].error_geomean < report.summaries[0].baseline_geomean
    True
    """
    folder = SHIPPED if data is None else Path(data)
    if not folder.is_dir():
        raise InputError("is no folder", file=folder, key="--data")
    if card is not None:
        if SETS.get(what) is not _gpu:
            raise InputError(f"is of the set gpu, not of {what}", key="--hardware")
        found = gpu_rows(folder, card=hardware(card, key="--hardware"))
        notes = ["what this profile was fitted to is not known here: no row counts as fitted"]
        return Report(found, _summaries(found), _far(found) + notes)
    rows: list[Row] = []
    notes = []
    for name, find in SETS.items():
        if what in (name, "all"):
            found, said = find(folder)
            rows += found
            notes += said
            if not found and not said:
                notes.append(f"{name}: {folder} has no measurements of it")
    return Report(rows, _summaries(rows), notes)


def _summaries(rows: list[Row]) -> list[Summary]:
    found = []
    for name in dict.fromkeys(row.set for row in rows):
        own = [row for row in rows if row.set == name]
        kinds = dict.fromkeys(kind for row in own for kind in row.classes)
        found += [summarize([row for row in own if kind in row.classes], kind) for kind in kinds]
        found.append(summarize(own, "all"))
    return found


def encoded(report: Report) -> bytes:
    """The content of ``--json``, one row per line."""
    content = report.content()
    parts = []
    for key, value in content.items():
        lines = ",\n  ".join(json.dumps(one) for one in value)
        parts.append(
            f" {json.dumps(key)}: [\n  {lines}\n ]" if value else f" {json.dumps(key)}: []"
        )
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()
