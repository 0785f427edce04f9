# SPDX-License-Identifier: MIT
"""Several jobs on one network; ranks that become slow, links that change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import astra_bridge as ab
from astra_bridge.errors import InputError, StalledError
from astra_bridge.network.registry import backend as find_backend
from astra_bridge.simulation.jobs import (
    Job,
    LinkFault,
    Slowdown,
    read_faults,
    read_jobs,
    read_ranks,
)
from astra_bridge.workload import TraceBuilder, collective
from tests.small import per_rank, system

MODELS = ("analytical-aware", "analytical-aware-python")
LATENCY_NS, RATE_GIBPS = 500, 1.0
RATE_BPNS = 2**30 / 1e9  # bytes per ns


def ring(ranks: int) -> dict[str, Any]:
    return {
        "topology": ["Ring"],
        "npus_count": [ranks],
        "bandwidth": [RATE_GIBPS],
        "latency": [LATENCY_NS],
    }


def experiment(**arguments: Any) -> ab.Experiment:
    rest = {"workload": None, "system": system(endpoint_delay=0), "network": ring(8)}
    return ab.Experiment(**rest | arguments)


def all_reduce(ranks: int, size: int = 2**20) -> Any:
    return collective("all-reduce", size, ranks)


def compute(duration_us: int, ranks: int = 8) -> Any:
    def fill(trace: TraceBuilder, _rank: int) -> None:
        first = trace.comp(duration_us=duration_us)
        trace.comp(duration_us=duration_us, deps=[first])

    return per_rank(ranks, fill)


def send(size: int, src: int, dst: int, ranks: int = 8) -> Any:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == src:
            trace.send(dst, size, 7)
        if rank == dst:
            trace.recv(src, size, 7)

    return per_rank(ranks, fill)


def need(backend: str, missing: Callable[[str, str], None]) -> None:
    reason = find_backend(backend).unavailable()
    if reason is not None:
        missing("ns3" if backend == "ns3" else "native", reason)


@pytest.mark.parametrize("backend", MODELS)
def test_jobs_on_disjoint_links_end_as_each_alone(backend: str) -> None:
    """Two switches of four: no link is shared."""
    network = {
        "topology": ["Switch", "Switch"],
        "npus_count": [4, 2],
        "bandwidth": [10.0, 1.0],
        "latency": [100.0, 900.0],
    }
    both = experiment(
        network=network,
        backend=backend,
        jobs=[
            Job(all_reduce(4), ranks="0-3", name="a"),
            Job(all_reduce(4, 3 * 2**18), ranks="4-7", name="b", start_ps=7_000),
        ],
    ).run()
    for name, size, start_ps in (("a", 2**20, 0), ("b", 3 * 2**18, 7_000)):
        alone = experiment(
            network={key: value[:1] for key, value in network.items()},
            backend=backend,
            workload=all_reduce(4, size),
        ).run()
        mine = both.of_job(name)
        assert mine.finish_ps.tolist() == (alone.finish_ps + start_ps).tolist()
        assert mine.exposed_comm_ps.tolist() == alone.exposed_comm_ps.tolist()
        assert mine.nodes["end_ps"].tolist() == (alone.nodes["end_ps"] + start_ps).tolist()
    assert both.ranks["rank"].tolist() == list(range(8))
    assert both.ranks["job"].tolist() == ["a"] * 4 + ["b"] * 4


@pytest.mark.parametrize("backend", MODELS)
def test_jobs_on_a_shared_link_wait_for_one_another(backend: str) -> None:
    """One sends from 0 over 1 to 2, the other from 1 to 2: both need the link 1 -> 2.

    A message holds a link for floor(bytes / bandwidth) ns, and is at the next node, whole,
    floor(latency + bytes / bandwidth) ns after it got the link.
    """
    size = 2**20
    held_ns, hop_ns = int(size / RATE_BPNS), int(LATENCY_NS + size / RATE_BPNS)

    def finish_ns(start_ns: int) -> tuple[int, int]:
        jobs = [
            Job(send(size, 0, 1, 2), ranks=(0, 2), name="far"),
            Job(send(size, 0, 1, 2), ranks=(1, 2), name="near", start_ps=1000 * start_ns),
        ]
        result = experiment(backend=backend, jobs=jobs).run()
        far, near = (int(result.of_job(name).finish_ns[0]) for name in ("far", "near"))
        return far, near

    # The near one has the link first; the far one waits until it is free.
    assert finish_ns(500_000) == (500_000 + held_ns + hop_ns, 500_000 + hop_ns)
    # The far one has it first, when its message is whole at node 1.
    assert finish_ns(1_000_000) == (2 * hop_ns, hop_ns + held_ns + hop_ns)
    # They do not meet.
    assert finish_ns(5_000_000) == (2 * hop_ns, 5_000_000 + hop_ns)


def test_tags_of_jobs_do_not_meet() -> None:
    """The same tag, size and ranks in two jobs, of which the second one starts first."""
    jobs = [
        Job(send(4096, 0, 1, 2), ranks=(0, 1), name="late", start_ps=50_000_000),
        Job(send(4096, 0, 1, 2), ranks=(0, 1), name="early"),
    ]
    result = experiment(jobs=jobs).run()
    alone_ns = int(LATENCY_NS + 4096 / RATE_BPNS)
    assert result.of_job("early").finish_ns.tolist() == [alone_ns] * 2
    assert result.of_job("late").finish_ns.tolist() == [50_000 + alone_ns] * 2


@pytest.mark.parametrize("backend", MODELS)
def test_any_placement_is_a_relabelling(backend: str) -> None:
    """Ranks of a fully connected network are all alike."""
    network = {
        "topology": ["FullyConnected"],
        "npus_count": [8],
        "bandwidth": [1.0],
        "latency": [10.0],
    }
    plain = experiment(network=network, backend=backend, workload=all_reduce(8)).run()
    where = np.random.default_rng(5).permutation(8).tolist()
    moved = experiment(network=network, backend=backend, jobs=[Job(all_reduce(8), ranks=where)])
    assert moved.run().finish_ps.tolist() == plain.finish_ps.tolist()
    inner = experiment(
        network=network, backend=backend, jobs=[Job(all_reduce(3), ranks=(6, 1, 4))]
    ).run()
    alone = dict(network) | {"npus_count": [3]}
    expected = experiment(network=alone, backend=backend, workload=all_reduce(3)).run()
    assert inner.finish_ps.tolist() == expected.finish_ps.tolist()


@pytest.mark.parametrize("backend", [*MODELS, "flow", "garnet", "ns3"])
def test_a_slow_rank_takes_longer_from_a_time_on(
    backend: str, missing: Callable[[str, str], None]
) -> None:
    """Two nodes of 10 us: the one that runs is not changed, the next one takes 2.5 times."""
    need(backend, missing)
    faults = [Slowdown(rank=3, at_ps=4_000_000, factor=2.5)]
    result = experiment(workload=compute(10), backend=backend, faults=faults).run()
    expected = [20_000] * 8
    expected[3] = 10_000 + 25_000
    assert result.finish_ns.tolist() == expected


@pytest.mark.parametrize("backend", MODELS)
def test_a_link_at_half_its_bandwidth(backend: str) -> None:
    size = 2**20
    one = experiment(workload=send(size, 0, 1), backend=backend)
    whole_ns = int(LATENCY_NS + size / RATE_BPNS)
    assert one.run().finish_ns[:2].tolist() == [whole_ns] * 2
    half = one.replace(faults=[LinkFault((0, 1), 0, 0.5)]).run()
    assert half.finish_ns[:2].tolist() == [int(LATENCY_NS + 2 * size / RATE_BPNS)] * 2
    # Too late for this message, and another link.
    for fault in (LinkFault((0, 1), 2_000_000_000, 0.5), LinkFault((1, 0), 0, 0.5)):
        assert one.replace(faults=[fault]).run().finish_ns[:2].tolist() == [whole_ns] * 2
    # Down until 3 ms, when it is as it was.
    faults = [LinkFault((0, 1), 0, 0.0), LinkFault((0, 1), 3_000_000_000, 1.0)]
    assert one.replace(faults=faults).run().finish_ns[:2].tolist() == [3_000_000 + whole_ns] * 2


def test_a_slow_link_of_garnet(missing: Callable[[str, str], None]) -> None:
    """All flits wait for the link: each takes 1 / scale times as long.

    Garnet's clock is a whole number of cycles of the link per flit, so what the message takes is
    bytes / bandwidth up to one flit; how it grows with the scale is exact.
    """
    need("garnet", missing)
    size = 2**16
    one = experiment(workload=send(size, 0, 1), backend="garnet")
    half, quarter = (
        int(one.replace(faults=[LinkFault((0, 1), 0, scale)]).run().finish_ps[0])
        for scale in (0.5, 0.25)
    )
    whole = int(one.run().finish_ps[0])
    assert half - whole == pytest.approx(size / RATE_BPNS * 1000, rel=1e-4)
    assert quarter - whole == 3 * (half - whole)
    faults = [LinkFault((0, 1), 0, 0.0), LinkFault((0, 1), 3_000_000_000, 1.0)]
    assert one.replace(faults=faults).run().finish_ps[0] == pytest.approx(3e9 + whole, abs=1e4)


def test_a_slow_link_of_ns3(missing: Callable[[str, str], None]) -> None:
    """Packets wait for the link between ranks 0 and 1.

    Its bytes (payload and headers) take bytes / bandwidth, at a scale so many times as long.
    """
    need("ns3", missing)
    one = experiment(workload=send(2**16, 0, 1), backend="ns3")
    result = one.run()
    at = int(np.flatnonzero((result.links["src"] == 0) & (result.links["dst"] == 1))[0])
    wire_ps = int(result.links["bytes"][at]) / RATE_BPNS * 1000
    for scale in (0.5, 0.25):
        slow = one.replace(faults=[LinkFault((0, 1), 0, scale)]).run()
        longer_ps = int(slow.finish_ps[0] - result.finish_ps[0])
        # ns-3 rounds the time of each of 16 packets down to whole ps.
        assert longer_ps == pytest.approx(wire_ps * (1 / scale - 1), abs=16 / scale)


def test_a_link_that_stays_down_is_told() -> None:
    one = experiment(workload=send(4096, 0, 1), faults=[LinkFault((0, 1), 0, 0.0)])
    with pytest.raises(StalledError, match="0 -> 1"):
        one.run()


def test_links_have_the_numbers_of_the_table() -> None:
    for network in (
        ring(5),
        {"topology": ["Ring", "FullyConnected", "Switch"], "npus_count": [3, 4, 2],
         "bandwidth": [1.0] * 3, "latency": [1.0] * 3},
    ):  # fmt: skip
        ranks = int(np.prod(network["npus_count"]))
        one = experiment(
            network=network,
            workload=collective("all-to-all", 2**16, ranks),
            system=system(all_to_all_implementation=["direct"] * len(network["npus_count"])),
        )
        links = one.run().links
        src, dst = one.prepared.link_ends()
        assert src[links["link"]].tolist() == links["src"].tolist()
        assert dst[links["link"]].tolist() == links["dst"].tolist()


def test_unaware_says_that_it_has_no_links() -> None:
    one = experiment(
        workload=send(4096, 0, 1), backend="analytical-unaware", faults=[LinkFault(0, 0, 0.5)]
    )
    with pytest.raises(InputError, match="LINK_FAULTS is not declared"):
        one.run()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workload": None}, "one of workload and jobs"),
        ({"jobs": [Job("w")], "workload": "w"}, "one of workload and jobs"),
        ({"jobs": [Job("w", name="a"), Job("w", name="a")]}, "same name"),
        ({"jobs": [Job(all_reduce(4), ranks="0-7")]}, "4 ranks"),
        ({"jobs": [Job(all_reduce(4), ranks=(0, 1, 2, 9))]}, "is 9; allowed: 0 to 7"),
        ({"jobs": [Job(all_reduce(4), ranks=(0, 1, 2, 2))]}, "stands there twice"),
        ({"workload": all_reduce(8), "faults": [Slowdown(8, 0, 2.0)]}, "allowed: 0 to 7"),
        ({"workload": all_reduce(8), "faults": [LinkFault((0, 4), 0, 0.5)]}, "no link goes"),
        ({"workload": all_reduce(8), "faults": [LinkFault(99, 0, 0.5)]}, "link 99"),
        ({"workload": all_reduce(8), "faults": ["x"]}, "faults"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        experiment(**arguments).run()


def test_two_systems_on_one_rank_are_refused() -> None:
    jobs = [
        Job(all_reduce(4), ranks="0-3", name="a"),
        Job(all_reduce(4), ranks="3-6", name="b", system=system(endpoint_delay=9)),
    ]
    with pytest.raises(InputError, match="rank 3"):
        experiment(jobs=jobs).run()
    apart = [jobs[0], Job(all_reduce(4), ranks="4-7", name="b", system=system(endpoint_delay=9))]
    a, b = (experiment(jobs=apart).run().of_job(name).finish_ps for name in "ab")
    assert b.min() > a.max()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("links: 3", "list of mappings"),
        ("- {link: 0, at: 1us}", r"faults\[0\]: lacks bandwidth"),
        ("- {link: 0, at: 1us, bandwith: 1}", "did you mean 'bandwidth'"),
        ("- {rank: 0, at: soon, slowdown: 2}", r"faults\[0\].at"),
        ("- {rank: 0, at: -1, slowdown: 2}", "out of range"),
        ("- {rank: 0, at: 1us, slowdown: -2}", "factor"),
        ("- {rank: x, at: 1us, slowdown: 2}", "rank"),
    ],
)
def test_files_of_faults(content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_faults(yaml.safe_load(content), file=Path("faults.yaml"))


def test_files_of_jobs() -> None:
    file = Path("folder/experiment.yaml")
    (job,) = read_jobs([{"workload": "w/trace", "start": 2500, "ranks": [3, 4]}], file=file)
    assert job == Job(Path("folder/w/trace"), (3, 4), 2_500_000, "job0")
    assert read_ranks("0-2, 7", "ranks") == (0, 1, 2, 7)
    for bad, said in (([{}], "lacks workload"), ([{"workload": "w", "rank": 1}], "unknown key")):
        with pytest.raises(InputError, match=said):
            read_jobs(bad, file=file)
