# SPDX-License-Identifier: MIT
"""SimAI's topology file (github.com/aliyun/SimAI), as its generator writes and its ns-3 reads it.

Words separated by white space: nodes, GPUs per server, NVSwitches, other switches, links, type of
GPU; then the ids of all switches, NVSwitches first; then for each link its two nodes, its rate, its
delay and the probability of an error.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from astra_bridge.arguments import integer, number_text, whole_text
from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import MAX_GPUS
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, NodeRange
from astra_bridge.inputs.reading import in_file
from astra_bridge.text import show
from astra_bridge.units import PS_PER_NS, parse_rate_Bps, parse_time_ps

__all__ = ["is_simai", "read_simai"]

_HEADER = ("nodes", "GPUs per server", "NVSwitches", "switches", "links")
_TIERS = ("leaf", "spine", "core")


def is_simai(text: str) -> bool:
    """Whether the first line is that of such a file."""
    words = text.partition("\n")[0].split()
    return len(words) == 6 and all(word.isdigit() for word in words[:5])


def read_simai(text: str, file: Path | None = None) -> NetworkLinks:
    """Read a topology of SimAI.

    Parameters
    ----------
    text
        Content of the file.
    file
        Its name, for errors.

    Returns
    -------
    NetworkLinks
        GPUs first, then NVSwitches, then leaves (switches next to GPUs), spines and what is above;
        the logical dimensions are GPUs per server and servers.

    Raises
    ------
    InputError
        Names the place, the value and what is allowed.

    Examples
    --------
    >>> network = read_simai('''5 2 0 1 4 H100
    ... 4
    ... 0 4 400Gbps 0.0005ms 0
    ... 1 4 400Gbps 0.0005ms 0
    ... 2 4 400Gbps 0.0005ms 0
    ... 3 4 400Gbps 0.0005ms 0''')
    >>> network.endpoints, network.dims, network.name_of(4)
    (4, (2, 2), 'leaf0')
    """
    words = text.split()
    place = 0

    def word(what: str) -> str:
        nonlocal place
        place += 1
        if place > len(words):
            raise InputError("the file ends here", file=file, key=what)
        return words[place - 1]

    def whole(what: str, low: int, high: int) -> int:
        return int(in_file(whole_text(low, high), word(what), file=file, key=what))

    nodes, per_server, nvswitches, switches, count = (
        whole(what, 1 if what in ("nodes", "GPUs per server") else 0, 4 * MAX_GPUS)
        for what in _HEADER
    )
    word("type of GPU")
    gpus = nodes - nvswitches - switches
    if gpus < 1 or gpus % per_server:
        raise InputError(
            f"{gpus} GPUs are left of {nodes} nodes; allowed: multiples of {per_server}",
            file=file,
            key="nodes",
        )
    ids = [whole("id of a switch", 0, nodes - 1) for _ in range(nvswitches + switches)]
    if len(set(ids)) < len(ids):
        again = next(one for one, count in Counter(ids).items() if count > 1)
        raise InputError(f"{again} is there twice", file=file, key="id of a switch")
    rows: list[tuple[int, int, float, float, float]] = []
    for index in range(count):
        key = f"link {index}"
        src, dst = whole(key, 0, nodes - 1), whole(key, 0, nodes - 1)
        if src == dst:
            raise InputError(f"joins node {src} with itself", file=file, key=key)
        try:
            rate = parse_rate_Bps(word(key)) / (1 << 30)
            delay = parse_time_ps(word(key)) / PS_PER_NS
        except ValueError as error:
            raise InputError(str(error), file=file, key=key) from None
        loss = in_file(number_text(0, 1), word(key), file=file, key=key)
        rows.append((src, dst, rate, delay, loss))
    if place < len(words):
        raise InputError(f"{show(words[place])} follows the last link", file=file)
    names, order = _in_tiers(nodes, ids[:nvswitches], ids[nvswitches:], rows)
    number = np.empty(nodes, np.int64)
    number[order] = np.arange(nodes)
    both = [(a, b, *rest) for src, dst, *rest in rows for a, b in ((src, dst), (dst, src))]
    src_, dst_, *others = map(np.array, zip(*both, strict=True)) if both else [np.zeros(0, int)] * 5
    dims = in_file(integer(1, MAX_GPUS), gpus, file=file, key="nodes") // per_server
    return NetworkLinks(
        gpus,
        nodes,
        LinkColumns(number[src_], number[dst_], *others),
        tuple(size for size in (per_server, dims) if size > 1) or (1,),
        file,
        names,
    )


def _in_tiers(
    nodes: int,
    nvswitches: list[int],
    switches: list[int],
    rows: list[tuple[int, int, float, float, float]],
) -> tuple[tuple[NodeRange, ...], list[int]]:
    """Names, and the file's ids in our order; a switch is as high as its way to a GPU is long."""
    inside = set(nvswitches)
    out: list[list[int]] = [[] for _ in range(nodes)]
    for src, dst, *_ in rows:
        if src not in inside and dst not in inside:
            out[src].append(dst)
            out[dst].append(src)
    known = inside | set(switches)
    gpus = [node for node in range(nodes) if node not in known]
    tiers, seen, front = [], set(gpus), gpus
    while front := sorted({other for node in front for other in out[node]} - seen):
        seen |= set(front)
        tiers.append(front)
    apart = sorted(set(switches) - seen)
    tiers += [apart] if apart else []
    names = [NodeRange("gpu", 0, len(gpus))]
    order = list(gpus)
    labels = [*_TIERS, *(f"tier{level}" for level in range(len(_TIERS), len(tiers)))]
    for tier, name, members in [
        ("nvlink", "nvswitch", nvswitches),
        *((label, label, members) for label, members in zip(labels, tiers, strict=False)),
    ]:
        if members:
            names.append(NodeRange(tier, len(order), len(members), name))
            order += members
    return tuple(names), order
