# SPDX-License-Identifier: MIT
"""A workload as ASTRA-sim has it: a Chakra trace for each rank, and a file of its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from astra_bridge.files import NewFiles
from astra_bridge.trace.manifest import manifest_path
from astra_bridge.trace.reader import groups_path, trace_path

__all__ = ["write_per_rank"]


def write_per_rank(
    prefix: str | Path, traces: Iterable[bytes], groups: Mapping[int, Sequence[int]]
) -> list[Path]:
    """Write ``{prefix}.{rank}.et``, and ``{prefix}.comm_group.json`` if there are groups.

    Parameters
    ----------
    prefix
        A manifest that it has is removed: files of one rank each are what it now stands for.
    traces
        The content of each rank's file.
    groups
        Name of a group -> its ranks.

    Returns
    -------
    list of Path
        The files, traces first.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    written = []
    with NewFiles() as files:
        for rank, data in enumerate(traces):
            written.append(trace_path(prefix, rank))
            with files.open(written[-1]) as out:
                out.write(data)
        if groups:
            written.append(groups_path(prefix))
            lines = (f' "{name}": {list(ranks)}' for name, ranks in groups.items())
            with files.open(written[-1]) as out:
                out.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())
    with suppress(OSError):
        manifest_path(prefix).unlink(missing_ok=True)
    return written
