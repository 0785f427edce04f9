# SPDX-License-Identifier: MIT
"""Every backend of this package passes the suite, on several networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from astra_bridge.conformance import run_supervised
from astra_bridge.errors import AstraBridgeError
from astra_bridge.network import registry
from tests.waiting import HANGS_S

NETWORKS = {
    "connected": "topology: [FullyConnected]\nnpus_count: [6]\nbandwidth: [50]\nlatency: [500]\n",
    "ring": "topology: [Ring]\nnpus_count: [6]\nbandwidth: [50]\nlatency: [500]\n",
    "two-level": (
        "topology: [Ring, Switch]\nnpus_count: [4, 2]\nbandwidth: [100, 25]\nlatency: [100, 900]\n"
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", registry.BACKENDS.names())
def test_backend_conforms(
    name: str,
    network: str,
    missing: Callable[[str, str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    try:
        reason = registry.backend(name).unavailable()
    except AstraBridgeError as error:
        reason = str(error)
    if reason is not None:
        missing(name, reason)
    file = tmp_path_factory.mktemp("network") / f"{network}.yml"
    file.write_text(NETWORKS[network])
    dimensions = NETWORKS[network].partition("[")[2].partition("]")[0].count(",") + 1
    parts = {"backends": ",".join(["garnet", "flow"][:dimensions])}
    options = parts if name == "composite" else {}
    verdicts = run_supervised(name, network=str(file), options=options, limit_s=HANGS_S)
    assert [v for v in verdicts if v.outcome == "fail"] == []
    assert sum(v.outcome == "pass" for v in verdicts) >= 12
