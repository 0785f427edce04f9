# SPDX-License-Identifier: MIT
"""Run a golden case of the analytical networks, as its command-line flags say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from astra_bridge import simulate
from astra_bridge.engine import native
from astra_bridge.network.native import library_path
from astra_bridge.results import Result
from astra_bridge.validation.cases import GoldenCase

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
"""The cases of the project; the package has a copy of them in one file."""

Kind = Literal["native", "python", "mixed"]
"""Both native, both Python, or the Python engine on the native network."""

KINDS: tuple[Kind, ...] = ("native", "python", "mixed")


def why_not(kind: Kind) -> str | None:
    """None where this kind can run here, else what is missing."""
    if kind == "native" and (missing := native.unavailable()):
        return missing
    built = all(library_path(f"analytical_{name}").exists() for name in ("aware", "unaware"))
    if kind != "python" and not built:
        return "the native analytical networks are not built"
    return None


def run(case: GoldenCase, kind: Kind) -> Result:
    """Simulate a case; ``case.flags`` are ASTRA-sim's own."""
    flags = dict(case.flags)
    backend = case.model.replace("congestion_", "analytical-")
    result = simulate(
        case.workload,
        case.system,
        case.network,  # type: ignore[arg-type]
        case.remote_memory,
        case.comm_groups,
        backend=f"{backend}-python" if kind == "python" else backend,
        engine="native" if kind == "native" else "python",
        num_queues_per_dim=int(flags.pop("num-queues-per-dim", 1)),
        injection_scale=float(flags.pop("injection-scale", 1)),
        comm_scale=float(flags.pop("comm-scale", 1)),
        compute_scale=float(flags.pop("compute-scale", 1)),
        rendezvous_protocol=flags.pop("rendezvous-protocol", "false") == "true",
    )
    assert not flags, f"the case has flags that this function does not know: {flags}"
    return result


def answer(result: Result) -> tuple[list[int], list[int]]:
    """Finish and exposed communication per rank, as ASTRA-sim prints them (unsigned)."""
    return result.finish_ns.tolist(), [ns % 2**64 for ns in result.exposed_comm_ns.tolist()]
