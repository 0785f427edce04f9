# SPDX-License-Identifier: MIT
"""``astra-bridge run``: one simulation, with ASTRA-sim's flags and ASTRA-sim's result lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge.arguments import number_text, whole_text
from astra_bridge.cli.command import Argument, Command, key_value, one_of
from astra_bridge.cli.terminal import say
from astra_bridge.errors import InputError
from astra_bridge.files import new_file, new_folder
from astra_bridge.semantics import Semantics
from astra_bridge.text import one_line, show

if TYPE_CHECKING:
    from astra_bridge.results import Result
    from astra_bridge.simulation import Experiment
    from astra_bridge.simulation.experiment import InsideName

__all__ = ["ARGUMENTS", "COMMAND", "experiment_of"]


def _file(text: str, name: str) -> str:  # noqa: ARG001 - a check
    if not text.endswith((".yaml", ".yml")):
        raise InputError(f"unexpected argument {show(text)}; an experiment is a .yaml file")
    return text


def _semantics(text: str, name: str) -> str:
    return str(Semantics.of(text, name))


def _ranks(text: str, name: str) -> str | list[int]:
    if text in ("all", "kinds"):
        return text
    ranks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if match is None:
            raise InputError(
                f"{show(text)} is not allowed; allowed: all, kinds, or ranks such as 0-7,64",
                key=name,
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first > _MOST_RANKS:
            raise InputError(f"{show(text)} names more than {_MOST_RANKS} ranks", key=name)
        ranks += range(first, last + 1)
    return ranks


_MOST_RANKS = 100_000
_COUNT = whole_text(1, 999_999_999)
_NUMBER = number_text(0, 1e12)

# What has a field gets no default here: that of Experiment counts, and what a file says before it.
ARGUMENTS = {
    "experiment": (
        Argument("[EXPERIMENT]", "", "Experiment as a .yaml file (docs/cli.md); flags that are "
                 "given count more.", _file),
        Argument("--set", "PATH=VALUE", "Change one value of an input: network.bandwidth[0]=100.",
                 repeated=True),
        Argument("--jobs", "FILE", "YAML of several workloads on one network, in place of "
                 "--workload-configuration: a list of {workload, ranks, start, name, ...}.",
                 field="jobs"),
        Argument("--faults", "FILE", "YAML of links and ranks that change meanwhile: a list of "
                 "{link, at, bandwidth} and {rank, at, slowdown}.", field="faults"),
    ),
    "ASTRA-sim's flags": (
        Argument("--workload-configuration", "PREFIX",
                 "Traces PREFIX.0.et, PREFIX.1.et, ...; required without EXPERIMENT or --jobs.",
                 field="workload"),
        Argument("--system-configuration", "FILE", "System JSON; required without EXPERIMENT.",
                 field="system"),
        Argument("--network-configuration", "FILE", "Network file of the backend (YAML; ns-3 takes "
                 "its config.txt); required without EXPERIMENT.", field="network"),
        Argument("--remote-memory-configuration", "FILE",
                 "Remote-memory JSON.", otherwise="there is no remote memory",
                 field="remote_memory"),
        Argument("--comm-group-configuration", "FILE", 'Communicator-group JSON; "empty" is none.',
                 otherwise="empty", field="comm_groups"),
        Argument("--logical-topology-configuration", "FILE",
                 'JSON {"logical-dims": ["8", "2"]} (ns-3).', field="logical_topology"),
        Argument("--num-queues-per-dim", "COUNT", "Queues per network dimension.", _COUNT,
                 otherwise="1", field="num_queues_per_dim"),
        Argument("--injection-scale", "FACTOR", "Factor on endpoint-delay.", _NUMBER,
                 otherwise="1", field="injection_scale"),
        Argument("--comm-scale", "FACTOR", "Accepted without effect, as in ASTRA-sim.", _NUMBER,
                 otherwise="1", field="comm_scale"),
        Argument("--compute-scale", "FACTOR", "Accepted without effect, as in ASTRA-sim.", _NUMBER,
                 otherwise="1", field="compute_scale"),
        Argument("--rendezvous-protocol", "", "Receivers ask senders before data flows.",
                 field="rendezvous_protocol"),
        Argument("--logging-folder", "FOLDER", "Write log.log and err.log there.", new_folder),
        Argument("--logging-configuration", "FILE",
                 "Accepted without effect (spdlog settings of ASTRA-sim).", otherwise="empty"),
    ),
    "simulation": (
        Argument("--backend", "NAME", "Network simulator: a name that `astra-bridge doctor` lists, "
                 "the path of a shared library, or the address of a server.",
                 otherwise="analytical-aware", field="backend"),
        Argument("--network-option", "KEY=VALUE", "For the backend.", repeated=True),
        Argument("--physical-topology", "FILE", "Topology file of a packet-level backend.",
                 field="physical_topology"),
        Argument("--engine", "auto|native|python", "auto takes native where it was built.",
                 one_of("auto", "native", "python"), default="auto"),
        Argument("--semantics", "NAME", "astra-sim gives ASTRA-sim's numbers, corrected mends its "
                 "quirks; ,+NAME adds one of them and ,-NAME takes one away (docs/semantics.md).",
                 _semantics, otherwise="astra-sim", field="semantics"),
        Argument("--fold", "auto|off", "auto lets one rank run for all that are alike, where that "
                 "gives the same numbers (docs/folding.md).", one_of("auto", "off"),
                 otherwise="auto", field="fold"),
        Argument("--wavefront", "auto|off", "auto evaluates rings as arrays instead of message by "
                 "message, where that gives the same numbers (docs/wavefronts.md).",
                 one_of("auto", "off"), otherwise="auto", field="wavefront"),
        Argument("--threads", "COUNT", "For wavefronts; the numbers are the same with any.",
                 whole_text(1, 1024), default=1),
        Argument("--trace-format", "NAME", "Format of the traces, of those that `astra-bridge "
                 "doctor` lists.", otherwise="it is found out", field="trace_format"),
    ),
    "long runs": (
        Argument("--checkpoint", "FILE", "Write the state there now and then, if the backend can.",
                 new_file),
        Argument("--checkpoint-interval", "SECONDS", "Real time between two checkpoints.", _NUMBER,
                 default=60.0),
        Argument("--resume", "FILE", "Go on from this checkpoint of the same experiment."),
        Argument("--no-progress-timeout", "SECONDS", "How long a backend may go without progress "
                 "before it is ended; 0 is without limit.", _NUMBER, default=300.0),
        Argument("--in-process", "", "Run a backend that is not known to be safe in this process; "
                 "if it crashes or hangs, so does the command.", default=False),
    ),
    "output": (
        Argument("--output", "FOLDER", "Write tables, timeline, plot and log there.",
                 new_folder),
        Argument("--timeline-ranks", "all|kinds|RANKS", "Who stands in the timeline: 0-7,64.",
                 _ranks, otherwise="all, or of too many one of each kind"),
        Argument("--explain", "", "Keep every message, and write what would make the run faster "
                 "(docs/report.md).", default=False),
        Argument("--json", "FILE", "Write the result as JSON there.", new_file),
        Argument("--log-lines", "all|summary", "ASTRA-sim's lines for all ranks, or only the "
                 "tables behind them.", one_of("all", "summary"), default="all"),
        Argument("--quiet", "", "Print nothing but warnings and errors.", default=False),
    ),
}  # fmt: skip

_ROWS = [row for rows in ARGUMENTS.values() for row in rows]
_LINES_AT_ONCE = 20_000
_NEEDED = ("workload", "system", "network")


def _run(**values: Any) -> int:
    experiment = experiment_of(values)
    said = [*experiment.system_config.warnings, *experiment.memory_config.warnings]
    if values["logging_configuration"] not in (None, "empty"):
        said.append("--logging-configuration: ignored: astra-bridge does not use spdlog")
    _warn(said)
    reason = experiment.unexplained() if values["explain"] else None
    if reason is not None:
        say(
            "warning",
            f"--explain: what would make the run faster is not known: {reason}; "
            "`astra-bridge explain --measure` runs it again with better links",
        )

    from astra_bridge.cli.progress import ProgressReport

    with ProgressReport(lambda: experiment.lower().program) as progress:
        result = experiment.run(
            engine=values["engine"],
            threads=values["threads"],
            progress=progress,
            in_process=values["in_process"],
            no_progress_timeout_s=values["no_progress_timeout"],
            checkpoint=values["checkpoint"],
            resume=values["resume"],
            inside=_inside(values),
            checkpoint_interval_s=values["checkpoint_interval"],
        )
    _warn(warning for warning in result.warnings if warning not in said)
    now = datetime.now()
    drawn = _drawn(result, values["timeline_ranks"])
    # Files first: whoever reads the lines may go early.
    peaks = _write(result, values, now, drawn)
    _print(result, values, now, peaks, drawn)
    return 0


COMMAND = Command(
    "Run a simulation.",
    ARGUMENTS,
    _run,
    "run --workload-configuration=out/ring \\\n"
    "    --system-configuration=system.json --network-configuration=ring.yml \\\n"
    "    --remote-memory-configuration=no_memory.json --json=result.json",
    "Exit codes: 0 done, 2 bad input, 3 the simulation cannot go on, 4 a network\n"
    "backend or a plug-in failed.",
)


def experiment_of(values: dict[str, Any]) -> Experiment:
    """The experiment that a file and flags describe; flags that are given count more.

    A command may have some of the rows only.
    """
    file = values["experiment"]
    arguments = {
        row.field: values[row.key] for row in _ROWS if row.field and values.get(row.key) is not None
    }
    missing = [
        row.name
        for row in _ROWS
        if row.field in _NEEDED
        and row.field not in arguments
        and not (row.field == "workload" and "jobs" in arguments)
    ]
    if missing and file is None:
        raise InputError(f"missing: {', '.join(missing)}; `--help` explains them")
    options = dict(key_value(text, "--network-option") for text in values["network_option"])

    from astra_bridge.simulation import Experiment

    for name in ("faults", "jobs"):
        if name in arguments:
            arguments[name] = _entries(name, arguments[name])
    if file is None:
        experiment = Experiment(**{"workload": None} | arguments, network_options=options)
    else:
        experiment = Experiment.from_file(file)
        if options:
            arguments["network_options"] = {**experiment.network_options, **options}
        experiment = experiment.replace(**arguments) if arguments else experiment
    if values["set"]:
        import yaml

        paths = dict(key_value(text, "--set") for text in values["set"])
        experiment = experiment.replace({path: yaml.safe_load(v) for path, v in paths.items()})
    return experiment


def _entries(name: str, file: str) -> Any:
    from astra_bridge.inputs.common import load_yaml
    from astra_bridge.simulation.jobs import read_faults, read_jobs

    read = read_faults if name == "faults" else read_jobs
    return read(load_yaml(file), file=Path(file), key=name)


def _inside(values: dict[str, Any]) -> InsideName:
    """What to keep of the inside of collectives: for the explanation, or the timeline."""
    if values["explain"]:
        if values["output"] is None:
            raise InputError("needs --output, where it is written", key="--explain")
        return "messages"
    return "nothing" if values["output"] is None or _has_checkpoints(values) else "chunks"


def _has_checkpoints(values: dict[str, Any]) -> bool:
    """Whether it is saved, or goes on: then nothing of the inside of collectives is kept."""
    return values["checkpoint"] is not None or values["resume"] is not None


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say("warning", warning)


def _write(
    result: Result, values: dict[str, Any], now: datetime, drawn: list[int]
) -> list[tuple[int, str]]:
    """Write all files that were asked for; return rank and peak memory where they are tracked."""
    output: Path | None = values["output"]
    folder = values["logging_folder"] or (output and output / "log")
    tracked = result.system.enabled("track-local-mem", result.semantics)
    if not (tracked or values["json"] or output or folder):
        return []
    from astra_bridge.files import NewFiles
    from astra_bridge.results.files import save_local_memory, save_log, write_json

    with NewFiles() as files:
        peaks = list(save_local_memory(files, result, output or Path())) if tracked else []
        if values["json"] is not None:
            write_json(files, values["json"], result.to_dict())
        if output is not None:
            result.write(files, output, drawn if result.has_nodes else None)
        if folder is not None:
            save_log(files, result, result.statistics, Path(folder), now, result.warnings)
    return peaks


def _drawn(result: Result, given: str | list[int] | None) -> list[int]:
    """Who stands in the timeline."""
    if isinstance(given, list):
        return sorted(set(given))
    if not result.has_nodes or given == "all":
        return list(range(result.rank_count))
    ranks = result.timeline_ranks() if given is None else result.timeline_ranks(most_nodes=0)
    return [int(rank) for rank in ranks]


def _print(
    result: Result,
    values: dict[str, Any],
    now: datetime,
    peaks: list[tuple[int, str]],
    drawn: list[int],
) -> None:
    """Result lines and table on stdout."""
    if values["quiet"]:
        return
    from astra_bridge.cli.summary import summary
    from astra_bridge.results.lines import frame, rank_lines

    if values["log_lines"] == "all":
        lines = rank_lines(result, result.statistics, now)
        while some := list(islice(lines, _LINES_AT_ONCE)):
            print("\n".join(some))
        for rank, peak in peaks:
            print(frame("workload", "info", f"sys[{rank}] peak memory usage: {peak}", now))
        print()
    print(summary(result))
    if values["output"] is not None:
        output = one_line(str(values["output"]))
        print(f"\nFiles in {output}/; {_about_timeline(result, values, drawn)}")


def _about_timeline(result: Result, values: dict[str, Any], drawn: list[int]) -> str:
    """What opens the timeline, and what is not in it."""
    if not result.has_nodes:
        return "`astra-bridge report` makes a page of them."
    said = "timeline.pftrace opens in ui.perfetto.dev, `astra-bridge report` makes a page of them."
    if len(drawn) < result.rank_count:
        said += f" It has {len(drawn)} of {result.rank_count} ranks"
        said += ", one of each kind" if values["timeline_ranks"] in (None, "kinds") else ""
        said += "; --timeline-ranks chooses others."
    if _has_checkpoints(values):
        said += " The chunks of collectives are not kept with checkpoints."
    elif not result.draws_chunks(drawn):
        said += " The chunks of its collectives are too many to be drawn; those of fewer ranks are."
    return said
