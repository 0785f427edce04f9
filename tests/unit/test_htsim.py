# SPDX-License-Identifier: MIT
"""Finding htsim, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from astra_bridge.errors import BackendUnavailable, InputError
from astra_bridge.network.htsim.backend import prepare
from astra_bridge.network.htsim.build import HTSIM, find_htsim
from astra_bridge.network.spec import NetworkRequest

TOPO = """Nodes 8
Tiers 2
Podsize 8
Tier 0
Downlink_speed_Gbps 100
Radix_Down 4
Radix_Up 2
Downlink_Latency_ns 1000
Oversubscribed 2
Tier 1
Downlink_speed_Gbps 100
Radix_Down 2
Downlink_Latency_ns 1000
"""


def tree(root: Path) -> Path:
    (root / "sim" / "datacenter").mkdir(parents=True)
    for name in ("eventlist.h", "Makefile", "ndp.cpp", "datacenter/fat_tree_topology.cpp"):
        (root / "sim" / name).write_text("")
    return root


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HTSIM_ROOT", raising=False)
    assert "HTSIM_ROOT must be a checkout of github.com/Broadcom/csg-htsim" in str(
        HTSIM.unavailable()
    )
    monkeypatch.setenv("HTSIM_ROOT", str(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"has no sim/eventlist\.h"):
        find_htsim()


def test_a_checkout_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTSIM_ROOT", str(tree(tmp_path)))
    found = find_htsim()
    assert (str(found), found.origin) == ("htsim", "HTSIM_ROOT")
    # Changes to any source compile anew.
    names = {path.name for path in found.marks}
    assert names == {"Makefile", "eventlist.h", "ndp.cpp", "fat_tree_topology.cpp"}
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# packed\n1234567890 refs/heads/main\n")
    assert find_htsim().version == "1234567"
    (git / "refs" / "heads" / "main").write_text("abcdef0123\n")
    assert find_htsim().version == "abcdef0"
    (git / "HEAD").write_text("0fedcba987\n")
    assert find_htsim().version == "0fedcba"


def test_its_own_topology_file_is_its_own_fat_tree(tmp_path: Path) -> None:
    file = tmp_path / "small.topo"
    file.write_text(TOPO)
    prepared = prepare(NetworkRequest(file, options={"transport": "eqds"}))
    assert prepared.config.endpoints == 8
    assert len(prepared.config.links) == 2 * (8 + 4)
    assert prepared.config.options == {"transport": "eqds", "fat_tree": str(file)}
    prepared = prepare(NetworkRequest(file, options={"fat_tree": "none"}))
    assert prepared.config.options == {}


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    file = tmp_path / "small.topo"
    file.write_text(TOPO)
    with pytest.raises(InputError, match=r"unknown option 'transprot'.*transport"):
        prepare(NetworkRequest(file, options={"transprot": "ndp"}))
