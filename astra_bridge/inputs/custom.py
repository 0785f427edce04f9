# SPDX-License-Identifier: MIT
"""Custom collectives for single workload nodes (YAML): ``node id: prefix of trace files``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge.arguments import source_file
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_yaml, resolve, show

__all__ = ["read_per_node_custom"]


def read_per_node_custom(source: str | Path | Mapping[Any, Any]) -> dict[int, str]:
    """Read the map that ``per-node-custom-implementation`` names.

    Returns
    -------
    dict of int to str
        Workload node id -> prefix of the trace files (``{prefix}.{position}.et``).

    Raises
    ------
    InputError
        The file cannot be read, or is not a map of node ids to strings.
    """
    file = source_file(source, "per_node_custom")
    raw = load_yaml(file) if file is not None else source
    if not isinstance(raw, Mapping):
        raise InputError(
            f"expected a map of workload node ids to trace prefixes, found {show(raw)}", file=file
        )
    result = {}
    for key, value in raw.items():
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 2**63:
            raise InputError(
                f"{show(key)} is not a workload node id (a whole number from 0 on)", file=file
            )
        if not isinstance(value, str) or not value:
            raise InputError(
                f"expected a prefix of trace files, found {show(value)}", file=file, key=str(key)
            )
        result[key] = resolve(value, file)
    return result
