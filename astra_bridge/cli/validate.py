# SPDX-License-Identifier: MIT
"""``astra-bridge validate``: the product beside measurements, with the error printed."""

from __future__ import annotations

import logging
from pathlib import Path

from astra_bridge.arguments import path
from astra_bridge.cli.command import Argument, Command, one_of
from astra_bridge.cli.summary import text_table
from astra_bridge.files import new_file, new_folder, write_file
from astra_bridge.text import one_line
from astra_bridge.validation.page import page, percent, shape_of
from astra_bridge.validation.report import SETS, encoded, validate

__all__ = ["COMMAND"]


def _validate(
    set: str,  # noqa: A002
    data: Path | None,
    hardware: str | None,
    json: Path | None,
    output: Path | None,
    each: bool,
) -> int:
    # Networks warn of links that are full, which is no news of a measurement.
    logging.getLogger("astra_bridge").addHandler(logging.NullHandler())
    report = validate(set, data, hardware)
    if each:
        print(text_table(
            ["class", "row", "measured [us]", "predicted", "error", "baseline", "fitted"],
            [[row.kind, one_line(shape_of(row), 60), f"{row.measured_us:,.1f}",
              f"{row.predicted_us:,.1f}", f"{row.error:+.1%}",
              f"{row.baseline_us / row.measured_us - 1:+.1%}", "yes" if row.fitted else "no"]
             for row in report.rows],
        ))  # fmt: skip
        print()
    if report.summaries:
        print(text_table(
            ["set", "class", "rows", "fitted", "error", "worst", "baseline"],
            [[one.set, one_line(one.kind), str(one.rows), str(one.fitted),
              percent(one.error_geomean), percent(one.error_worst), percent(one.baseline_geomean)]
             for one in report.summaries],
        ))  # fmt: skip
    for note in report.notes:
        print(one_line(note))
    if json is not None:
        write_file(json, encoded(report))
    if output is not None:
        write_file(output / "validation.md", page(report).encode())
        write_file(output / "validation.json", encoded(report))
        print(f"wrote {one_line(str(output / 'validation.md'))}")
    return 0 if report.rows else 1


COMMAND = Command(
    "Predict measurements of real hardware; print the error, and that of naive models.",
    {
        "arguments": (
            Argument("[SET]", "", "What to predict.", one_of("all", *SETS), "all"),
        ),
        "options": (
            Argument("--data", "DIR", "Measurements: a folder with gpu, nccl, ...", path,
                     otherwise="those of the package"),
            Argument("--hardware", "NAME", "Of the set gpu: an accelerator, or its profile.",
                     otherwise="by the names of files"),
            Argument("--each", "", "Print every row."),
            Argument("--json", "FILE", "Write classes and rows there.", new_file),
            Argument("--output", "DIR", "Write validation.md and validation.json there.",
                     new_folder),
        ),
    },
    _validate,
    "validate gpu --json errors.json",
    "error: exp(mean |ln(predicted / measured)|) - 1; fitted: rows that parameters were\n"
    "fitted to. Exit code 1 if there is nothing to predict.\n\n"
    "sets: all, " + ", ".join(SETS),
)  # fmt: skip
