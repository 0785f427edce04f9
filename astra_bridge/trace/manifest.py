# SPDX-License-Identifier: MIT
"""A workload as one trace for each kind of rank, and a manifest that says which ranks are alike.

The traces are Chakra's.  What lets ranks at different places share one: peers of messages may
count from the own rank on, and a group may be "the group of the own rank".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_json
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import Reader
from astra_bridge.text import one_line, show
from astra_bridge.trace.about import About
from astra_bridge.trace.columns import ProcessGroup, TraceColumns, Workload
from astra_bridge.trace.formats import TraceFormat
from astra_bridge.trace.reader import read_trace

__all__ = ["FORMAT", "Manifest", "manifest_path", "placed", "read_manifest"]

_VERSION = 1


def manifest_path(prefix: str | Path) -> Path:
    """Return ``{prefix}.manifest.json``."""
    return Path(f"{prefix}.manifest.json")


class Manifest(msgspec.Struct, frozen=True, eq=False):
    """Which ranks are alike.

    Attributes
    ----------
    traces : tuple of str
        A file for each kind of rank, beside the manifest.
    kind_of_rank : ndarray of int32, shape (ranks,)
        Index into `traces`.
    relative : bool
        Whether peers count from the own rank on, modulo the number of ranks.
    groups : tuple of ProcessGroup
        Those that nodes name by ``pg_name``.
    in_turn : bool
        Whether communication is in the order of ids where a rank has a single slot for it.
    about : About, optional
        What the workload is, for reports.
    """

    traces: tuple[str, ...]
    kind_of_rank: npt.NDArray[np.int32]
    relative: bool
    groups: tuple[ProcessGroup, ...]
    in_turn: bool = False
    about: About | None = None

    def encode(self) -> bytes:
        """Return the content of the file."""
        kinds = self.kind_of_rank
        starts = np.flatnonzero(np.diff(kinds, prepend=-1))
        counts = np.diff(starts, append=len(kinds))
        runs = zip(kinds[starts].tolist(), counts.tolist(), strict=True)
        groups = {
            group.name: {"stride": group.stride, "size": group.size}
            if group.stride
            else {"ranks": list(group.ranks)}
            for group in self.groups
        }
        values: dict[str, Any] = {
            "astra_bridge_manifest": _VERSION,
            "ranks": len(kinds),
            "peers": "relative" if self.relative else "absolute",
        }
        if self.in_turn:
            values["in_turn"] = True
        if self.about is not None:
            values["about"] = self.about.plain()
        lines = [f' "{key}": {json.dumps(value)}' for key, value in values.items()]
        lines += [
            _list("traces", "[]", [json.dumps(name) for name in self.traces]),
            _list("kinds", "[]", [json.dumps(run) for run in runs]),
            _list("groups", "{}", [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in groups.items()]),
        ]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _list(key: str, brackets: str, entries: Sequence[str]) -> str:
    inner = "".join(f"\n  {entry}," for entry in entries).rstrip(",")
    return f' "{key}": {brackets[0]}{inner}{brackets[1]}'


def placed(
    columns: TraceColumns, groups: Mapping[str, ProcessGroup], *, relative: bool, in_turn: bool
) -> TraceColumns:
    """A trace with those of the groups that its nodes name."""
    used = tuple(groups[name] for name in columns.strings if name in groups)
    return msgspec.structs.replace(
        columns,
        relative=relative,
        in_turn=in_turn,
        process_groups=(*columns.process_groups, *used),
    )


def _groups(given: Any, ranks: int, file: Path) -> tuple[ProcessGroup, ...]:
    reader = Reader(given, file, "groups")
    found = []
    for name, value in reader.raw.items():
        entry = Reader(value, file, f"groups.{name}")
        entry.keys(("stride", "size", "ranks"))
        if "ranks" in entry.raw:
            members = entry.raw["ranks"]
            if not isinstance(members, list) or not all(
                type(rank) is int and 0 <= rank < ranks for rank in members
            ):
                raise entry.fail("ranks", f"expected a list of ranks, 0 to {ranks - 1}")
            found.append(ProcessGroup(name, tuple(members)))
            continue
        stride, size = (entry.integer(key, None, 1, ranks) for key in ("stride", "size"))
        if ranks % (stride * size):
            raise entry.fail(
                "size",
                f"groups of {size} ranks with a stride of {stride} do not share {ranks} ranks "
                "evenly",
            )
        found.append(ProcessGroup(name, (), stride, size))
    return tuple(found)


def _kinds(reader: Reader, ranks: int, count: int) -> npt.NDArray[np.int32]:
    given = reader.raw.get("kinds")
    try:
        runs = np.array(given, np.int64)
        right = isinstance(given, list) and runs.ndim == 2 and runs.shape[1] == 2
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise reader.fail("kinds", f"expected a list of [kind, ranks], found {show(given)}")
    kinds, lengths = runs.T
    if ((kinds < 0) | (kinds >= count) | (lengths < 1) | (lengths > ranks)).any():
        raise reader.fail("kinds", f"allowed: kinds 0 to {count - 1}, of 1 to {ranks} ranks each")
    if int(lengths.sum()) != ranks:
        raise reader.fail("kinds", f"are of {int(lengths.sum())} ranks in sum, not {ranks}")
    return np.repeat(kinds.astype(np.int32), lengths)


def _about(reader: Reader) -> About | None:
    given = reader.raw.get("about")
    try:
        return None if given is None else msgspec.convert(given, About)
    except msgspec.ValidationError as error:
        raise reader.fail("about", one_line(str(error))) from None


def _manifest(file: Path) -> Manifest:
    reader = Reader(load_json(file), file)
    reader.keys(
        ("astra_bridge_manifest", "ranks", "peers", "in_turn", "about", "traces", "kinds", "groups")
    )
    reader.integer("astra_bridge_manifest", None, _VERSION, _VERSION)
    ranks = reader.integer("ranks", None, 1, MAX_RANKS)
    traces = reader.raw.get("traces")
    if (
        not isinstance(traces, list)
        or not traces
        or not all(isinstance(name, str) and name == Path(name).name for name in traces)
    ):
        raise reader.fail(
            "traces", f"expected names of files beside the manifest, found {show(traces)}"
        )
    return Manifest(
        tuple(traces),
        _kinds(reader, ranks, len(traces)),
        reader.text("peers", "absolute", ("absolute", "relative")) == "relative",
        _groups(reader.raw.get("groups", {}), ranks, file),
        reader.flag("in_turn"),
        _about(reader),
    )


def read_manifest(prefix: Path, ranks: int) -> Workload:
    """Read ``{prefix}.manifest.json`` and the traces that it names, each once.

    Raises
    ------
    InputError
        A file cannot be read or is damaged, or is for fewer ranks.
    """
    file = manifest_path(prefix)
    manifest = _manifest(file)
    kinds = manifest.kind_of_rank
    if len(kinds) != ranks:
        raise InputError(
            f"is a workload of {len(kinds)} ranks, and there are {ranks}", file=file, key="ranks"
        )
    known = {group.name: group for group in manifest.groups}
    columns = tuple(
        placed(
            read_trace(file.parent / name),
            known,
            relative=manifest.relative,
            in_turn=manifest.in_turn,
        )
        for name in manifest.traces
    )
    kinds.flags.writeable = False
    return Workload(columns, kinds, about=manifest.about)


FORMAT = TraceFormat(
    "manifest",
    "PREFIX.manifest.json and one Chakra trace for each kind of rank.",
    lambda prefix: os.path.exists(manifest_path(prefix)),  # noqa: PTH110
    read_manifest,
    count=lambda prefix: len(_manifest(manifest_path(prefix)).kind_of_rank),
)
