# SPDX-License-Identifier: MIT
"""``astra-bridge run``: one simulation, with ASTRA-sim's flags and ASTRA-sim's result lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge.cli.flags import help_text, key_value, parse_flags

if TYPE_CHECKING:
    from astra_bridge.results import Result

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Run the command; return its exit code, or raise an ``AstraBridgeError``."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return 0
    values = parse_flags(arguments)
    options = dict(key_value(text, "--network-option") for text in values["network-option"])

    from astra_bridge.inputs.memory import read_remote_memory
    from astra_bridge.inputs.system import read_system

    system = read_system(values["system-configuration"])
    memory = read_remote_memory(values["remote-memory-configuration"])
    said = [*system.warnings, *memory.warnings]
    if values["logging-configuration"] != "empty":
        said.append("--logging-configuration: ignored: astra-bridge does not use spdlog")
    _warn(said)

    from astra_bridge.cli.progress import ProgressReport
    from astra_bridge.simulation import simulate

    def path(flag: str) -> Path | None:
        return None if values[flag] is None else Path(values[flag])

    with ProgressReport() as progress:
        result = simulate(
            workload=values["workload-configuration"],
            system=system,
            network=values["network-configuration"],
            remote_memory=memory,
            comm_groups=values["comm-group-configuration"],
            backend=values["backend"],
            engine=values["engine"],
            semantics=values["semantics"],
            num_queues_per_dim=values["num-queues-per-dim"],
            injection_scale=values["injection-scale"],
            comm_scale=values["comm-scale"],
            compute_scale=values["compute-scale"],
            rendezvous_protocol=values["rendezvous-protocol"],
            logical_topology=path("logical-topology-configuration"),
            physical_topology=path("physical-topology"),
            network_options=options,
            progress=progress,
        )
    _warn(warning for warning in result.warnings if warning not in said)
    _report(result, values)
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")


def _report(result: Result, values: dict[str, Any]) -> None:
    """Result lines and table on stdout, then the files that were asked for."""
    from astra_bridge.results.lines import frame, rank_lines

    now = datetime.now()
    print("\n".join(rank_lines(result, now)))
    output = None if values["output"] is None else Path(values["output"])
    folder = values["logging-folder"]
    if result.system.enabled("track-local-mem", result.semantics):
        from astra_bridge.results.files import save_local_memory

        for rank, peak in save_local_memory(result, output or Path()):
            print(frame("workload", "info", f"sys[{rank}] peak memory usage: {peak}", now))
    from astra_bridge.cli.summary import summary

    print(f"\n{summary(result)}")
    if values["json"] is not None:
        result.save_json(values["json"])
    if output is not None:
        result.save(output)
        folder = folder or output / "log"
        print(f"\nFiles in {output}/; timeline.json opens in ui.perfetto.dev.")
    if folder is not None:
        from astra_bridge.results.files import save_log

        save_log(result, Path(folder), now, result.warnings)
