# SPDX-License-Identifier: MIT
"""``astra-bridge trace dump|convert``."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer

from astra_bridge.errors import InputError
from astra_bridge.files import write_file
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import NodeType, TraceColumns
from astra_bridge.trace.reader import read_bytes, read_trace

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Look at traces and convert them."
)


def _summary(trace: TraceColumns) -> Iterator[str]:
    counts = np.bincount(trace.type, minlength=len(NodeType))
    yield (
        f"{one_line(str(trace.file))}: schema {one_line(trace.version) or 'without version'}, "
        f"{len(trace)} nodes, {len(trace.dep)} dependencies"
    )
    for node_type, count in zip(NodeType, counts, strict=True):
        if count:
            yield f"  {node_type.name:<9} {count}"
    for group in trace.process_groups:
        yield f"  process group {one_line(group.name)}: {list(group.ranks) or 'all ranks'}"


def _node(trace: TraceColumns, i: int) -> str:
    details = trace.read_details(i)
    parents = trace.node_id[trace.dep[trace.dep_start[i] : trace.dep_start[i + 1]]]
    parts = [
        f"{trace.node_id[i]:>6} {NodeType(int(trace.type[i])).name:<9} {one_line(details.name)}"
    ]
    if trace.duration_micros[i]:
        parts.append(f"duration_micros={trace.duration_micros[i]}")
    parts += [f"{one_line(name)}={show(value)}" for name, value in details.attributes.items()]
    if len(parents):
        parts.append(f"after {', '.join(map(str, parents))}")
    return "  ".join(parts)


@app.command()
def dump(
    file: Path = typer.Argument(..., help="Trace: .et (gzip-compressed or not) or Chakra JSON."),
    first: int = typer.Option(20, "--first", min=0, help="Print that many nodes; 0 prints all."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as Chakra JSON."),
) -> None:
    """Print a summary of a trace and its nodes."""
    if as_json:
        from astra_bridge.trace.json import et_to_json

        for text in et_to_json(read_bytes(file), file=file):
            typer.echo(text)
        return
    trace = read_trace(file)
    for line in _summary(trace):
        typer.echo(line)
    shown = min(first or len(trace), len(trace))
    for i in range(shown):
        typer.echo(_node(trace, i))
    if shown < len(trace):
        typer.echo(f"... {len(trace) - shown} more (--first 0 prints all)")


@app.command()
def convert(
    source: Path = typer.Argument(..., help=".et, Chakra .json, or ASTRA-sim 1.0 text (.txt)."),
    target: Path = typer.Argument(..., help=".json or .et file; for text a prefix of .et files."),
    ranks: int = typer.Option(0, "--ranks", min=0, help="Number of ranks (for text)."),
    passes: int = typer.Option(1, "--passes", min=1, help="Training steps (for text)."),
) -> None:
    """Convert a trace: .et to JSON, JSON to .et, ASTRA-sim 1.0 text to .et of all ranks."""
    if source.suffix == ".txt":
        from astra_bridge.workload.astra1 import import_text

        if ranks < 1:
            raise InputError("a text workload needs the number of ranks", key="--ranks")
        written = import_text(source, ranks, passes=passes).write(target)
        typer.echo(f"wrote {written[0]} and the other ranks' ({len(written)} files)")
        return
    read_trace(source)  # refuse what cannot be run
    data = read_bytes(source)
    if target.suffix == ".json":
        from astra_bridge.trace.json import et_to_json

        data = "".join(f"{text}\n" for text in et_to_json(data, file=source)).encode()
    elif target.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif target.suffix != ".et":
        raise InputError(
            f"cannot write {target.suffix!r}; allowed: .et, .et.gz, .json", file=target
        )
    write_file(target, data)
    typer.echo(f"wrote {target}")
