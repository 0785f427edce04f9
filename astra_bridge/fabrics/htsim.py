# SPDX-License-Identifier: MIT
"""The fat-tree files (.topo) of htsim (github.com/Broadcom/csg-htsim): two or three tiers.

Lines of a key and a number.  The head has Nodes, Tiers and Podsize; then ``Tier 0`` (top of rack),
``Tier 1`` (aggregation) and ``Tier 2`` (core) each have the ports and the links below them.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from astra_bridge.arguments import number_text
from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import MAX_GPUS, Fabric, exact, room
from astra_bridge.inputs.network import NetworkLinks
from astra_bridge.inputs.reading import in_file
from astra_bridge.text import nearest

__all__ = ["is_htsim", "read_htsim"]

_HEAD = ("nodes", "tiers", "podsize")
_DEFAULTS = {
    "downlink_speed_gbps": None,
    "radix_down": None,
    "radix_up": None,
    "downlink_latency_ns": None,
    "switch_latency_ns": 0.0,
    "bundle": 1.0,
    "oversubscribed": 1.0,
    # Of packets in queues; the backends have their own.
    "queue_up": 0.0,
    "queue_down": 0.0,
}
_WHOLE = ("nodes", "tiers", "podsize", "radix_down", "radix_up", "bundle")


def is_htsim(text: str) -> bool:
    """Whether the first word that is no comment is a key of the head."""
    lines = (line.split() for line in text.splitlines())
    first = next((line[0] for line in lines if line and not line[0].startswith("#")), "")
    return first.lower() in _HEAD


def read_htsim(text: str, file: Path | None = None) -> NetworkLinks:
    """Read a fat-tree of htsim; its hosts are GPUs.

    Parameters
    ----------
    text
        Content of the file.
    file
        Its name, for errors.

    Returns
    -------
    NetworkLinks
        A switch's latency is shared out to its links, half to each that a packet takes.

    Raises
    ------
    InputError
        Names the place, the value and what is allowed.

    Examples
    --------
    >>> network = read_htsim('''Nodes 8
    ... Tiers 2
    ... Podsize 8
    ... Tier 0
    ... Downlink_speed_Gbps 100
    ... Radix_Down 4
    ... Radix_Up 2
    ... Downlink_Latency_ns 1000
    ... Oversubscribed 2
    ... Tier 1
    ... Downlink_speed_Gbps 100
    ... Radix_Down 2
    ... Downlink_Latency_ns 1000''')
    >>> [(one.tier, one.count) for one in network.names]
    [('gpu', 8), ('leaf', 2), ('spine', 2)]
    """
    head, tiers = _parse(text, file)

    def fail(message: str, key: str) -> InputError:
        return InputError(message, file=file, key=key)

    nodes, count, pod = (head[key] for key in _HEAD)
    if count not in (2, 3) or len(tiers) != count:
        raise fail(f"{count} tiers, and {len(tiers)} are described; allowed: 2 or 3", "tiers")
    if nodes % pod:
        raise fail(f"{pod} is not allowed; allowed: divisors of nodes, which is {nodes}", "podsize")
    if count == 2:
        pod = nodes  # they are joined by all switches of the next tier
    down, up = [int(t["radix_down"]) for t in tiers], [int(t["radix_up"]) for t in tiers[:-1]]
    bundle = [1, *(int(t["bundle"]) for t in tiers[1:])]
    racks = pod // down[0] if pod % down[0] == 0 else 0
    if not racks:
        raise fail(f"{down[0]} does not divide {pod} hosts of a pod", "tier 0 radix_down")
    pods, below = nodes // pod, [0, racks, nodes // pod]
    for tier in range(1, count):
        if up[tier - 1] % bundle[tier]:
            raise fail(
                f"{up[tier - 1]} is no multiple of the bundle above", f"tier {tier - 1} radix_up"
            )
        if down[tier] != below[tier] * bundle[tier]:
            raise fail(
                f"{down[tier]} is not allowed; allowed: {below[tier] * bundle[tier]}, a bundle of "
                f"{bundle[tier]} to each switch below",
                f"tier {tier} radix_down",
            )
    speeds = [exact(t["downlink_speed_gbps"]) for t in tiers]
    for tier in range(count - 1):
        own = down[tier] * speeds[tier] / (up[tier] * speeds[tier + 1])
        if own != exact(tiers[tier]["oversubscribed"]):
            raise fail(
                f"{tiers[tier]['oversubscribed']:g} is not allowed; allowed: {float(own):g}, with "
                "these ports and speeds",
                f"tier {tier} oversubscribed",
            )
    half = [Fraction(0), *(exact(t["switch_latency_ns"]) / 2 for t in tiers)]
    delays = [
        float(exact(t["downlink_latency_ns"]) + half[at] + half[at + 1])
        for at, t in enumerate(tiers)
    ]
    links = [pods * racks * up[0], pods * up[0] // bundle[1] * up[-1] * (count == 3)]
    for tier, number in enumerate(links):
        in_file(room, number, file=file, key=f"tier {tier} radix_up")
    fabric = Fabric(nodes)
    rack = fabric.add("leaf", pods * racks, "leaf")
    fabric.join(fabric.gpus, rack[fabric.gpus // down[0]], speeds[0], delays[0])
    middle = up[0] // bundle[1]
    spine = fabric.add("spine", pods * middle, "spine").reshape(pods, middle)
    above = np.repeat(spine[np.arange(pods * racks) // racks], bundle[1], axis=1)
    fabric.join(rack[:, None], above, speeds[1], delays[1])
    if count == 3:
        far = up[1] // bundle[2]
        core = fabric.add("core", far * middle, "core").reshape(far, middle).T
        cores = np.repeat(core, bundle[2], axis=1)[None, :, :]
        fabric.join(spine[:, :, None], cores, speeds[2], delays[2])
    return fabric.network((nodes,))


def _parse(text: str, file: Path | None) -> tuple[dict[str, int], list[dict[str, float]]]:
    """Head and tiers, with what is not said filled in."""
    head: dict[str, float] = {}
    tiers: list[dict[str, float]] = []
    now, known = head, list(_HEAD)
    for row, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = words[0].lower()
        where = f"line {row}"
        if len(words) != 2:
            raise InputError("expected a key and a number", file=file, key=where)
        if key == "tier":
            if words[1] != str(len(tiers)):
                raise InputError(
                    f"tier {words[1]} is not allowed; allowed: {len(tiers)}", file=file, key=where
                )
            now, known = {}, list(_DEFAULTS)
            tiers.append(now)
            continue
        if key not in known:
            hint = nearest(key, known) or f"; known: {', '.join(known)}"
            raise InputError(f"unknown key {words[0]!r}{hint}", file=file, key=where)
        if key in now:
            raise InputError(f"{words[0]} is there twice", file=file, key=where)
        low = 0 if "latency" in key or "queue" in key else 1e-9
        value = in_file(number_text(low, MAX_GPUS * 1000.0), words[1], file=file, key=where)
        if key in _WHOLE and (value < 1 or value % 1 or value > MAX_GPUS):
            raise InputError(
                f"{words[1]} is not allowed; allowed: whole numbers from 1 to {MAX_GPUS}",
                file=file,
                key=where,
            )
        now[key] = value
    for key in _HEAD:
        if key not in head:
            raise InputError("missing", file=file, key=key)
    for index, tier in enumerate(tiers):
        top = index == len(tiers) - 1
        for key, default in _DEFAULTS.items():
            if key in tier or (top and key == "radix_up"):
                continue
            if default is None:
                raise InputError("missing", file=file, key=f"tier {index} {key}")
            tier[key] = default
    return {key: int(value) for key, value in head.items()}, tiers
