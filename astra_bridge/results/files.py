# SPDX-License-Identifier: MIT
"""Files made from a result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.results.lines import frame, rank_lines, trace_lines
from astra_bridge.results.local_memory import local_memory
from astra_bridge.results.timeline import timeline

if TYPE_CHECKING:
    from astra_bridge.results.result import Result, Table

__all__ = ["save", "save_local_memory", "save_log", "write_json"]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", file=path) from None


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, which a backend's statistics may hold, as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} has no place in JSON")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, and the folders above it."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(content, enc_hook=_plain) + b"\n")


def save(result: Result, folder: Path) -> list[Path]:
    """Write everything about a result into a folder.

    ``result.json``; ``ranks``, ``nodes`` and each table of the backend as CSV, and as Parquet where
    pyarrow is installed; ``timeline.json`` (Perfetto); ``ranks.svg`` where matplotlib is installed.

    Returns
    -------
    list of Path
        What was written.
    """
    written = [folder / "result.json"]
    write_json(written[0], result.to_dict())
    tables = {**result.tables, "ranks": _ranks(result)}
    if result.has_nodes:
        written.append(folder / "timeline.json")
        write_json(written[1], timeline(result))
        tables["nodes"] = _nodes(result)
    for name, table in tables.items():
        written += _save_table(folder / _file_name(name), table)
    written += _save_plot(result, folder / "ranks.svg")
    return written


def _file_name(table: str) -> str:
    """A table's name comes from a backend and may be anything."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in table) or "table"


def _ranks(result: Result) -> Table:
    return {
        "rank": np.arange(result.ranks),
        "finish_ns": result.finish_ns,
        "exposed_comm_ns": result.exposed_comm_ns,
        **result.statistics.columns(),
    }


def _nodes(result: Result) -> Table:
    workload = result.workload

    def column(name: str) -> Any:
        parts = [getattr(columns, name) for columns in workload.columns]
        return np.concatenate([parts[index] for index in workload.rank_to_columns])

    return {
        "rank": np.repeat(np.arange(result.ranks), np.diff(result.node_offset)),
        "node_id": column("node_id"),
        "type": column("type"),
        "start_ps": result.node_start_ps,
        "end_ps": result.node_end_ps,
    }


def _save_table(stem: Path, table: Table) -> list[Path]:
    """Write ``stem.csv``, and ``stem.parquet`` where pyarrow is installed."""
    csv = stem.with_name(f"{stem.name}.csv")
    columns = {name: np.asarray(values) for name, values in table.items()}
    try:
        import pyarrow
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet as arrow_parquet
    except ImportError:
        with _writing(csv), csv.open("w", encoding="utf-8", newline="") as file:
            import csv as csv_module

            writer = csv_module.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
        return [csv]
    parquet = stem.with_name(f"{stem.name}.parquet")
    arrow = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    with _writing(stem):
        options = arrow_csv.WriteOptions(quoting_style="needed")
        arrow_csv.write_csv(arrow, csv, options)
        arrow_parquet.write_table(arrow, parquet)
    return [csv, parquet]


def _save_plot(result: Result, path: Path) -> list[Path]:
    """Draw finish time and exposed communication per rank, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    ranks = np.arange(result.ranks)
    axes.fill_between(ranks, result.finish_ns / 1e3, step="mid", label="finish", color="#9ecae1")
    exposed = result.exposed_comm_ns / 1e3
    axes.fill_between(ranks, exposed, step="mid", label="exposed communication", color="#e6550d")
    axes.set_xlabel("rank")
    axes.set_ylabel("time [us]")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{result.backend}, semantics {result.semantics}")
    axes.legend(loc="lower right")
    with _writing(path):
        # No date in the file: the same result gives the same bytes.
        figure.savefig(path, metadata={"Date": None})
    return [path]


def save_log(
    result: Result, folder: Path, now: datetime, warnings: Iterable[str] = ()
) -> list[Path]:
    """Write ``log.log`` and ``err.log`` as ASTRA-sim does; ``trace-enabled`` adds every node."""
    log, errors = folder / "log.log", folder / "err.log"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            for warning in warnings:
                file.write(frame("system", "warning", warning, now) + "\n")
            if result.system.enabled("trace-enabled", result.semantics):
                file.writelines(line + "\n" for line in trace_lines(result, now))
            file.writelines(line + "\n" for line in rank_lines(result, now))
        errors.write_text("", encoding="utf-8")
    return [log, errors]


def save_local_memory(result: Result, folder: Path) -> Iterator[tuple[int, str]]:
    """Write ``{local-mem-trace-filename}.{rank}.json`` per rank; yield rank and peak memory."""
    for rank in range(result.ranks):
        memory = local_memory(result, rank)
        path = folder / f"{result.system.local_mem_trace_filename}.{rank}.json"
        write_json(path, memory.chrome_trace())
        yield rank, memory.peak()
