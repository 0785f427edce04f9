# SPDX-License-Identifier: MIT
"""Tori, in which the GPUs themselves forward, and hosts around NVSwitches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from astra_bridge.arguments import integer, list_of
from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import MAX_GPUS, Fabric, checked, exact
from astra_bridge.inputs.network import NetworkLinks

__all__ = ["torus"]


def torus(
    gpus: int | None = None,
    *,
    dims: Sequence[int] | None = None,
    nic_gbps: float = 400.0,
    latency_ns: float = 500.0,
) -> NetworkLinks:
    """Torus: a ring of GPUs along every line of a grid; GPUs forward for one another.

    Parameters
    ----------
    gpus
        GPUs in all; may be left out where ``dims`` says it.
    dims
        GPUs along each dimension, dimension 0 fastest in GPU ids.  Default: three that are as
        close to each other as the number allows.
    nic_gbps
        Bandwidth of each cable [Gbit/s]; a GPU has two per dimension, one where that is 2 long.
    latency_ns
        Time to cross a cable [ns].

    Returns
    -------
    NetworkLinks
        With the dimensions of the torus as logical ones.

    Raises
    ------
    InputError
        Names the parameter, its value and what is allowed.

    Examples
    --------
    >>> network = torus(dims=[4, 4, 2])
    >>> network.endpoints, network.nodes, len(network.links) // 2
    (32, 32, 80)
    >>> torus(64).dims
    (4, 4, 4)
    """
    if dims is None and gpus is None:
        raise InputError("missing; give it, or dims", key="gpus")
    shape = None if dims is None else list_of(integer(1, MAX_GPUS))(dims, "dims")
    total = math.prod(shape) if shape is not None and gpus is None else gpus
    given = checked({"gpus": total, "nic_gbps": nic_gbps, "latency_ns": latency_ns})
    if shape is None:
        shape = _near_cube(given["gpus"])
    if math.prod(shape) != given["gpus"]:
        sizes = " x ".join(map(str, shape))
        raise InputError(f"{sizes} is {math.prod(shape)}, but gpus is {total}", key="dims")
    fabric = Fabric(given["gpus"])
    stride = 1
    for size in shape:
        own = fabric.gpus // stride % size
        # A ring of two is one cable.
        start = fabric.gpus if size > 2 else fabric.gpus[own < size - 1]
        end = start + ((own[start] + 1) % size - own[start]) * stride
        fabric.join(start, end, exact(given["nic_gbps"]), given["latency_ns"])
        stride *= size
    return fabric.network(shape, forward=True)


def _near_cube(count: int) -> tuple[int, ...]:
    """Three factors, the largest as small as it can be."""
    divisors = [one for one in range(1, count + 1) if count % one == 0]
    return min(
        ((count // (x * y), y, x) for x in divisors for y in divisors if count % (x * y) == 0),
        key=lambda sizes: (max(sizes), sum(sizes)),
    )
