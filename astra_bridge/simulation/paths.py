# SPDX-License-Identifier: MIT
"""Dotted paths: one way to name a value of an experiment, for --set, sweeps and calibration.

``network.bandwidth[0]`` is an entry of the network file, ``system.endpoint-delay`` a key of the
system file, ``injection_scale`` a value of the experiment itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from astra_bridge.errors import InputError
from astra_bridge.text import nearest, show

__all__ = ["parse_path", "with_value"]


def parse_path(path: str) -> tuple[str | int, ...]:
    """The steps of a dotted path.

    Raises
    ------
    InputError
        It is none.

    Examples
    --------
    >>> parse_path("network.bandwidth[0]")
    ('network', 'bandwidth', 0)
    """
    step = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        if steps and path[at] == ".":
            at += 1
        found = step.match(path, at)
        if found is None or (found[1] and steps and path[at - 1] != "."):
            break
        steps.append(found[1] if found[1] else int(found[2]))
        at = found.end()
    if at < len(path) or not steps or isinstance(steps[0], int):
        raise InputError(
            f"{show(path)} is no path; paths look like network.bandwidth[0]", key="path"
        )
    return tuple(steps)


def with_value(content: Any, steps: Sequence[str | int], value: Any, *, path: str) -> Any:
    """A copy of nested mappings and lists with one value changed.

    The last key of a mapping may be new: whoever reads the content knows whether it may be there.

    Raises
    ------
    InputError
        A step leads nowhere: names the nearest key, or how long the list is.
    """
    result = copy.deepcopy(content)
    inner, parent = result, None
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        parent = inner
        if isinstance(step, int):
            if not isinstance(inner, list):
                raise InputError(f"is no list, so it has no [{step}]", key=path)
            if step >= len(inner):
                raise InputError(f"has no [{step}]; it has {len(inner)} entries", key=path)
        elif not isinstance(inner, dict):
            raise InputError(f"has no {show(step)}: it is {show(inner)}", key=path)
        elif step not in inner and not last:
            raise InputError(f"has no {show(step)}{nearest(step, inner)}", key=path)
        if last:
            parent[step] = value
        else:
            inner = inner[step]
    return result
