# SPDX-License-Identifier: MIT
"""Files made from a result."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np

from astra_bridge import arguments
from astra_bridge.files import NewFiles
from astra_bridge.results.lines import frame, rank_lines, trace_lines
from astra_bridge.results.local_memory import local_memory
from astra_bridge.results.plots import save_ranks_plot
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.results.statistics import RankStatistics
    from astra_bridge.results.table import Table
    from astra_bridge.results.times import RankTimes

__all__ = ["save", "save_json", "save_local_memory", "save_log", "save_table", "write_json"]

_LONGEST_NAME = 100


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, which a backend's statistics may hold, as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} has no place in JSON")


def write_json(files: NewFiles, path: Path, content: Any) -> None:
    """Write a JSON file, and the folders above it."""
    with files.open(path) as out:
        out.write(msgspec.json.encode(content, enc_hook=_plain) + b"\n")


def save_json(file: object, content: Any) -> None:
    """Write a JSON file that somebody asks for, whole or not at all.

    Raises
    ------
    InputError
        ``file`` is no path, or cannot be written.
    """
    with NewFiles() as files:
        write_json(files, arguments.path(file, "file"), content)


def save(
    files: NewFiles,
    result: RankTimes,
    content: Mapping[str, Any],
    tables: Iterable[tuple[str, Table]],
    folder: Path,
) -> list[Path]:
    """Write everything about a result into a folder.

    ``result.json`` (``content``); each table as CSV, and as Parquet where
    pyarrow is installed; ``ranks.svg`` where matplotlib is installed.

    Returns
    -------
    list of Path
        What was written.
    """
    written = [folder / "result.json"]
    write_json(files, written[0], content)
    names: set[str] = set()
    for name, table in tables:
        file = _file_name(name, names)
        names.add(file)
        written += save_table(files, folder / file, table)
    return written + save_ranks_plot(files, result, folder / "ranks.svg")


def _file_name(table: str, taken: Iterable[str]) -> str:
    """A table's name comes from a backend and may be anything."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in table)
    stem = name = plain[:_LONGEST_NAME] or "table"
    others = {other.lower() for other in taken}  # some file systems do not see the difference
    number = 1
    while name.lower() in others:
        number += 1
        name = f"{stem}_{number}"
    return name


def _number(value: Any) -> Any:
    """A number as pyarrow writes it: whole ones without a fraction, nothing for NaN."""
    if value != value:
        return ""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if whole else value


def save_table(files: NewFiles, stem: Path, table: Table) -> list[Path]:
    """Write ``stem.csv``, and ``stem.parquet`` where pyarrow is installed."""
    text = stem.with_name(f"{stem.name}.csv")
    try:
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet as arrow_parquet
    except ImportError:
        import csv

        with files.open(text) as out, _Text(out) as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(table.keys())
            columns = ([_number(value) for value in values.tolist()] for _, values in table.items())
            writer.writerows(zip(*columns, strict=True))
        return [text]
    parquet = stem.with_name(f"{stem.name}.parquet")
    arrow = table.to_arrow()
    with files.open(text) as out:
        arrow_csv.write_csv(arrow, out, arrow_csv.WriteOptions(quoting_style="needed"))
    with files.open(parquet) as out:
        arrow_parquet.write_table(arrow, out)
    return [text, parquet]


class _Text(io.TextIOWrapper):
    """Text into a binary file that somebody else closes."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__(out, "utf-8", "backslashreplace", newline="\n")

    def __exit__(self, *error: object) -> None:
        self.detach()  # flushes, too


def save_log(
    files: NewFiles,
    result: RankTimes,
    statistics: RankStatistics,
    folder: Path,
    now: datetime,
    warnings: Iterable[str] = (),
) -> list[Path]:
    """Write ``log.log`` and ``err.log`` as ASTRA-sim does; ``trace-enabled`` adds every node."""
    log, errors = folder / "log.log", folder / "err.log"
    with files.open(log) as out, _Text(out) as lines:
        for warning in warnings:
            lines.write(frame("system", "warning", one_line(warning), now) + "\n")
        if result.system.enabled("trace-enabled", result.semantics):
            lines.writelines(line + "\n" for line in trace_lines(result, now))
        lines.writelines(line + "\n" for line in rank_lines(result, statistics, now))
    with files.open(errors):
        pass
    return [log, errors]


def save_local_memory(
    files: NewFiles, result: RankTimes, folder: Path
) -> Iterator[tuple[int, str]]:
    """Write ``{local-mem-trace-filename}.{rank}.json`` per rank; yield rank and peak memory."""
    for rank in range(result.rank_count):
        memory = local_memory(result, rank)
        path = folder / f"{result.system.local_mem_trace_filename}.{rank}.json"
        write_json(files, path, memory.chrome_trace())
        yield rank, memory.peak()
