# SPDX-License-Identifier: MIT
"""Topology files of any format that is known here, as networks of links."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge import arguments
from astra_bridge.arguments import choice, number, optional, positive
from astra_bridge.errors import InputError
from astra_bridge.fabrics.htsim import is_htsim, read_htsim
from astra_bridge.fabrics.infragraph import is_infragraph, read_infragraph
from astra_bridge.fabrics.simai import is_simai, read_simai
from astra_bridge.inputs.common import load_yaml, read_text
from astra_bridge.inputs.network import NetworkLinks, read_network

__all__ = ["FORMATS", "read_topology"]

FORMATS = ("links", "infragraph", "simai", "htsim")
_OF_TEXT = {"simai": (is_simai, read_simai), "htsim": (is_htsim, read_htsim)}


def read_topology(
    path: str | Path,
    file_format: str | None = None,
    *,
    default_gbps: float | None = None,
    default_latency_ns: float = 0.0,
) -> NetworkLinks:
    """Read a file of links, an InfraGraph, a topology of SimAI or a ``.topo`` of htsim.

    Parameters
    ----------
    path
        The file.
    file_format
        "links", "infragraph", "simai" or "htsim".  Default: found from the content.
    default_gbps, default_latency_ns
        What links of an InfraGraph have that say nothing; without ``default_gbps``, one that does
        not say its bandwidth is an error.

    Returns
    -------
    NetworkLinks

    Raises
    ------
    MissingDependency
        InfraGraph's package is not installed.
    InputError
        The file cannot be read, or is not what it should be.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "one.topo")
    ...     _ = file.write_text("3 2 0 1 2 H100\\n2\\n0 2 50Gbps 500ns 0\\n1 2 50Gbps 500ns 0\\n")
    ...     read_topology(file).name_of(2)
    'leaf0'
    """
    file = arguments.path(path, "path")
    optional(choice(*FORMATS))(file_format, "file_format")
    default_gbps = optional(positive(1e9))(default_gbps, "default_gbps")
    default_latency_ns = number(0, 1e12)(default_latency_ns, "default_latency_ns")
    if file_format is None or file_format in _OF_TEXT:
        text = read_text(file)
        for name, (fits, read) in _OF_TEXT.items():
            if name == file_format or (file_format is None and fits(text)):
                return read(text, file)
    raw = load_yaml(file)
    if file_format == "infragraph" or (file_format is None and is_infragraph(raw)):
        return read_infragraph(
            _mapping(raw, file),
            file,
            default_gbps=default_gbps,
            default_latency_ns=default_latency_ns,
        )
    network = read_network(file) if isinstance(raw, Mapping) else None
    if not isinstance(network, NetworkLinks):
        raise InputError(f"no topology of a format that is known: {', '.join(FORMATS)}", file=file)
    return network


def _mapping(raw: Any, file: Path) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise InputError("expected keys and values", file=file)
    return raw
