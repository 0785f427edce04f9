# SPDX-License-Identifier: MIT
"""``astra-bridge run``: one simulation, with ASTRA-sim's flags and ASTRA-sim's result lines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge.cli.flags import FLAGS, help_text, key_value, parse_flags
from astra_bridge.cli.terminal import say
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.results import Result
    from astra_bridge.simulation import Experiment

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Run the command; return its exit code, or raise an ``AstraBridgeError``."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return 0
    values = parse_flags(arguments)
    experiment = _experiment(values)
    said = [*experiment.system_config.warnings, *experiment.memory_config.warnings]
    if values["logging-configuration"] != "empty":
        said.append("--logging-configuration: ignored: astra-bridge does not use spdlog")
    _warn(said)

    from astra_bridge.cli.progress import ProgressReport

    with ProgressReport() as progress:
        result = experiment.run(
            engine=values["engine"],
            progress=progress,
            in_process=values["in-process"],
            no_progress_timeout_s=values["no-progress-timeout"],
            checkpoint=values["checkpoint"],
            resume=values["resume"],
            checkpoint_interval_s=values["checkpoint-interval"],
        )
    _warn(warning for warning in result.warnings if warning not in said)
    now = datetime.now()
    # Files first: whoever reads the lines may go early.
    peaks = _write(result, values, now)
    _print(result, values, now, peaks)
    return 0


def _experiment(values: dict[str, Any]) -> Experiment:
    """The experiment that a file and flags describe; flags that are given count more."""
    from astra_bridge.simulation import Experiment

    options = dict(key_value(text, "--network-option") for text in values["network-option"])
    file, given = values["experiment"], values[""]
    arguments = {
        flag.field: values[flag.name]
        for flag in FLAGS.values()
        if flag.field and (file is None or flag.name in given)
    }
    for name in ("faults", "jobs"):
        if arguments.get(name):
            arguments[name] = _entries(name, arguments[name])
        else:
            arguments.pop(name, None)
    if options or file is None:
        arguments["network_options"] = options
    if file is not None:
        base = Experiment.from_file(file)
        changes = (
            arguments
            if not options
            else arguments | {"network_options": {**base.network_options, **options}}
        )
        experiment = base.replace(**changes) if changes else base
    else:
        experiment = Experiment(**arguments)
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


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say("warning", warning)


def _write(result: Result, values: dict[str, Any], now: datetime) -> list[tuple[int, str]]:
    """Write all files that were asked for; return rank and peak memory where they are tracked."""
    output = None if values["output"] is None else Path(values["output"])
    folder = values["logging-folder"] or (output and output / "log")
    tracked = result.system.enabled("track-local-mem", result.semantics)
    if not (tracked or values["json"] or output or folder):
        return []
    from astra_bridge.files import NewFiles
    from astra_bridge.results.files import save_local_memory, save_log, write_json

    with NewFiles() as files:
        peaks = list(save_local_memory(files, result, output or Path())) if tracked else []
        if values["json"] is not None:
            write_json(files, Path(values["json"]), result.to_dict())
        if output is not None:
            result.write(files, output)
        if folder is not None:
            save_log(files, result, result.statistics, Path(folder), now, result.warnings)
    return peaks


def _print(
    result: Result, values: dict[str, Any], now: datetime, peaks: list[tuple[int, str]]
) -> None:
    """Result lines and table on stdout."""
    from astra_bridge.cli.summary import summary
    from astra_bridge.results.lines import frame, rank_lines

    print("\n".join(rank_lines(result, result.statistics, now)))
    for rank, peak in peaks:
        print(frame("workload", "info", f"sys[{rank}] peak memory usage: {peak}", now))
    print(f"\n{summary(result)}")
    if values["output"] is not None:
        output = one_line(values["output"])
        print(f"\nFiles in {output}/; timeline.json opens in ui.perfetto.dev.")
