# SPDX-License-Identifier: MIT
"""Fabrics that clusters are built of, each a function that gives a network of links.

The GPUs of a fabric are nodes 0 .. gpus-1, host after host; the switches have tiers and names.

Examples
--------
>>> import astra_bridge as ab
>>> network = ab.fabrics.rail(gpus=64, gpus_per_host=8)
>>> network.name_of(network.nodes - 1)
'spine7'
"""

from astra_bridge.fabrics.clos import leaf_spine, rail
from astra_bridge.fabrics.convert import read_topology
from astra_bridge.fabrics.dragonfly import dragonfly
from astra_bridge.fabrics.fat_tree import fat_tree
from astra_bridge.fabrics.hgx import hgx
from astra_bridge.fabrics.infragraph import infragraph_text
from astra_bridge.fabrics.torus import torus

__all__ = [
    "dragonfly",
    "fat_tree",
    "hgx",
    "infragraph_text",
    "leaf_spine",
    "rail",
    "read_topology",
    "torus",
]
