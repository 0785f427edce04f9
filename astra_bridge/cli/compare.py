# SPDX-License-Identifier: MIT
"""``astra-bridge compare``: the same experiments on several backends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from astra_bridge.arguments import number_text
from astra_bridge.cli.command import Argument, Command, key_value
from astra_bridge.cli.run import ARGUMENTS, experiment_of
from astra_bridge.cli.summary import text_table
from astra_bridge.cli.terminal import say
from astra_bridge.errors import InputError
from astra_bridge.files import new_file, new_folder
from astra_bridge.text import one_line, show

if TYPE_CHECKING:
    from astra_bridge.comparison import Comparison, Step

__all__ = ["COMMAND", "Report", "options_of", "parse_vary", "rows_of"]

_EVERY_S = 10.0
_MOST_LINES = 8


def _names(text: str, name: str) -> list[str]:
    names = text.split(",")
    if "" in names:
        raise InputError(f"{show(text)} is not allowed; allowed: names such as a,b", key=name)
    return names


def rows_of(title: str, *without: str) -> list[Argument]:
    """Rows of `run` that say what runs."""
    return [row for row in ARGUMENTS[title] if row.name not in without]


_ARGUMENTS = {
    "comparison": (
        Argument("--backends", "NAMES", "Network simulators, such as analytical-aware,ns3.",
                 _names, required=True),
        Argument("--reference", "NAME", "The backend that errors are relative to; it runs too if "
                 "--backends does not name it.", otherwise="the one that takes most CPU time"),
        Argument("--vary", "PATH=VALUES", "Values of an input, such as "
                 "workload.size=64KiB,1MiB; of several, all combinations run.", repeated=True),
        Argument("--tolerance", "SHARE", "Two runs part where the end of a node differs by more.",
                 number_text(0, 1e9), default=0.05),
    ),
    "experiment": rows_of("experiment"),
    "ASTRA-sim's flags": rows_of("ASTRA-sim's flags", "--logging-folder",
                                 "--logging-configuration"),
    "simulation": [
        Argument("--network-option", "[BACKEND:]KEY=VALUE", "For all backends, or for one.",
                 repeated=True),
        *rows_of("simulation", "--backend", "--network-option"),
        *[row for row in ARGUMENTS["long runs"] if row.name == "--no-progress-timeout"],
    ],
    "output": (
        Argument("--json", "FILE", "Write the tables as JSON there.", new_file),
        Argument("--output", "FOLDER", "Write tables (CSV, Parquet) and plots there.",
                 new_folder),
    ),
}  # fmt: skip


def parse_vary(texts: list[str]) -> dict[str, list[Any]]:
    """The values of ``PATH=v1,v2,...``, each read as YAML."""
    import yaml

    found: dict[str, list[Any]] = {}
    for text in texts:
        path, values = key_value(text, "--vary")
        try:
            found[path] = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise InputError(
                f"{show(values)} is not allowed; allowed: values such as 1,2", key=f"--vary {path}"
            ) from None
    return found


def _run(**values: Any) -> int:
    from astra_bridge.comparison import compare

    common, options = options_of(
        values["network_option"], [*values["backends"], *filter(None, [values["reference"]])]
    )
    experiment = experiment_of(values | {"network_option": common})
    for warning in (*experiment.system_config.warnings, *experiment.memory_config.warnings):
        say("warning", warning)
    comparison = compare(
        experiment,
        values["backends"],
        reference=values["reference"],
        vary=parse_vary(values["vary"]),
        options=options,
        tolerance=values["tolerance"],
        engine=values["engine"],
        progress=Report(),
        no_progress_timeout_s=values["no_progress_timeout"],
    )
    _write(comparison, values)
    print("\n\n".join(_parts(comparison)))
    if values["output"] is not None:
        print(f"\nFiles in {one_line(str(values['output']))}/.")
    return _failed(comparison)


def options_of(texts: list[str], names: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Options for all backends, and those for one."""
    common: list[str] = []
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        key, value = key_value(text, "--network-option")
        backend, colon, own = key.partition(":")
        if not colon:
            common.append(text)
        elif backend in names:
            options.setdefault(backend, {})[own] = value
        else:
            raise InputError(
                f"{show(backend)} is not allowed; allowed: {', '.join(names)}",
                key="--network-option",
            )
    return common, options


