# SPDX-License-Identifier: MIT
"""What is known of a simulator of others that an adapter is compiled against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from astra_bridge.records import Record, field

__all__ = ["Simulator"]


class Simulator(Record, frozen=True):
    """A simulator that is installed here.

    Parameters
    ----------
    name : str
        As its project writes it, with the kind where there are several: ``ns-3``.
    version : str
        As far as it tells.
    root : Path
        Where it is.
    origin : str
        How it was found: the environment variable, ``find_package``, ``wheel``.
    marks : sequence of Path
        Files that are others when the simulator was built anew: its libraries.
    defines : mapping of str to str
        What CMake is told: ``-DNAME=value``.
    """

    name: str
    version: str
    root: Path
    origin: str
    marks: tuple[Path, ...]
    defines: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()
