# SPDX-License-Identifier: MIT
"""Every backend takes every fabric from the same file, and none is faster than physics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import astra_bridge as ab
from astra_bridge import fabrics
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, network_text
from astra_bridge.network.registry import backend as find

SIZE = 1 << 16

FABRICS = {
    "rail": fabrics.rail(16, gpus_per_host=4, hosts_per_leaf=2),
    "rails alone": fabrics.rail(16, gpus_per_host=4, hosts_per_leaf=2, rail_only=True),
    "two planes": fabrics.rail(16, gpus_per_host=4, planes=2),
    "leaf-spine": fabrics.leaf_spine(16, gpus_per_host=4, oversubscription=2, hosts_per_leaf=2),
    "fat-tree": fabrics.fat_tree(16, gpus_per_host=4),
    "dragonfly": fabrics.dragonfly(
        12, gpus_per_host=2, gpus_per_router=2, routers_per_group=2, global_links=1
    ),
    "torus": fabrics.torus(dims=[4, 4]),
    "hgx": fabrics.hgx(16),
}


def least_ns(network: NetworkLinks) -> float:
    """A GPU sends 2 (n - 1) / n of the data over all its cables, each message over two at least."""
    links = LinkColumns.of(network.links)
    own = links.src == 0
    n = network.endpoints
    rate = float(links.bandwidth_GiBps[own].sum()) * 2**30 / 1e9
    return 2 * (n - 1) / n * SIZE / rate + float(links.latency_ns[own].min())


@pytest.mark.parametrize(
    "backend", ["analytical-unaware", "analytical-aware", "flow", "garnet", "ns3"]
)
@pytest.mark.parametrize("name", FABRICS)
def test_an_all_reduce_runs(
    name: str, backend: str, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    reason = find(backend).unavailable()
    if reason:
        missing(backend, reason)
    file = tmp_path / "fabric.yml"
    file.write_text(network_text(FABRICS[name]))
    result = ab.simulate(
        workload=ab.collective("all-reduce", SIZE, ranks=FABRICS[name].endpoints),
        system={"all-reduce-implementation": ["ring"] * len(FABRICS[name].dims)},
        network=file,
        backend=backend,
        semantics="corrected",
    )
    finish_ns = result.finish_ps / 1000
    assert len(finish_ns) == FABRICS[name].endpoints
    assert least_ns(FABRICS[name]) <= finish_ns.min()
    assert finish_ns.max() < 100_000
    if "links" in result.tables:
        ends = zip(result.links["src"].tolist(), result.links["src_name"].tolist(), strict=True)
        named = {node: label for node, label in ends if node < FABRICS[name].nodes}
        assert named == {node: FABRICS[name].name_of(node) for node in named}
