# SPDX-License-Identifier: MIT
"""``astra-bridge explain``: where the time of a run went, and what would make it faster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_bridge.arguments import number_text
from astra_bridge.cli.command import Argument, Command, key_value
from astra_bridge.cli.run import ARGUMENTS, experiment_of
from astra_bridge.cli.summary import text_table
from astra_bridge.errors import InputError
from astra_bridge.text import one_line, show
from astra_bridge.units import time_text

if TYPE_CHECKING:
    from astra_bridge.results import Result, Table
    from astra_bridge.simulation import Experiment
    from astra_bridge.simulation.experiment import InsideName

__all__ = ["COMMAND"]

_MOST_ROWS = 15
_AT_EARLIEST = (
    "At the earliest: other paths are not looked at with more than 100,000 nodes, chunks and "
    "messages,\nnor where what ran does not follow from these alone. --measure runs it again with "
    "each."
)


def _explain(**values: Any) -> int:
    given = values["experiment"]
    folder = Path(given) if given is not None else None
    if folder is not None and folder.suffix not in (".yaml", ".yml"):
        for name in ("what_if", "better", "measure"):
            if values[name]:
                raise InputError(
                    "needs an experiment, which runs; a folder has what was asked before",
                    key=f"--{name.replace('_', '-')}",
                )
        return _folder(folder)
    from astra_bridge.cli.progress import ProgressReport

    experiment = experiment_of(values)

    def run(one: Experiment, inside: InsideName = "nothing") -> Result:
        with ProgressReport(lambda: one.lower().program) as progress:
            return one.run(engine=values["engine"], progress=progress, inside=inside)

    reason = experiment.unexplained()
    result = run(experiment, "nothing" if reason else "messages")
    finish_ps = int(result.finish_ps.max(initial=0))
    print(_path(result.critical_path, finish_ps))
    better, factors = values["better"] or 1.1, dict(_factors(values["what_if"]))
    ends: dict[str, int] = {}  # of what was asked for by --what-if
    if reason is None:
        with experiment.sensitivities(result) as known:
            print(f"\n{_sensitivities(known.table(better))}")
            if factors:
                again = known.replayed([factors])
                ends[""] = known.what_if(factors) if again is None else again[0]
    elif not values["measure"]:
        print(f"\nWhat would make it faster is not known: {reason}.\n{_instead(experiment)}")
    if values["measure"]:
        print(f"\n{_sensitivities(experiment.measured_sensitivities(result, better, run))}")
        if factors:
            ends["measured: "] = int(run(experiment.with_better_links(factors)).finish_ps.max())
    words = ", ".join(f"{one_line(name)} x {one:g}" for name, one in factors.items())
    if factors and not ends:
        raise InputError("is not known from this one run; with --measure it runs once more",
                         key="--what-if")  # fmt: skip
    for how, end_ps in ends.items():
        print(f"\n{how}{words}: {_change(end_ps, finish_ps)}")
    return 0


def _instead(experiment: Experiment) -> str:
    """What says it where one run does not."""
    kinds = experiment.prepared.link_kinds
    if kinds:
        return (
            f"--measure runs it {2 * len(kinds)} times more, once with each better bandwidth and "
            f"latency ({', '.join(map(one_line, kinds))})."
        )
    return (
        "Change a value of the network and run again: --set network.PATH=VALUE; several: "
        "`astra-bridge compare --vary network.PATH=v1,v2`."
    )


def _factors(given: list[str]) -> Iterator[tuple[str, float]]:
    for text in given:
        name, value = key_value(text, "--what-if")
        try:
            factor = float(value)
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            raise InputError(f"{show(value)} is no factor above 0", key="--what-if")
        yield name, factor


def _folder(folder: Path) -> int:
    from astra_bridge.report import read_run

    run = read_run(folder)
    path, known = run.table("critical_path"), run.table("sensitivities")
    if path is None:
        raise InputError("has no critical_path.csv", file=folder)
    print(_path(path, run.end_ps))
    if known is None:
        print("\n`astra-bridge run --explain` also writes what would make it faster.")
    else:
        print(f"\n{_sensitivities(known)}")
    return 0


def _path(path: Table, finish_ps: int) -> str:
    """What the critical path consists of."""
    took = path["end_ps"] - path["start_ps"]
    sums: dict[str, int] = {}
    for activity, what, time_ps in zip(
        path["activity"].tolist(), path["what"].tolist(), took.tolist(), strict=True
    ):
        name = f"{activity}: {what}" if what else activity
        sums[name] = sums.get(name, 0) + time_ps
    rows = [
        [one_line(name), time_text(sums[name]), f"{sums[name] / max(finish_ps, 1):.1%}"]
        for name in sorted(sums, key=lambda name: -sums[name])
    ]
    rows = [*rows[:_MOST_ROWS], ["all", time_text(finish_ps), "100.0%"]]
    return text_table(["on the critical path", "time", "of the finish"], rows)


def _change(end_ps: int, finish_ps: int) -> str:
    return f"{time_text(end_ps)} ({(end_ps - finish_ps) / max(finish_ps, 1):+.2%} of the step)"


def _sensitivities(table: Mapping[str, Any] | Table) -> str:
    """What would be sooner, a line each."""
    better = float(np.asarray(table["factor"])[0]) - 1 if len(table["what"]) else 0.1
    words = {
        "yes": "another path is longer then", "no": "", "measured": "measured",
        "unknown": "at the earliest",
    }  # fmt: skip
    rows = [
        [one_line(str(table["what"][at])),
         f"{float(table['change'][at]):+.2%} of the step", time_text(int(table["finish_ps"][at])),
         words.get(str(table["other_path"][at]), "")]
        for at in range(min(len(table["what"]), _MOST_ROWS))
    ]  # fmt: skip
    text = text_table([f"{better:.0%} better", "", "finish", ""], rows)
    return f"{text}\n{_AT_EARLIEST}" if "unknown" in table["other_path"] else text


COMMAND = Command(
    "Say where the time of a run went, and what would make it faster.",
    {
        "arguments": (
            Argument("[EXPERIMENT]", "", "Experiment (.yaml), which is run, or a folder that `run "
                     "--explain --output` wrote."),
            *ARGUMENTS["experiment"][1:],
        ),
        "what if": (
            Argument("--better", "FACTOR", "How many times better each thing is to be.",
                     number_text(1e-3, 1e6), otherwise="1.1"),
            Argument("--what-if", "NAME=FACTOR", "Several things at once, by the names that are "
                     "printed: 'bandwidth of dim0=2'.", repeated=True),
            Argument("--measure", "", "Also run once more with each better bandwidth and latency, "
                     "and say what that changed: on every backend whose links have kinds."),
        ),
        "ASTRA-sim's flags": ARGUMENTS["ASTRA-sim's flags"][:-2],
        "simulation": ARGUMENTS["simulation"],
    },
    _explain,
    "explain experiment.yaml --better=2",
    "A latency that is twice as good is half as long. Several at once:\n"
    "--what-if='bandwidth of dim0=2' --what-if='latency of dim0=1.5'.",
)  # fmt: skip
