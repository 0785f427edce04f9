# SPDX-License-Identifier: MIT
"""``astra-bridge report``: a page about runs, to look at and to send to somebody."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from astra_bridge.cli.command import Argument, Command
from astra_bridge.errors import InputError
from astra_bridge.files import new_file, write_file
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.report import Run

__all__ = ["COMMAND"]


def _report(run: list[str], output: Path, title: str | None) -> int:
    if not run:
        raise InputError(
            "nothing to report: name a folder that `astra-bridge run --output` wrote, or an "
            "experiment (.yaml)"
        )
    from astra_bridge.report import page

    with ExitStack() as stack:
        text = page([_run_of(one, stack) for one in run], title or "")
    write_file(output, text.encode())
    print(f"wrote {one_line(str(output))} ({len(text) / 1e6:.1f} MB); it opens in any browser.")
    return 0


def _run_of(given: str, stack: ExitStack) -> Run:
    """The run in a folder, or that of an experiment, which runs now."""
    from astra_bridge.report import Run, read_run

    where = Path(given)
    if where.suffix not in (".yaml", ".yml"):
        return read_run(where)
    from astra_bridge.cli.progress import ProgressReport
    from astra_bridge.simulation import Experiment

    experiment = Experiment.from_file(given)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="astra-bridge-report-")))
    with ProgressReport(lambda: experiment.lower().program) as progress:
        experiment.run(progress=progress).save(folder)
    run = read_run(folder)
    return Run(one_line(where.stem, 60), run.content, folder)


COMMAND = Command(
    "Make a page about runs, to look at and to send.",
    {
        "arguments": (
            Argument("[RUN]", "", "Folder that `run --output` wrote, or an experiment (.yaml), "
                     "which is run; several stand side by side.", repeated=True),
        ),
        "options": (
            Argument("--output", "FILE", "The page.", new_file, Path("report.html"), short="-o"),
            Argument("--title", "TEXT", "Title of the page.", otherwise="from the names"),
        ),
    },
    _report,
    "report out -o report.html",
    "The page needs nothing but itself: no network, no other file. Needs the extra: pip install\n"
    "'astra-bridge[report]'.",
)  # fmt: skip
