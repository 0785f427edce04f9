# SPDX-License-Identifier: MIT
"""``astra-bridge sweep``: many experiments that differ in some values, each run once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge.arguments import whole_text
from astra_bridge.cli.command import Argument, Command
from astra_bridge.cli.summary import text_table
from astra_bridge.cli.terminal import say
from astra_bridge.errors import InputError
from astra_bridge.files import new_folder
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.sweeping import Reached, Sweep

__all__ = ["COMMAND"]

_MOST_LINES = 20
_TERMINAL_S, _PLAIN_S = 1.0, 10.0

_ARGUMENTS = {
    "sweep": (
        Argument("SPEC", "", "What is varied and how, as a .yaml file (docs/sweeps.md)."),
        Argument("--output", "FOLDER", "Tables, plot and what is stored of each point; a sweep "
                 "that was stopped goes on from there.", new_folder, required=True),
        Argument("--workers", "COUNT", "Processes that run points on this machine.",
                 whole_text(1, 10_000), otherwise="1"),
        Argument("--dask", "ADDRESS", "Scheduler of a Dask cluster, whose workers run the points: "
                 "tcp://host:8786.", otherwise="the points run on this machine"),
        Argument("--retry-failed", "", "Run points again that have failed.", default=False),
    ),
}  # fmt: skip


def _run(spec: str, output: Path, workers: int | None, dask: str | None, retry_failed: bool) -> int:
    if dask is not None and workers is not None:
        raise InputError("is for points on this machine; leave it or --dask out", key="--workers")
    from astra_bridge.sweeping import sweep

    report = _Report()
    done = sweep(
        Path(spec), output, workers=workers or 1, dask=dask, retry_failed=retry_failed,
        progress=report,
    )  # fmt: skip
    report.end()
    _print(done)
    failed = [row for row in done.rows if row["error"]]
    if failed:
        say("warning", f"{len(failed)} of {len(done.rows)} points failed; the first: "
            f"{one_line(failed[0]['error'], 500)}")  # fmt: skip
    return done.exit_code


class _Report:
    """A line on stderr now and then."""

    def __init__(self) -> None:
        self._every_s = _TERMINAL_S if sys.stderr.isatty() else _PLAIN_S
        self._last_s = float("-inf")
        self._reached: Reached | None = None

    def __call__(self, reached: Reached) -> None:
        self._reached = reached
        if time.monotonic() - self._last_s >= self._every_s and reached.done < reached.total:
            self._say(reached)

    def end(self) -> None:
        if self._reached is not None:
            self._say(self._reached)

    def _say(self, reached: Reached) -> None:
        self._last_s = time.monotonic()
        parts = [f"{reached.done} of {reached.total} points", f"{reached.stored} stored before"]
        parts += [f"{reached.failed} failed"] if reached.failed else []
        if reached.left_s is not None and reached.done < reached.total:
            parts.append(f"about {_duration(reached.left_s)} left")
        say("sweep", ", ".join(parts))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes \
        else f"{rest} s"  # fmt: skip


def _print(done: Sweep) -> None:
    """The best points on stdout, and the files."""
    names = [name for name in done.objectives if name not in done.varied]
    header = [*(one_line(path, 40) for path in done.varied), "backend", *names]
    header = list(dict.fromkeys(header))
    rows = done.front
    if rows:
        lines = [
            [one_line(str(row[path]), 30) for path in done.varied]
            + ([] if "backend" in done.varied else [one_line(row["backend"], 40)])
            + [_number(row[name]) for name in names]
            for row in rows[:_MOST_LINES]
        ]
        print(text_table(header, lines))
        more = f", of {len(rows)} the first {_MOST_LINES}" if len(rows) > _MOST_LINES else ""
        what = "Pareto front" if len(done.objectives) > 1 else "Best"
        print(f"{what} of {len(done.rows)} points{more}.")
    print("\nFiles: " + ", ".join(one_line(str(path), 200) for path in done.files))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


COMMAND = Command(
    "Run many experiments that differ in some values, each once; find the best.",
    _ARGUMENTS,
    _run,
    "sweep sweep.yaml --workers 2 --output out",
    "Each point is stored as it ends: after an interruption, the same command goes on.\n"
    "A point that fails is a row with its error; the exit code is 0 unless all fail.",
)
