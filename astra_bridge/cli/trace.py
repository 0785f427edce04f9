# SPDX-License-Identifier: MIT
"""``astra-bridge trace dump|convert``."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from astra_bridge.arguments import path, whole_text
from astra_bridge.cli.command import Argument, Command, group_of
from astra_bridge.errors import InputError
from astra_bridge.files import write_file
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import NodeType, TraceColumns
from astra_bridge.trace.reader import read_bytes, read_trace

__all__ = ["COMMAND"]

_ANY = 2**63 - 1


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


def _dump(file: Path, first: int, json: bool) -> None:
    if json:
        from astra_bridge.trace.json import et_to_json

        for text in et_to_json(read_bytes(file), file=file):
            print(text)
        return
    trace = read_trace(file)
    for line in _summary(trace):
        print(line)
    shown = min(first or len(trace), len(trace))
    for i in range(shown):
        print(_node(trace, i))
    if shown < len(trace):
        print(f"... {len(trace) - shown} more (--first 0 prints all)")


def _convert(source: Path, target: Path, ranks: int | None, passes: int) -> None:
    if source.suffix == ".txt":
        from astra_bridge.workload.astra1 import import_text

        if not ranks:
            raise InputError("a text workload needs the number of ranks", key="--ranks")
        written = import_text(source, ranks, passes=passes).write(target)
        print(f"wrote {written[0]} and the other ranks' ({len(written)} files)")
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
    print(f"wrote {target}")


COMMAND = group_of(
    "Look at traces and convert them.",
    {
        "dump": Command(
            "Print a summary of a trace and its nodes.",
            {
                "arguments": (
                    Argument("FILE", "", "Trace: .et (gzip-compressed or not) or Chakra JSON.",
                             path),
                ),
                "options": (
                    Argument("--first", "COUNT", "Print that many nodes; 0 prints all.",
                             whole_text(0, _ANY), default=20),
                    Argument("--json", "", "Print everything as Chakra JSON.", default=False),
                ),
            },
            _dump,
            "trace dump out/ring.0.et --first 0",
        ),
        "convert": Command(
            "Convert a trace: .et to JSON and back, ASTRA-sim 1.0 text to .et of all ranks.",
            {
                "arguments": (
                    Argument("SOURCE", "", ".et, Chakra .json, or ASTRA-sim 1.0 text (.txt).",
                             path),
                    Argument("TARGET", "", ".json or .et file; for text a prefix of .et files.",
                             path),
                ),
                "options, for text": (
                    Argument("--ranks", "COUNT", "Number of ranks; required for text.",
                             whole_text(1, _ANY)),
                    Argument("--passes", "COUNT", "Training steps.", whole_text(1, _ANY),
                             default=1),
                ),
            },
            _convert,
            "trace convert model.txt out/model --ranks 16",
        ),
    },
)  # fmt: skip
