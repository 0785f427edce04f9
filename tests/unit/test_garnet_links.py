# SPDX-License-Identifier: MIT
"""Garnet with links that are slowed, go down and come back."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import astra_bridge as ab
from astra_bridge.errors import ContractError, InputError, SimulationError, StalledError
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Capability, Network, NetworkConfig
from astra_bridge.network.garnet import BACKENDS
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.simulation.jobs import LinkFault
from astra_bridge.workload import TraceBuilder
from tests.effort import examples
from tests.small import per_rank, system

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)

FLIT = 16
NS = 1000  # ps; the clock is 1 GHz, so a cycle is a nanosecond
DOWN = 0.0


def pair(cycles_per_flit: float = 1, buffers: int = 64) -> NetworkConfig:
    """Two nodes, each at its own router; link 0 leads from 0 to 1, link 1 back."""
    options = {
        "routers": "1 1",
        "nodes": "0; 1",
        "links": f"0 1 1 1 {cycles_per_flit}; 1 0 1 1 1",
        "flit_bytes": str(FLIT),
        "buffers_per_data_vc": str(buffers),
    }
    return NetworkConfig(2, 2, options=options)


def transfers(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """TRANSFER records of (start_ps, flits, src, dst), ids in order."""
    made = np.zeros(len(rows), TRANSFER)
    for index, (start_ps, flits, src, dst) in enumerate(rows):
        made[index] = (index, start_ps, flits * FLIT, src, dst, 0, 0, 0)
    return made


def drain(network: Network, count: int, step_ps: int | None = None) -> dict[int, int]:
    """Delivery in ps by id; in steps of a length, or from one completion to the next."""
    times: dict[int, int] = {}
    now = 0
    while len(times) < count:
        now += step_ps or 0
        network.advance(now if step_ps else TIME_NEVER)
        done = network.poll()
        times.update(zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True))
        if step_ps and len(done):
            now = int(done["time_ps"][-1])
    return times


def lone(flits: int, *changes: tuple[int, float], config: NetworkConfig | None = None) -> int:
    """The cycle in which a message of node 0 at cycle 0 is delivered, with changes of link 0."""
    with BACKENDS[0].open(config or pair()) as network:
        for cycle, scale in changes:
            network.set_link(0, cycle * NS, scale)
        network.submit(transfers((0, flits, 0, 1)))
        return drain(network, 1)[0] // NS


# The head of a message of cycle 0 is picked up in 1, is at its router in 3 and begins to cross the
# link in 4.  What crosses the link in cycle c alone is delivered in c + 3: router, interface link.
HEAD = 4


@pytest.mark.parametrize("flits", [1, 2, 7, 40])
@pytest.mark.parametrize("scale", [1, 0.5, 0.3, 1 / 3, 0.125, 1e-3, 1e-9])
def test_a_slowed_link_passes_a_flit_every_1_over_s_cycles(flits: int, scale: float) -> None:
    # Exactly: the time of a flit is 1 / s, rounded up to whole 2**-16 of a cycle.
    each = Fraction(math.ceil(2**16 / scale), 2**16)
    assert lone(flits, (0, scale)) == HEAD + math.ceil(flits * each) - 1 + 3


@pytest.mark.parametrize("flits", [1, 5, 20])
@pytest.mark.parametrize("down", [0, 3, 4, 10, 30])
@pytest.mark.parametrize("lasts", [0, 1, 6, 1000, 10**7])
def test_flits_wait_at_a_link_that_is_down(flits: int, down: int, lasts: int) -> None:
    # A change in cycle c counts for what begins to cross after c: the flits of the cycles 4 .. down
    # cross, the others in the cycles after it is up.
    up = down + lasts
    before = min(max(down - HEAD + 1, 0), flits)
    last = max(HEAD + flits - 1, up + flits - before if before < flits else 0)
    # Down and up again in one cycle is as if nothing had happened.
    assert lone(flits, (down, DOWN), (up, 1.0)) == last + 3


def test_a_flit_on_the_link_keeps_the_rate_with_which_it_began() -> None:
    # Ten cycles per flit: the first crosses in 4 .. 13, and the second begins in 14 at full rate.
    assert lone(3, (0, 0.1), (5, 1.0)) == HEAD + 10 + 2 - 1 + 3
    # Also where the link goes down under it.
    assert lone(3, (0, 0.1), (5, DOWN), (100, 1.0)) == 100 + 2 + 3


def test_a_flit_keeps_its_rate_through_several_changes() -> None:
    # Begun in 4 at 1/8 cycle, so till 11; the second waits for it, and for the link.
    assert lone(2, (0, 0.125), (4, 0.5), (6, DOWN), (8, 0.5)) == HEAD + 8 + 2 - 1 + 3


def test_the_last_change_of_an_instant_counts() -> None:
    assert lone(8, (0, DOWN), (0, 0.5)) == HEAD + 16 - 1 + 3


@given(
    flits=st.integers(1, 30),
    changes=st.lists(
        st.tuples(st.integers(0, 80), st.sampled_from([DOWN, 0.125, 0.3, 0.5, 0.9, 1.0])),
        max_size=6,
    ),
    step=st.sampled_from([None, 700, NS, 4321, 33_333]),
    late=st.booleans(),
)
@settings(deadline=None, max_examples=examples(200))
def test_any_changes_follow_the_rule(
    flits: int, changes: list[tuple[int, float]], step: int | None, late: bool
) -> None:
    plan = [*sorted(changes, key=lambda change: change[0]), (90, 1.0)]
    # The rule, flit by flit: begin when it is there, the link free and up; keep that rate.
    free = Fraction(0)
    for flit in range(flits):
        begin = max(Fraction(HEAD + flit), free)
        scale = next((s for cycle, s in reversed(plan) if cycle + 1 <= begin), 1.0)
        if scale == DOWN:
            # Of several changes in one cycle the last one counts.
            final = dict(plan)
            cycle = min(c for c, s in final.items() if c + 1 > begin and s != DOWN)
            begin, scale = Fraction(cycle + 1), final[cycle]
        free = begin + Fraction(math.ceil(2**16 / scale), 2**16)
    expected = math.ceil(free) - 1 + 3

    with BACKENDS[0].open(pair()) as network:
        network.submit(transfers((0, flits, 0, 1)))
        network.set_link(0, plan[-1][0] * NS, plan[-1][1])  # else a wait might be for ever
        now = 0
        for cycle, scale in plan[:-1]:
            if late and cycle * NS > now:  # told when it happens, not long before
                now = cycle * NS
                network.advance(now)
                if len(done := network.poll()):
                    assert done["time_ps"].tolist() == [expected * NS]
                    return
            network.set_link(0, cycle * NS, scale)
        assert drain_from(network, now, step) == expected * NS


def drain_from(network: Network, now: int, step: int | None) -> int:
    """When the one transfer is delivered, in steps that begin now."""
    while True:
        now += step or 0
        network.advance(now if step else TIME_NEVER)
        if len(done := network.poll()):
            return int(done["time_ps"][0])


# -- a whole network ----------------------------------------------------------------------------


def mesh(cycles_per_flit: int = 1, **options: str) -> NetworkConfig:
    """A 3x3 mesh all of whose links are slow."""
    network = read_garnet(
        {
            "topology": "Mesh_XY 3x3",
            "flit_bytes": FLIT,
            "link_width_bytes": FLIT // cycles_per_flit,
            "packet_bytes": 5 * FLIT,
        }
    )
    return NetworkConfig(9, 9, options={**options_of(network), **options})


def traffic(seed: int, count: int = 60) -> np.ndarray:
    """Transfers between random nodes of nine, at random times within 200 cycles."""
    rng = np.random.default_rng(seed)
    src = rng.integers(0, 9, count)
    dst = (src + rng.integers(1, 9, count)) % 9
    starts, flits = rng.integers(0, 200 * NS, count), rng.integers(1, 12, count)
    return transfers(*zip(starts.tolist(), flits.tolist(), src.tolist(), dst.tolist(), strict=True))


def times_of(config: NetworkConfig, items: np.ndarray, *changes: tuple[int, int, float]) -> object:
    """Deliveries, and the table of links, with changes (link, at_ps, scale)."""
    with BACKENDS[0].open(config) as network:
        for change in changes:
            network.set_link(*change)
        network.submit(items)
        return drain(network, len(items)), network.stats()["tables"]["links"]


MESH_LINKS = 24


@pytest.mark.parametrize("seed", range(3))
def test_slowed_links_are_links_that_were_made_slow(seed: int) -> None:
    slowed = [(link, 0, 0.25) for link in range(MESH_LINKS)]
    assert times_of(mesh(), traffic(seed), *slowed) == times_of(mesh(4), traffic(seed))
    # And the other way round: a link that is a quarter of a flit wide can be made faster.
    quicker = [(link, 0, 4.0) for link in range(MESH_LINKS)]
    assert times_of(mesh(4), traffic(seed), *quicker) == times_of(mesh(), traffic(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_change_to_the_rate_that_a_link_has_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for config in (mesh(), mesh(4)):
        same = [(int(rng.integers(MESH_LINKS)), int(at), 1.0) for at in rng.integers(0, 10**6, 50)]
        assert times_of(config, traffic(seed), *same) == times_of(config, traffic(seed))


@pytest.mark.parametrize("seed", range(20))
def test_changed_links_lose_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = traffic(seed)
    changes = [
        (int(link), int(rng.integers(0, 400 * NS)), float(rng.choice([0, 0.01, 0.3, 1])))
        for link in rng.integers(0, MESH_LINKS, 60)
    ]
    changes += [(link, 500 * NS, 1.0) for link in range(MESH_LINKS)]
    times, links = times_of(mesh(), items, *changes)  # type: ignore[misc]
    healthy, healthy_links = times_of(mesh(), items)  # type: ignore[misc]
    assert sorted(times) == items["id"].tolist()
    assert links["flits"] == healthy_links["flits"]  # routes do not change
    assert sum(times.values()) > sum(healthy.values())
    # However it is split, and copied at any moment.
    with BACKENDS[0].open(mesh()) as network:
        network.submit(items)
        for change in changes:
            network.set_link(*change)
        network.advance(int(rng.integers(0, 100 * NS)))
        early = network.poll()
        with network.snapshot() as copy:
            rest = len(items) - len(early)
            expected = {i: t for i, t in times.items() if i not in early["id"].tolist()}
            assert drain(copy, rest) == expected
        assert drain(network, rest) == expected


def test_statistics_count_the_time_that_a_slowed_link_takes() -> None:
    # Flits begin in 4 .. 9 at full rate, and from 10 on every four cycles.
    with BACKENDS[0].open(pair()) as network:
        network.set_link(0, 9 * NS, 0.25)
        network.submit(transfers((0, 10, 0, 1)))
        assert drain(network, 1)[0] == (10 + 4 * 4 - 1 + 3) * NS
        stats = network.stats()
    links = stats["tables"]["links"]
    assert links["flits"] == [10, 0]
    assert links["busy_ps"] == [(6 + 4 * 4) * NS, 0]
    assert links["utilization"][0] == pytest.approx((6 + 4 * 4) / (28 + 1))
    # What the transfer would take alone on links that are well.
    assert stats["tables"]["flows"]["ideal_fct_ps"] == [(HEAD + 10 - 1 + 3) * NS]


# -- what is refused, and what is stuck ----------------------------------------------------------


def test_links_are_counted_and_scales_are_checked() -> None:
    with BACKENDS[0].open(pair(cycles_per_flit=2)) as network:
        assert Capability.LINK_FAULTS in network.info.capabilities
        network.set_link(0, 0, 2.0)
        with pytest.raises(ContractError, match="link=2 but there are 2 links"):
            network.set_link(2, 0, 1.0)
        with pytest.raises(
            ContractError, match=r"bandwidth_scale=2\.5 of link 0; allowed: 0, or from 2e-09 to 2, "
        ):
            network.set_link(0, 0, 2.5)
        with pytest.raises(ContractError, match="bandwidth_scale=1e-10 of link 1"):
            network.set_link(1, 0, 1e-10)
        with pytest.raises(ContractError, match="beyond the range of time"):
            network.set_link(0, TIME_NEVER, 1.0)


def test_a_network_that_waits_for_a_link_for_ever_is_stuck() -> None:
    with BACKENDS[0].open(pair()) as network:
        network.set_link(0, 0, DOWN)
        items = transfers((0, 200, 0, 1), (0, 1, 1, 0))
        items["id"] += 70
        network.submit(items)
        network.advance(TIME_NEVER)  # the other direction is up
        assert network.poll()["id"].tolist() == [71]
        with pytest.raises(
            SimulationError, match=r": 70 \(waiting for link 0 \(0 -> 1\), which is"
        ):
            network.advance(TIME_NEVER)


def test_waiting_for_a_link_is_no_deadlock_however_long() -> None:
    config = pair(buffers=2)
    config.options["deadlock_threshold"] = "100"
    # 100 flits, of which 2 wait behind the link and 2 before it; the interface has the others.
    assert lone(100, (0, DOWN), (10**6, 1.0), config=config) > 10**6 + 100


def test_a_circle_is_a_deadlock_whatever_link_is_down() -> None:
    # A ring of four, everyone to the opposite node, with one VC; and a link to a fifth router.
    options = {
        "routers": "1 1 1 1 1",
        "nodes": "0; 1; 2; 3; 4",
        "links": "0 1; 1 2; 2 3; 3 0; 0 4",
        "flit_bytes": str(FLIT),
        "vcs_per_vnet": "1",
        "buffers_per_data_vc": "2",
    }
    rows = [(10 * NS, 10, r, (r + 2) % 4) for r in range(4)]
    with BACKENDS[0].open(NetworkConfig(5, 5, options=options)) as network:
        network.set_link(4, 0, DOWN)
        network.submit(transfers(*rows, (0, 1, 0, 4)))
        with pytest.raises(SimulationError, match=r"deadlock in cycle [0-9]+, 5 transfers"):
            network.advance(TIME_NEVER)


# -- faults of an experiment ----------------------------------------------------------------------


def to_the_neighbour(trace: TraceBuilder, rank: int) -> None:
    if rank == 0:
        trace.send(1, 100 * 80, 7)
    elif rank == 1:
        trace.recv(0, 100 * 80, 7)


def test_faults_of_an_experiment_name_routers() -> None:
    one = ab.Experiment(
        backend="garnet",
        network={
            "topology": "Mesh_XY 1x2",
            "flit_bytes": 80,
            "packet_bytes": 8000,
            "buffers_per_data_vc": 64,
        },
        system=system(endpoint_delay=0),
        workload=per_rank(2, to_the_neighbour),
    )
    links = one.run().links
    src, dst = one.prepared.link_ends()
    assert src[links["link"]].tolist() == links["src"].tolist()
    assert dst[links["link"]].tolist() == links["dst"].tolist()
    # A hundred flits; see the formulas above.
    assert one.run().finish_ns.max() == HEAD + 100 - 1 + 3
    half = one.replace(faults=[LinkFault((0, 1), 0, 0.5)])
    assert half.run().finish_ns.max() == HEAD + 200 - 1 + 3
    with pytest.raises(InputError, match=r"link 0.*bandwidth_scale=2 .* to 1, a flit"):
        one.replace(faults=[LinkFault((0, 1), 0, 2.0)]).run()
    with pytest.raises(InputError, match="no link goes from node 1 to node 2"):
        one.replace(faults=[LinkFault((1, 2), 0, 1.0)]).run()
    with pytest.raises(StalledError, match=r"waiting for link 0 \(0 -> 1\), which is down"):
        one.replace(faults=[LinkFault((0, 1), 0, 0.0)]).run()


@pytest.mark.parametrize("ranks", [4, 5, 8, 9])
@pytest.mark.parametrize("size", [100, 1000, 65536])
def test_an_all_to_all_on_a_ring_never_locks_up(ranks: int, size: int) -> None:
    # Packets that have crossed the dateline must not wait for those that have not, however ordered.
    net = {
        "topology": ["Switch", "Ring"],
        "npus_count": [2, ranks],
        "bandwidth": [40.0, 400.5],
        "latency": [7.0, 0.0],
    }
    config = BACKENDS[0].prepare(NetworkRequest(net)).config
    rows = [
        (4 * (3 * (ranks * rank + way) + copy), 0, size, 2 * rank, 2 * ((rank + way) % ranks))
        for rank in range(ranks)
        for way in range(1, ranks)
        for copy in range(3)
    ]
    items = np.zeros(len(rows), TRANSFER)
    for name, column in zip(
        ("id", "start_ps", "bytes", "src", "dst"), zip(*rows, strict=True), strict=True
    ):
        items[name] = column
    with BACKENDS[0].open(config) as network:
        network.submit(items)
        left = len(items)
        while left:
            network.advance(TIME_NEVER)
            left -= len(network.poll())
