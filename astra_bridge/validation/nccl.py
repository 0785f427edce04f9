# SPDX-License-Identifier: MIT
"""nccl-tests on one node: ``nccl/nccl_tests.csv`` in the layout of the reference.

Each row is run: the collective, by the algorithm ``nccl``, on a switch of the datasheet's links.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from astra_bridge.collectives.nccl import COLLECTIVES, nccl_us
from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware, hardware
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.simulation import simulate
from astra_bridge.units import PS_PER_US
from astra_bridge.validation.gpu import hardware_of
from astra_bridge.validation.table import SHIPPED, Row, identity, read_rows, value
from astra_bridge.workload import collective as workload_of

__all__ = ["nccl_rows", "simulated_us"]

_KINDS = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "alltoall": "all-to-all",
}
_IMPLEMENTED = {f"{kind}-implementation": ["nccl"] for kind in _KINDS.values()}

_MEASURED = ("us", "busbw_GBs")
_COLUMNS = ("gpu", "op_name", "num_gpus", "bytes", "us")
_MIB = 2**20


def nccl_rows(
    data: Path, *, stand_in: str | None = None, only: str = ""
) -> tuple[list[Row], list[str]]:
    """All measurements of a folder ``nccl``, and what is said of those that are left out.

    The baseline has the latency of the smallest size and the bandwidth of the largest one, of each
    accelerator, collective and number of ranks.

    Parameters
    ----------
    data
        The folder above it.
    stand_in
        Name of an accelerator whose parameters are taken instead of the own ones.
    only
        Prefix of the names of accelerators.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    found: list[Row] = []
    skipped: Counter[str] = Counter()
    known = _known()
    parameters = None if stand_in is None else hardware(stand_in).nccl
    for file in sorted((data / "nccl").glob("*.csv")):
        groups: dict[tuple[str, str, int], list[tuple[dict[str, str], int, float]]]
        groups = defaultdict(list)
        for row in read_rows(file, _COLUMNS):
            ranks, size = int(value(row, "num_gpus", file)), int(value(row, "bytes", file))
            key = row["gpu"], row["op_name"], ranks
            groups[key].append((row, size, value(row, "us", file)))
        for (gpu, collective, ranks), rows in groups.items():
            if not gpu.startswith(only):
                continue
            machine = _machine(gpu, file)
            if machine is None:
                skipped[f"{gpu}: no profile of an NVSwitch node has this name"] += len(rows)
                continue
            if collective not in COLLECTIVES:
                skipped[f"{collective}: known are {', '.join(COLLECTIVES)}"] += len(rows)
                continue
            _, least, least_us = min(rows, key=lambda row: row[1])
            _, most, most_us = max(rows, key=lambda row: row[1])
            us_per_byte = (most_us - least_us) / max(1, most - least)
            for row, size, us in rows:
                what = {key: item for key, item in row.items() if key not in _MEASURED}
                found.append(
                    Row(
                        "nccl" if stand_in is None else "transfer",
                        f"{gpu} {collective}, {ranks} GPUs",
                        what,
                        us,
                        simulated_us(machine, collective, ranks, size)
                        if parameters is None
                        else nccl_us(machine, collective, ranks, size, parameters=parameters),
                        least_us + (size - least) * us_per_byte,
                        stand_in is None
                        # Of one that takes another's parameters, the smallest size was fitted.
                        and (machine.own_nccl is not None or size == least)
                        and identity(row, _MEASURED) in known,
                        _gathered(gpu, ranks, size),
                    )
                )
    notes = [f"nccl: {count} rows are left out, of {why}" for why, count in skipped.items()]
    return found, notes


def simulated_us(machine: Hardware, collective: str, ranks: int, size_bytes: int) -> float:
    """A collective of nccl-tests as it is simulated; of those with a root, the formula."""
    if collective not in _KINDS:
        return nccl_us(machine, collective, ranks, size_bytes)
    # What each rank gives to an all-gather.
    own = size_bytes // ranks if collective == "all_gather" else size_bytes
    result = simulate(
        workload=workload_of(_KINDS[collective], max(1, own), ranks),
        system=_IMPLEMENTED | {"hardware": machine.name},
        network=NetworkDims(
            ("Switch",),
            (ranks,),
            (machine.datasheet.link_GBps * 1e9 / 2**30,),
            # A message crosses two links.
            (machine.nccl.hop_us * 1e3 / 2,),
        ),
        backend="analytical-unaware",
        semantics="corrected",
        record_nodes=False,
    )
    return float(result.finish_ps.max()) / PS_PER_US


def _gathered(gpu: str, ranks: int, size: int) -> tuple[str, ...]:
    """Classes that gather collectives."""
    groups = [gpu, f"{gpu}, {ranks} GPUs"]
    if _MIB <= size <= 32 * _MIB:
        groups += [f"{gpu}, 1 to 32 MiB"]
    if ranks in (2, 8):
        groups += [f"{gpu}, 2 and 8 GPUs"]
        if _MIB <= size <= 32 * _MIB:
            groups += [f"{gpu}, 2 and 8 GPUs, 1 to 32 MiB"]
    return tuple(groups)


def _machine(gpu: str, file: Path) -> Hardware | None:
    """The profile that a name such as "H100-SXM" means."""
    try:
        return hardware(hardware_of(gpu.lower().split("-")[0], file))
    except InputError:
        return None


def _known() -> set[tuple[tuple[str, str], ...]]:
    """Rows of the package's own copy."""
    rows = read_rows(SHIPPED / "nccl/nccl_tests.csv", _COLUMNS)
    return {identity(row, _MEASURED) for row in rows}
