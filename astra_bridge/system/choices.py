# SPDX-License-Identifier: MIT
"""What the names in the inputs stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astra_bridge.collectives import Chosen, algorithm
from astra_bridge.inputs.system import SystemConfig

__all__ = ["Choices", "choices"]


@dataclass(frozen=True)
class Choices:
    """The things that a system configuration names.

    Attributes
    ----------
    implementations : mapping of str to tuple of Chosen
        Collective ("all-reduce", ...) -> algorithm per network dimension.
    """

    implementations: Mapping[str, tuple[Chosen, ...]]


def choices(system: SystemConfig) -> Choices:
    """Look up all names.

    Raises
    ------
    InputError
        A name is unknown: says file, key, which names there are, and the nearest.
    MissingDependency, PluginError
        What it stands for cannot be used here.
    """
    return Choices(
        implementations={
            collective: tuple(
                algorithm(name, key=f"{collective}-implementation[{at}]", file=system.source)
                for at, name in enumerate(names)
            )
            for collective, names in system.implementations.items()
        }
    )
