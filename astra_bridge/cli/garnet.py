# SPDX-License-Identifier: MIT
"""``astra-bridge garnet``: the Garnet network alone, without traces and collectives."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _garnet() -> None:
    """Garnet alone: replay message lists, draw latency against load."""


@app.command("replay")
def replay_command(
    file: Path = typer.Argument(..., help="A message list (JSON); docs/garnet.md has the format."),
    json_file: Path | None = typer.Option(
        None, "--json", help="Write the delivery cycle and more of each message here; - is stdout."
    ),
) -> None:
    """Run a list of messages and say which cycle delivers each."""
    from astra_bridge.network.garnet.replay import read_messages, replay

    collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them in a cycle: it takes half the time
    try:
        case = read_messages(file)
        began = time.perf_counter()
        result = replay(case)
        seconds = time.perf_counter() - began
        if json_file is not None:
            _write(json_file, result.to_json().decode())
    finally:
        if collecting:
            gc.enable()
    if str(json_file) == "-":
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


@app.command("traffic")
def traffic_command(
    topology: tuple[str, str] = typer.Option(
        ("mesh", "8x8"), help="Kind and size: mesh, torus, ring, fullyconnected, crossbar, star."
    ),
    network_file: Path | None = typer.Option(
        None, "--network", help="A Garnet YAML instead of --topology."
    ),
    pattern: str = typer.Option("uniform", help="Who sends to whom; docs/garnet.md lists them."),
    rate: list[float] = typer.Option(
        [],
        min=0.0001,
        max=1.0,
        help="Offered load in flits per node and cycle; may be repeated. Default: a sweep from "
        "0.02 to saturation.",
    ),
    cycles: int = typer.Option(10_000, min=10, max=10**9, help="Cycles in which packets start."),
    warmup: int = typer.Option(1_000, min=0, help="Cycles before the measurement."),
    packet_flits: int = typer.Option(5, min=1, max=10**6, help="Flits per packet."),
    seed: int = typer.Option(1, min=0, help="Seed of the sources."),
    json_file: Path | None = typer.Option(None, "--json", help="Write the points here."),
    plot: Path | None = typer.Option(None, help="Draw latency against load here (matplotlib)."),
    heat_map: Path | None = typer.Option(
        None, help="Draw the load of each link at the highest rate here (matplotlib)."
    ),
) -> None:
    """Latency against load for synthetic traffic."""
    from dataclasses import asdict

    from astra_bridge.errors import InputError
    from astra_bridge.network.garnet.reader import read_garnet
    from astra_bridge.network.garnet.traffic import run_traffic, sweep

    # A sweep goes into saturation on purpose, and says so itself.
    logging.getLogger("astra_bridge.network.garnet").setLevel(logging.ERROR)
    if warmup >= cycles:
        raise InputError(f"{warmup} leaves nothing of {cycles} cycles", key="--warmup")
    if network_file is not None:
        network = read_garnet(network_file)
        name = str(network_file)
    else:
        name = " ".join(topology)
        try:
            network = read_garnet({"topology": name})
        except InputError as error:
            raise InputError(error.reason, key="--topology") from None
    options = {"cycles": cycles, "warmup": warmup, "packet_flits": packet_flits, "seed": seed}
    if rate:
        points = [run_traffic(network, pattern, one, **options) for one in sorted(rate)]
    else:
        points = sweep(network, pattern, **options)
    # Files first: whoever reads the table may go early.
    if json_file is not None:
        kept = [{k: v for k, v in asdict(point).items() if k != "stats"} for point in points]
        _write(json_file, json.dumps({"network": name, "pattern": pattern, "points": kept}))
    if plot is not None:
        from astra_bridge.network.garnet.plots import plot_curve

        plot_curve(points, f"{name}, {pattern}", plot)
    if heat_map is not None:
        from astra_bridge.network.garnet.plots import plot_heat_map

        title = f"{name}, {pattern}, {points[-1].rate:g} flits/node/cycle"
        plot_heat_map(network, points[-1].stats["tables"]["links"]["utilization"], title, heat_map)
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


@app.command("heat-map")
def heat_map_command(
    network_file: Path = typer.Argument(..., help="The Garnet YAML of the run."),
    folder: Path = typer.Argument(..., help="The folder that `run --output` wrote."),
    plot: Path = typer.Argument(..., help="The picture to write (matplotlib)."),
) -> None:
    """Draw the load of each link in a run."""
    import csv

    from astra_bridge.errors import InputError
    from astra_bridge.inputs.common import read_text
    from astra_bridge.network.garnet.plots import plot_heat_map
    from astra_bridge.network.garnet.reader import read_garnet

    network = read_garnet(network_file)
    table = folder / "links.csv"
    rows = list(csv.DictReader(read_text(table).splitlines()))
    try:
        ends = [(int(row["src"]), int(row["dst"])) for row in rows]
        loads = [float(row["utilization"]) for row in rows]
    except (KeyError, ValueError, TypeError):
        raise InputError("not the table of links that a run on Garnet writes", file=table) from None
    if ends != [(link.src, link.dst) for link in network.links]:
        raise InputError(f"its links are not those of {network_file}", file=table)
    plot_heat_map(network, loads, str(network_file), plot)


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


if __name__ == "__main__":
    from astra_bridge.cli import main

    sys.exit(main(["garnet", *sys.argv[1:]]))
