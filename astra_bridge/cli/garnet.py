# SPDX-License-Identifier: MIT
"""``astra-bridge garnet``: the Garnet network alone, without traces and collectives."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from astra_bridge.arguments import number_text, path, whole_text
from astra_bridge.cli.command import Argument, Command, group_of
from astra_bridge.errors import InputError
from astra_bridge.files import new_file

__all__ = ["COMMAND"]


def _replay(file: Path, json: Path | None) -> None:
    from astra_bridge.network.garnet.replay import read_messages, replay

    collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them in a cycle: it takes half the time
    try:
        case = read_messages(file)
        began = time.perf_counter()
        result = replay(case)
        seconds = time.perf_counter() - began
        if json is not None:
            _write(json, result.to_json().decode())
    finally:
        if collecting:
            gc.enable()
    if str(json) == "-":
        return
    rows = result.rows
    print(f"{len(case.messages)} messages, {int(rows['flits'].sum())} flits")
    print(f"simulated in {seconds:.3f} s")
    if len(case.messages):
        print(f"last delivery: cycle {int(rows['deliver'].max())}")
        print(f"mean queueing latency: {rows['queueing_latency'].mean():.3f} cycles")
        print(f"mean network latency: {rows['network_latency'].mean():.3f} cycles")
    if case.results is not None:
        expected = _expected(case.results)
        if expected is not None and len(expected) == len(rows["deliver"]):
            same = int(np.count_nonzero(expected == rows["deliver"]))
            print(f"deliveries equal to those in the file: {same} of {len(expected)}")


def _traffic(
    topology: tuple[str, str],
    network: Path | None,
    pattern: str,
    rate: Sequence[float],
    cycles: int,
    warmup: int,
    packet_flits: int,
    seed: int,
    json: Path | None,
    plot: Path | None,
    heat_map: Path | None,
) -> None:
    from dataclasses import asdict

    from astra_bridge.network.garnet.reader import read_garnet
    from astra_bridge.network.garnet.traffic import run_traffic, sweep

    # A sweep goes into saturation on purpose, and says so itself.
    logging.getLogger("astra_bridge.network.garnet").setLevel(logging.ERROR)
    if warmup >= cycles:
        raise InputError(f"{warmup} leaves nothing of {cycles} cycles", key="--warmup")
    if network is not None:
        name = str(network)
        built = read_garnet(network)
    else:
        name = " ".join(topology)
        try:
            built = read_garnet({"topology": name})
        except InputError as error:
            raise InputError(error.reason, key="--topology") from None
    options = {"cycles": cycles, "warmup": warmup, "packet_flits": packet_flits, "seed": seed}
    if rate:
        points = [run_traffic(built, pattern, one, **options) for one in sorted(rate)]
    else:
        points = sweep(built, pattern, **options)
    # Files first: whoever reads the table may go early.
    if json is not None:
        kept = [{k: v for k, v in asdict(point).items() if k != "stats"} for point in points]
        # It writes what is not a number as null, which JSON has.
        content = msgspec.json.encode({"network": name, "pattern": pattern, "points": kept})
        _write(json, content.decode())
    if plot is not None:
        from astra_bridge.network.garnet.plots import plot_curve

        plot_curve(points, f"{name}, {pattern}", plot)
    if heat_map is not None:
        from astra_bridge.network.garnet.plots import plot_heat_map

        title = f"{name}, {pattern}, {points[-1].rate:g} flits/node/cycle"
        plot_heat_map(built, points[-1].stats["tables"]["links"]["utilization"], title, heat_map)
    print(f"{name}, {pattern}, packets of {packet_flits} flits, {cycles} cycles")
    print("    rate  accepted   latency   zero load      hops")
    longest = max(point.latency for point in points)
    for point in points:
        bar = "#" * max(1, round(30 * point.latency / longest))
        print(
            f"{point.rate:8.4f}  {point.throughput:8.4f}  {point.latency:8.2f}    "
            f"{point.zero_load_latency:8.2f}  {point.hops:8.3f}  {bar}"
            f"{'  saturated' if point.saturated else ''}"
        )


def _heat_map(network: Path, folder: Path, plot: Path) -> None:
    import csv

    from astra_bridge.inputs.common import read_text
    from astra_bridge.network.garnet.plots import plot_heat_map
    from astra_bridge.network.garnet.reader import read_garnet

    built = read_garnet(network)
    table = folder / "links.csv"
    rows = list(csv.DictReader(read_text(table).splitlines()))
    try:
        ends = [(int(row["src"]), int(row["dst"])) for row in rows]
        loads = [float(row["utilization"]) for row in rows]
    except (KeyError, ValueError, TypeError):
        raise InputError("not the table of links that a run on Garnet writes", file=table) from None
    if ends != [(link.src, link.dst) for link in built.links]:
        raise InputError(f"its links are not those of {network}", file=table)
    plot_heat_map(built, loads, str(network), plot)


def _expected(results: object) -> np.ndarray | None:
    """The delivery cycles that a message list brings along, or None."""
    try:
        column = results["columns"].index("deliver")  # type: ignore[index]
        return np.array([row[column] for row in results["rows"]], np.int64)  # type: ignore[index]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _write(path: Path, text: str) -> None:
    from astra_bridge.files import write_file

    if str(path) == "-":
        print(text)
        return
    write_file(path, f"{text}\n".encode())


_ANY = 2**63 - 1

COMMAND = group_of(
    "Garnet alone: replay message lists, draw latency against load.",
    {
        "replay": Command(
            "Run a list of messages and say which cycle delivers each.",
            {
                "arguments": (
                    Argument("FILE", "", "A message list (JSON); docs/garnet.md has the format.",
                             path),
                ),
                "options": (
                    Argument("--json", "FILE", "Write the delivery cycle and more of each message "
                             "there; - is stdout.", new_file),
                ),
            },
            _replay,
            "garnet replay messages.json --json delivered.json",
            work="replaying the messages",
        ),
        "traffic": Command(
            "Latency against load for synthetic traffic.",
            {
                "network": (
                    Argument("--topology", "KIND SIZE",
                             "mesh, torus, ring, fullyconnected, crossbar or star.",
                             default=("mesh", "8x8")),
                    Argument("--network", "FILE", "A Garnet YAML instead of --topology.", path),
                ),
                "traffic": (
                    Argument("--pattern", "NAME", "Who sends to whom; docs/garnet.md lists them.",
                             default="uniform"),
                    Argument("--rate", "LOAD", "Offered load in flits per node and cycle.",
                             number_text(0.0001, 1.0), otherwise="a sweep from 0.02 to saturation",
                             repeated=True),
                    Argument("--packet-flits", "FLITS", "Size of a packet.",
                             whole_text(1, 10**6), default=5),
                    Argument("--cycles", "CYCLES", "Time in which packets start.",
                             whole_text(10, 10**9), default=10_000),
                    Argument("--warmup", "CYCLES", "Time before the measurement.",
                             whole_text(0, _ANY), default=1_000),
                    Argument("--seed", "NUMBER", "Seed of the sources.", whole_text(0, _ANY),
                             default=1),
                ),
                "output": (
                    Argument("--json", "FILE", "Write the points there.", new_file),
                    Argument("--plot", "FILE", "Draw latency against load there (matplotlib).",
                             new_file),
                    Argument("--heat-map", "FILE", "Draw the load of each link at the highest "
                             "rate there (matplotlib).", new_file),
                ),
            },
            _traffic,
            "garnet traffic --topology torus 4x4 --rate 0.1 --rate 0.2",
            work="sending the traffic",
        ),
        "heat-map": Command(
            "Draw the load of each link in a run.",
            {
                "arguments": (
                    Argument("NETWORK", "", "The Garnet YAML of the run.", path),
                    Argument("FOLDER", "", "The folder that `run --output` wrote.", path),
                    Argument("PLOT", "", "The picture to write (matplotlib).", path),
                ),
            },
            _heat_map,
            "garnet heat-map mesh.yml out links.svg",
        ),
    },
)  # fmt: skip