class Report:
    """A line on stderr for each run that ends, and now and then of one that takes long."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, step: Step) -> None:
        now_s = time.monotonic()
        if step.run is not None and step.run.result is not None:
            result = step.run.result
            finish_ns = int(result.finish_ps.max(initial=0)) // 1000
            say(str(step), f"{finish_ns:,} ns, {result.cpu_s:.3g} s of CPU")
        elif step.run is not None:
            say(str(step), f"failed: {one_line(str(step.run.failure), 500)}")
        elif (
            step.reached is not None and step.reached.nodes_done and now_s - self._last_s > _EVERY_S
        ):
            share = step.reached.nodes_done / max(step.reached.nodes_total, 1)
            say(str(step), f"simulated {step.reached.now_ps / 1e9:,.3f} ms, {share:.1%} of nodes")
        else:
            return
        self._last_s = now_s


def _write(comparison: Comparison, values: dict[str, Any]) -> None:
    from astra_bridge.files import NewFiles
    from astra_bridge.results.files import write_json

    with NewFiles() as files:
        if values["json"] is not None:
            write_json(files, values["json"], comparison.to_dict())
        if values["output"] is not None:
            comparison.write(files, values["output"])


def _failed(comparison: Comparison) -> int:
    """Say what failed; the exit code is that of the first."""
    failures = comparison.failures
    if not failures:
        return 0
    say("error", f"{len(failures)} of {len(comparison.rows)} runs failed; the first: {failures[0]}")
    return failures[0].exit_code


def _parts(comparison: Comparison) -> list[str]:
    """What is printed, part by part."""
    parts = [_runs(comparison)]
    if comparison.reference is not None:
        name = one_line(comparison.reference)
        parts[0] += f"\nError: relative to {name}, {comparison.rule}."
        parts += [_groups(comparison), _kinds(comparison), _worst_collectives(comparison),
                  _worst_phases(comparison), _partings(comparison)]  # fmt: skip
    return [part for part in parts if part]


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:+.1%}" if error else "0"


def _place(comparison: Comparison, row: dict[str, Any]) -> list[str]:
    """The first columns: what is varied, and the backend."""
    shown = [one_line(str(row[path]), 30) for path in comparison.varied]
    return [*shown, one_line(row["backend"], 40)]


def _header(comparison: Comparison) -> list[str]:
    return [*(one_line(path, 30) for path in comparison.varied), "backend"]


def _runs(comparison: Comparison) -> str:
    rated = any(row["busbw_GBps"] is not None for row in comparison.rows)
    header = [*_header(comparison), "finish [ns]", "error"]
    header += ["CPU [s]", "run [s]", "wall [s]", "peak [MB]"]
    header += ["size [B]", "algbw [GB/s]", "busbw [GB/s]"] if rated else []
    lines = []
    for row in comparison.rows:
        line = _place(comparison, row)
        if row["failure"] is not None:
            lines.append([*line, "failed", *[""] * (len(header) - len(line) - 1)])
            continue
        line += [f"{row['finish_ns']:,}", _percent(row["error"])]
        line += [f"{row['cpu_s']:.3f}", f"{row['run_cpu_s']:.4f}", f"{row['wall_s']:.3f}"]
        line += [f"{row['peak_mb']:.0f}"]
        if rated:
            line += ["" if row["size_bytes"] is None else f"{row['size_bytes']:,}"]
            line += ["" if row[name] is None else f"{row[name]:.2f}"
                     for name in ("algbw_GBps", "busbw_GBps")]  # fmt: skip
        lines.append(line)
    return text_table(header, lines)


def _groups(comparison: Comparison) -> str:
    """Where there is more than one."""
    if len({row["group"] for row in comparison.groups}) < 2:
        return ""
    header = [*_header(comparison), "group", "finish [ns]", "error"]
    return text_table(header, [
        [*_place(comparison, row), one_line(row["group"], 40), f"{row['finish_ns']:,}",
         _percent(row["error"])]
        for row in comparison.groups
    ])  # fmt: skip


def _kinds(comparison: Comparison) -> str:
    """Collectives by kind and size, those that take longest, where there are several."""
    if all(row["count"] == 1 for row in comparison.kinds) and len(
        {(row["job"], row["kind"], row["size_bytes"]) for row in comparison.kinds}
    ) < 2:  # fmt: skip
        return ""
    longest: dict[tuple[Any, ...], int] = {}
    for row in comparison.kinds:
        key = (*(str(row[path]) for path in comparison.varied), row["job"], row["kind"],
               row["size_bytes"])  # fmt: skip
        longest[key] = max(longest.get(key, 0), row["total_ns"])
    shown = sorted(longest, key=lambda key: -longest[key])[:_MOST_LINES]
    header = [*_header(comparison), "collectives", "bytes", "count", "in sum [ns]", "error"]
    return text_table(header, [
        [*_place(comparison, row),
         f"{one_line(row['job'], 20)}: {row['kind']}" if row["job"] else row["kind"],
         f"{row['size_bytes']:,}", str(row["count"]), f"{row['total_ns']:,}",
         _percent(row["error"])]
        for key in shown
        for row in comparison.kinds
        if key == (*(str(row[path]) for path in comparison.varied), row["job"], row["kind"],
                   row["size_bytes"])
    ])  # fmt: skip


def _furthest(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Those whose time, of this name, differs most from the reference's, in ns."""
    apart = [row for row in rows if row["error"]]
    apart.sort(key=lambda row: -abs(row[name] - row["reference_ns"]))
    # Of what several groups of ranks do, the one that is furthest.
    but = ("group", "ranks", "start_ns", "duration_ns", "reference_ns", "error")
    first: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in apart:
        first.setdefault(tuple(str(row[key]) for key in row if key not in but), row)
    return list(first.values())[:_MOST_LINES]


