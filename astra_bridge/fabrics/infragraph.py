# SPDX-License-Identifier: MIT
"""InfraGraph (infragraph.dev): devices of components, instances of devices, edges between them.

Reading needs its package (``pip install 'astra-bridge[infragraph]'``), which expands the edges.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.fabrics.build import named
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, NodeRange
from astra_bridge.text import one_line

__all__ = ["infragraph_text", "is_infragraph", "read_infragraph"]

_GBPS = {"Gbps": 1.0, "GBps": 8.0}
_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6}
_WORD = re.compile(r"[\w.:/-]{1,80}")


def is_infragraph(raw: object) -> bool:
    """Whether the content of a YAML file is an InfraGraph."""
    return isinstance(raw, dict) and {"devices", "instances"} <= raw.keys()


@dataclass
class _Cable:
    """An edge, or several with components between them that have no other."""

    ends: tuple[str, str]
    link: str
    gbps: float | None
    ns: float | None


def read_infragraph(
    raw: Mapping[str, Any],
    file: Path | None = None,
    *,
    default_gbps: float | None = None,
    default_latency_ns: float = 0.0,
) -> NetworkLinks:
    """Read an InfraGraph; its components of type xpu are the GPUs, in the order of the instances.

    A cable runs from GPU to switch, or from switch to switch: NICs, ports and other components that
    have just two edges are part of it. It is as fast as the slowest edge that says a
    bandwidth, and their latencies add up.  What leads nowhere is left out.

    Parameters
    ----------
    raw
        Content of the YAML or JSON file.
    file
        Its name, for errors.
    default_gbps
        Bandwidth of a cable of which no edge says one [Gbit/s].  Default: an error.
    default_latency_ns
        Latency of a cable of which no edge says one [ns].

    Returns
    -------
    NetworkLinks
        GPUs forward where two of them are joined directly.  The logical dimensions are the GPUs of
        an instance and the instances, where all have the same number.

    Raises
    ------
    MissingDependency
        The package is not installed.
    InputError
        What the package refuses, or a bandwidth is missing.
    """
    graph, infrastructure = _graph(raw, file)
    nodes: dict[str, dict[str, Any]] = dict(graph.nodes(data=True))
    gpus = [node for node, data in nodes.items() if data["type"] == "xpu"]
    if not gpus:
        raise InputError("no component is of type xpu", file=file, key="devices")
    at: dict[str, list[_Cable]] = {node: [] for node in nodes}
    for a, b, data in graph.edges(data=True):
        rate = _value(data.get("bandwidth"), _GBPS)
        _attach(at, _Cable((a, b), data["link"], rate, _value(data.get("latency"), _NS)))
    _simplify(at, nodes)
    order, names = _order(at, nodes, gpus, infrastructure)
    place = {node: index for index, node in enumerate(order)}
    found = {id(cable): cable for node in order for cable in at[node]}
    rows = []
    for cable in found.values():
        gbps = default_gbps if cable.gbps is None else cable.gbps
        if gbps is None:
            raise InputError(
                "says no bandwidth; add it, or give default_gbps", file=file, key=cable.link
            )
        ns = default_latency_ns if cable.ns is None else cable.ns
        a, b = sorted(place[end] for end in cable.ends)
        rows.append((a, b, gbps * 1e9 / 8 / (1 << 30), ns, 0.0))
    rows.sort(key=lambda row: row[:2])
    both = [(x, y, *rest) for a, b, *rest in rows for x, y in ((a, b), (b, a))]
    columns = [np.array(column) for column in zip(*both, strict=True)] or [np.zeros(0)] * 5
    owners = [nodes[gpu]["composed_device"] for gpu in gpus]
    each = len(gpus) // len(set(owners))
    even = all(owners.count(owner) == each for owner in set(owners))
    dims = (each, len(gpus) // each) if even else (len(gpus),)
    return NetworkLinks(
        len(gpus),
        len(order),
        LinkColumns(*columns),
        tuple(size for size in dims if size > 1) or (1,),
        file,
        names,
        endpoints_forward=any(b < len(gpus) for _, b, *_ in rows),
    )


def _graph(raw: Mapping[str, Any], file: Path | None) -> tuple[Any, Any]:
    try:
        from infragraph import Infrastructure
        from infragraph.infragraph_service import InfraGraphService
    except ImportError as error:
        raise MissingDependency(
            f"InfraGraph files need the package infragraph ({one_line(str(error))}): "
            "pip install 'astra-bridge[infragraph]'"
        ) from None
    service = InfraGraphService()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of components without edges
            service.set_graph(Infrastructure().deserialize(dict(raw)))
    except Exception as error:  # the package has no base of its own for them
        raise InputError(f"infragraph says: {one_line(str(error))}", file=file) from None
    return service.get_networkx_graph(), service.infrastructure


def _value(text: str | None, units: dict[str, float]) -> float | None:
    """Of "400 Gbps" the number, in the first of the units; None for what is none of them."""
    value, _, unit = (text or "").partition(" ")
    return float(value) * units[unit] if unit in units else None


def _attach(at: dict[str, list[_Cable]], cable: _Cable) -> None:
    for end in cable.ends:
        at[end].append(cable)


def _simplify(at: dict[str, list[_Cable]], nodes: dict[str, dict[str, Any]]) -> None:
    """Join the edges of components in between, and drop what leads nowhere."""
    todo = list(at)
    while todo:
        node = todo.pop()
        kind = str(nodes[node]["type"]).lower()
        cables = at.get(node, [])
        if node not in at or kind == "xpu" or len(cables) > 2:
            continue
        others = [end for cable in cables for end in cable.ends if end != node]
        kept = kind == "cpu" or "switch" in kind or "asic" in kind
        if len(cables) == 2 and kept and others[0] != others[1]:
            continue
        for cable, other in zip(cables, others, strict=True):
            at[other].remove(cable)
        del at[node]
        if len(cables) == 2 and others[0] != others[1]:
            one, two = cables
            gbps, ns = (
                [value for value in pair if value is not None]
                for pair in ((one.gbps, two.gbps), (one.ns, two.ns))
            )
            link = f"{one.link} + {two.link}"
            ends = (others[0], others[1])
            _attach(at, _Cable(ends, link, min(gbps, default=None), sum(ns) if ns else None))
        todo += others


def _order(
    at: dict[str, list[_Cable]],
    nodes: dict[str, dict[str, Any]],
    gpus: list[str],
    infrastructure: Any,
) -> tuple[list[str], tuple[NodeRange, ...]]:
    """Nodes that GPUs reach, those of an instance and component in a row, and their names."""
    seen, stack = set(gpus), list(gpus)
    while stack:
        for cable in at[stack.pop()]:
            for end in cable.ends:
                if end not in seen:
                    seen.add(end)
                    stack.append(end)
    groups: dict[tuple[str, str], list[str]] = {}
    for node in [*gpus, *(node for node in at if node in seen and node not in set(gpus))]:
        component = node.rpartition(".")[0].rpartition(".")[2]
        groups.setdefault((nodes[node]["instance"].partition(".")[0], component), []).append(node)
    said = {one.name: one.description or "" for one in infrastructure.instances}
    tier = {one.name: one.description or "" for one in infrastructure.devices}
    order: list[str] = []
    names = []
    for (instance, component), members in groups.items():
        single = sum(one == instance for one, _ in groups) == 1
        label = tier.get(nodes[members[0]]["device"], "")
        if not _WORD.fullmatch(label):
            label = "gpu" if members[0] in gpus[:1] else instance if single else component
        name = instance if single else f"{instance}.{component}"
        if _plain(said.get(instance, "")) == instance and single:
            name = said[instance]
        names.append(NodeRange(_label(label), len(order), len(members), _label(name)))
        order += members
    return order, tuple(names)


def _label(text: str) -> str:
    return re.sub(r"[^\w.:/-]", "-", text)[:80] or "node"


def _plain(name: str) -> str:
    """A name as InfraGraph takes it, where a full stop divides names."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def infragraph_text(network: NetworkLinks) -> str:
    """The YAML of a network as an InfraGraph; :func:`read_infragraph` gives the network back.

    A range of nodes becomes the instances of a device of its own: an xpu or a switch, and a NIC or
    port for each cable.  The logical dimensions are not part of an InfraGraph.

    Raises
    ------
    InputError
        A link has no way back, or loses packets: an InfraGraph cannot say so.

    Examples
    --------
    >>> from astra_bridge.fabrics import hgx
    >>> print(infragraph_text(hgx(2, nvswitches=1)).partition("devices:")[0])
    # 2 GPUs
    name: network
    description: Written by astra-bridge
    <BLANKLINE>
    """
    links = LinkColumns.of(network.links)
    rows = list(
        zip(
            links.src.tolist(),
            links.dst.tolist(),
            links.bandwidth_GiBps.tolist(),
            links.latency_ns.tolist(),
            links.loss.tolist(),
            strict=True,
        )
    )
    forward, backward = rows[0::2], rows[1::2]
    if len(rows) % 2 or any(
        (a[1], a[0], *a[2:]) != b or a[4] for a, b in zip(forward, backward, strict=True)
    ):
        raise InputError(
            "an InfraGraph has links that go both ways and lose nothing only", key="links"
        )
    ranges = named(network)
    labels = list(_unique(_plain(one.name) for one in ranges))
    place = {
        node: (label, node - one.first, "nic" if node < network.endpoints else "port")
        for one, label in zip(ranges, labels, strict=True)
        for node in range(one.first, one.first + one.count)
    }
    next_port = [0] * network.nodes
    kinds = {kind: f"link{index}" for index, kind in enumerate(dict.fromkeys(r[2:] for r in rows))}

    def end(node: int) -> str:
        label, index, component = place[node]
        next_port[node] += 1
        port = f"{component}[{next_port[node] - 1}]"
        return f'{{instance: "{label}[{index}]", component: "{port}"}}'

    edges = [
        f"  - {{ep1: {end(a)}, ep2: {end(b)}, scheme: one2one, link: {kinds[tuple(kind)]}}}"
        for a, b, *kind in forward
    ]
    lines = [f"# {network.endpoints} GPUs", "name: network", "description: Written by astra-bridge"]
    lines.append("devices:")
    for one, label in zip(ranges, labels, strict=True):
        most = max(next_port[one.first : one.first + one.count])
        lines += _device(one, label, most, gpu=one.first < network.endpoints)
    lines.append("instances:")
    lines += [
        f"  - {{name: {json.dumps(label)}, description: {json.dumps(one.name)}, "
        f"device: {json.dumps(label)}, count: {one.count}}}"
        for one, label in zip(ranges, labels, strict=True)
    ]
    lines.append("links:" if kinds else "links: []")
    lines += [
        f"  - {{name: {name}, physical: {{bandwidth: {{choice: gigabits_per_second, "
        f"gigabits_per_second: {_decimal(rate * (1 << 30) * 8 / 1e9)}}}, "
        f"latency: {{choice: ns, ns: {_decimal(ns)}}}}}}}"
        for (rate, ns, _), name in kinds.items()
    ]
    lines += ["edges:" if edges else "edges: []", *edges]
    return "\n".join(lines) + "\n"


def _device(one: NodeRange, label: str, ports: int, *, gpu: bool) -> list[str]:
    core, port, kind = ("xpu", "nic", "nic") if gpu else ("switch", "port", "port")
    lines = [f"  - name: {json.dumps(label)}", f"    description: {json.dumps(one.tier)}"]
    lines += ["    components:", f"      - {{name: {core}, choice: {core}, count: 1}}"]
    if not ports:
        return [*lines, "    links: []", "    edges: []"]
    return [
        *lines,
        f"      - {{name: {port}, choice: {kind}, count: {ports}}}",
        "    links: [{name: inside}]",
        f"    edges: [{{ep1: {{component: {core}}}, ep2: {{component: {port}}}, "
        "scheme: many2many, link: inside}]",
    ]


def _decimal(value: float) -> str:
    """A number that YAML 1.1 takes for one: 1e-05 it takes for text."""
    near = round(value, 6)
    said = near if abs(near - value) <= 1e-12 * value else value
    return f"{said:.1f}" if said.is_integer() else f"{said:.17f}".rstrip("0")


def _unique(names: Iterable[str]) -> Iterable[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
