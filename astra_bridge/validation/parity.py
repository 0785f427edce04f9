# SPDX-License-Identifier: MIT
"""Answers of the public simulators, number by number.

The package has them in one file: 302 runs of ASTRA-sim 2.0 on its analytical networks, 23 on the
RDMA fork of ns-3, and 61 lists of messages through the Garnet of gem5 24.0.  A folder may have
others: ``golden/analytical``, ``golden/ns3`` and ``golden/garnet``, or these themselves.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import BackendUnavailable, InputError
from astra_bridge.network.registry import backend
from astra_bridge.simulation import simulate
from astra_bridge.units import PS_PER_NS
from astra_bridge.validation.cases import write_golden_case, write_ns3_network
from astra_bridge.validation.table import SHIPPED, Row

__all__ = ["SHIPPED_CASES", "parity_rows"]

SHIPPED_CASES = SHIPPED / "parity.json.xz"
_NS_PER_US = 1000.0

Case = dict[str, Any]
Numbers = NDArray[np.int64]


class _Kind(NamedTuple):
    """Cases of one simulator.

    Attributes
    ----------
    name : str
        What to call it.
    backend : str
        What answers.
    run : callable
        Of a case and an empty folder: all numbers of the reference and ours, and how many of the
        first are times; the unit of these in us.
    """

    name: str
    backend: str
    run: Callable[[Case, Path], tuple[Numbers, Numbers, int, float]]


def _analytical(case: Case, folder: Path) -> tuple[Numbers, Numbers, int, float]:
    files = write_golden_case(case, folder)
    flags = dict(files.flags)
    result = simulate(
        str(files.workload),
        files.system,
        files.network,  # type: ignore[arg-type]
        files.remote_memory,
        files.comm_groups,
        backend=files.model.replace("congestion_", "analytical-"),
        num_queues_per_dim=int(flags.get("num-queues-per-dim", 1)),
        injection_scale=float(flags.get("injection-scale", 1)),
        comm_scale=float(flags.get("comm-scale", 1)),
        compute_scale=float(flags.get("compute-scale", 1)),
        rendezvous_protocol=flags.get("rendezvous-protocol", "false") == "true",
        record_nodes=False,
    )
    # ASTRA-sim prints exposed communication unsigned.
    exposed = np.array(files.exposed_comm_ns, np.uint64).astype(np.int64)
    expected = np.concatenate([np.array(files.finish_ns, np.int64), exposed])
    ours = np.concatenate([result.finish_ns, result.exposed_comm_ns])
    return expected, ours, len(result.finish_ns), 1 / _NS_PER_US


def _ns3(case: Case, folder: Path) -> tuple[Numbers, Numbers, int, float]:
    files = write_golden_case(case, folder)
    logical = folder / "logical.json"
    logical.write_text(json.dumps({"logical-dims": list(map(str, case["logical_dims"]))}))
    result = simulate(
        str(files.workload),
        files.system,
        write_ns3_network(case, folder),
        files.remote_memory,
        backend="ns3",
        logical_topology=logical,
        num_queues_per_dim=int(case.get("queues", 1)),
    )
    flows = result.flows
    columns = [flows["src"], flows["dst"], flows["bytes"]]
    columns += [flows[name] // PS_PER_NS for name in ("start_ps", "fct_ps", "ideal_fct_ps")]
    told = np.array(case["expect"]["flows"], np.int64).reshape(-1, len(columns))
    expected = np.concatenate([np.array(case["expect"]["finish_ns"], np.int64), _sorted(told)])
    ours = np.concatenate([result.finish_ns, _sorted(np.stack(columns, axis=1))])
    return expected, ours, len(result.finish_ns), 1 / _NS_PER_US


def _sorted(flows: Numbers) -> Numbers:
    """Rows of flows in one order, as numbers one after the other."""
    ordered: Numbers = flows[np.lexsort(flows.T[::-1])]
    return ordered.reshape(-1)


def _garnet(case: Case, folder: Path) -> tuple[Numbers, Numbers, int, float]:
    from astra_bridge.network.garnet.replay import read_messages, replay

    file = folder / "messages.json"
    file.write_text(json.dumps(case))
    messages = read_messages(file)
    rows = replay(messages).rows
    told = messages.results or {}
    columns = [name for name in told["columns"] if name in rows]
    columns.sort(key=lambda name: name != "deliver")
    table = np.array(told["rows"], np.int64)
    places = [told["columns"].index(name) for name in columns]
    expected = table[:, places].T.reshape(-1)
    ours = np.concatenate([rows[name] for name in columns])
    return expected, ours, len(table), 1e6 / float(case["network"]["clock_hz"])


_KINDS = {
    "analytical": _Kind("ASTRA-sim, analytical networks", "analytical-aware", _analytical),
    "ns3": _Kind("ASTRA-sim, RDMA fork of ns-3", "ns3", _ns3),
    "garnet": _Kind("gem5's Garnet", "garnet", _garnet),
}


def parity_rows(data: Path) -> tuple[list[Row], list[str]]:
    """Each case of a folder with the answer of the simulator: of its times the one furthest off.

    A case whose numbers are all equal has an error of 0; the notes say how many have, and which
    have not.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for name, cases in _cases(data).items():
        kind = _KINDS[name]
        reason = backend(kind.backend).unavailable()
        if reason is not None:
            notes.append(f"parity: {len(cases)} cases of {kind.name} did not run: {reason}")
            continue
        different = []
        for case in cases:
            row, equal = _row(kind, case)
            rows.append(row)
            if not equal:
                different.append(case["id"])
        said = f"parity: {len(cases) - len(different)} of {len(cases)} cases of {kind.name} are "
        said += "equal in every number"
        notes.append(said + (f"; not {', '.join(different[:10])}" if different else ""))
    return rows, notes


def _row(kind: _Kind, case: Case) -> tuple[Row, bool]:
    with tempfile.TemporaryDirectory(prefix="astra-bridge-parity-") as folder:
        try:
            expected, ours, times, unit_us = kind.run(case, Path(folder))
        except BackendUnavailable:
            raise
        except InputError as error:
            raise InputError(f"{case['id']}: {error.reason}", file=error.file) from None
    same_shape = len(expected) == len(ours)
    told, found = np.maximum(expected[:times], 1), np.maximum(ours[:times], 1)
    worst = int(np.argmax(np.abs(np.log(found / told))))
    measured_us = float(told[worst]) * unit_us
    row = Row(
        "parity", kind.name, {"id": case["id"]}, measured_us, float(found[worst]) * unit_us,
        measured_us, False,
    )  # fmt: skip
    return row, same_shape and bool((expected == ours).all())


def _cases(data: Path) -> dict[str, list[Case]]:
    """The cases of a folder, or of the package, by kind."""
    if data == SHIPPED:
        packed = lzma.decompress(SHIPPED_CASES.read_bytes())
        found: dict[str, list[Case]] = json.loads(packed)
        return found
    return {
        kind: cases
        for kind in _KINDS
        for where in (data / "golden" / kind, data / kind)
        if (cases := list(_read(where)))
    }


def _read(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("[!z]*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"is no JSON: {error}", file=path) from None
        yield content | {"id": path.stem}