def _worst_collectives(comparison: Comparison) -> str:
    """Those whose time differs most, where there are several."""
    if len({(row["job"], row["node_id"], row["group"]) for row in comparison.collectives}) < 2:
        return ""
    rows = _furthest(comparison.collectives, "duration_ns")
    header = [*_header(comparison), "furthest collectives", "kind", "bytes", "takes [ns]",
              "instead of", "error"]  # fmt: skip
    lines = [
        [*_place(comparison, row), _node(row, row["kind"]), row["kind"],
         f"{row['size_bytes']:,}", f"{row['duration_ns']:,}", f"{row['reference_ns']:,}",
         _percent(row["error"])]
        for row in rows
    ]  # fmt: skip
    return text_table(header, lines) if lines else ""


def _worst_phases(comparison: Comparison) -> str:
    """Those whose time differs most, where something is computed too, or in several steps."""
    if len({(row["job"], row["step"], row["phase"]) for row in comparison.phases}) < 4:
        return ""
    rows = _furthest(comparison.phases, "time_ns")
    header = [*_header(comparison), "furthest phases", "step", "takes [ns]", "instead of", "error"]
    lines = [
        [*_place(comparison, row),
         f"{one_line(row['job'], 20)}: {row['phase']}" if row["job"] else row["phase"],
         str(row["step"]), f"{row['time_ns']:,}", f"{row['reference_ns']:,}",
         _percent(row["error"])]
        for row in rows
    ]  # fmt: skip
    return text_table(header, lines) if lines else ""


def _partings(comparison: Comparison) -> str:
    """Where each run parts from the reference."""
    if not comparison.partings:
        return f"No node ends at a time that differs by more than {comparison.tolerance:g}."
    header = [*_header(comparison), "parts at", "rank", "ends [ns]", "instead of", "error"]
    return text_table(header, [
        [*_place(comparison, row), _node(row, row["type"]), str(row["rank"]),
         f"{row['end_ns']:,}", f"{row['reference_end_ns']:,}", _percent(row["error"])]
        for row in comparison.partings
    ])  # fmt: skip


def _node(row: dict[str, Any], kind: str) -> str:
    job = f"{one_line(row['job'], 20)}: " if row["job"] else ""
    return f"{job}{row['node_id']} {one_line(row['name'], 30) or kind}"


COMMAND = Command(
    "Run experiments on several backends: errors, cost, where they part.",
    _ARGUMENTS,
    _run,
    "compare experiment.yaml --backends analytical-aware,flow,ns3 \\\n"
    "    --vary workload.size=64KiB,1MiB,16MiB --output out",
    "A backend that fails is a row that says why; the exit code is then that of the\n"
    "first failure.",
)
