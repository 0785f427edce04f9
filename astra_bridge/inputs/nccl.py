# SPDX-License-Identifier: MIT
"""What users force on NCCL: the key ``nccl`` of a system file, tuner files, the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from astra_bridge.arguments import check_fields, integer, list_of, number, optional, text
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, read_text, resolve
from astra_bridge.records import Record, put, replace
from astra_bridge.text import nearest, show

__all__ = [
    "NCCL_ALGORITHMS", "NCCL_FUNCTIONS", "NCCL_PROTOCOLS", "NcclSettings", "TunerRow",
    "allowed_by", "read_nccl", "read_tuner",
]  # fmt: skip

NCCL_FUNCTIONS = ("broadcast", "reduce", "allgather", "reducescatter", "allreduce")
"""As ``NCCL_ALGO`` and tuner files call collectives."""
NCCL_ALGORITHMS = ("tree", "ring", "collnetdirect", "collnetchain", "nvls", "nvlstree", "pat")
"""All that NCCL knows; collnet and nvlstree are not modelled, so never chosen."""
NCCL_PROTOCOLS = ("ll", "ll128", "simple")
MOST_CHANNELS = 64
"""NCCL's MAXCHANNELS (``src/include/device.h``, 2.29.2)."""


class TunerRow(NamedTuple):
    """A line of a tuner file, as NCCL's example plugin reads them; -1 is any.

    Attributes
    ----------
    function, algorithm, protocol : str
    min_bytes, max_bytes : int
        Sizes that it holds for, both included.
    channels : int
        -1 leaves the number to NCCL.
    nodes, ranks : int
        Of the communicator.
    """

    function: str
    min_bytes: int
    max_bytes: int
    algorithm: str
    protocol: str
    channels: int
    nodes: int
    ranks: int


class NcclSettings(Record, frozen=True):
    """What is forced.

    Attributes
    ----------
    algo, proto : str
        As ``NCCL_ALGO`` and ``NCCL_PROTO``: names to choose from, ``^`` before those to leave out,
        ``;function:names`` for one collective; empty leaves the choice to NCCL.
    min_nchannels, max_nchannels : int
        As ``NCCL_MIN_NCHANNELS`` and ``NCCL_MAX_NCHANNELS``.
    tuner : tuple of TunerRow
        Of a tuner file; the first row that fits counts.
    node_dimensions : int
        Network dimensions, from the first on, that are inside a node of NVSwitches.
    nic_GBps : float or None
        Of an adapter between nodes, which NCCL chooses by; None takes the network's bandwidth
        where that is known, else 50 (400 Gb/s).
    hardware : str or None
        Accelerator; None takes that of the system.
    """

    algo: str = ""
    proto: str = ""
    min_nchannels: int = 1
    max_nchannels: int = MOST_CHANNELS
    tuner: tuple[TunerRow, ...] = ()
    node_dimensions: int = 1
    nic_GBps: float | None = None
    hardware: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, _FIELDS)
        put(self, "tuner", tuple(TunerRow(*row) for row in self.tuner))
        for function in NCCL_FUNCTIONS:
            allowed_by(self.algo, function, NCCL_ALGORITHMS, "algo")
            allowed_by(self.proto, function, NCCL_PROTOCOLS, "proto")
        if self.min_nchannels > self.max_nchannels:
            raise InputError(
                f"{self.min_nchannels} is more than max-nchannels, {self.max_nchannels}",
                key="min-nchannels",
            )


_CHANNELS = integer(1, MOST_CHANNELS)
_FIELDS = {
    "algo": text,
    "proto": text,
    "min_nchannels": _CHANNELS,
    "max_nchannels": _CHANNELS,
    "tuner": list_of(lambda value, _: value),
    "node_dimensions": integer(1, 64),
    "nic_GBps": optional(number(1e-6, 1e9)),
    "hardware": optional(text),
}
_KEYS = {
    "algo": "algo",
    "proto": "proto",
    "min-nchannels": "min_nchannels",
    "max-nchannels": "max_nchannels",
    "node-dimensions": "node_dimensions",
    "nic-GBps": "nic_GBps",
    "hardware": "hardware",
}
_ENVIRONMENT = {
    "NCCL_ALGO": "algo",
    "NCCL_PROTO": "proto",
    "NCCL_MIN_NCHANNELS": "min-nchannels",
    "NCCL_MAX_NCHANNELS": "max-nchannels",
    "NCCL_TUNER_CONFIG_FILE": "tuner-file",
}


def allowed_by(value: str, function: str, known: tuple[str, ...], key: str) -> tuple[str, ...]:
    """The names that a value of ``NCCL_ALGO`` or ``NCCL_PROTO`` leaves for a collective.

    Raises
    ------
    InputError
        A name is unknown, or an entry but the first has no collective.

    Examples
    --------
    >>> allowed_by("ring;allreduce:^tree,nvls", "allgather", NCCL_ALGORITHMS, "algo")
    ('ring',)
    >>> allowed_by("^LL128", "allreduce", NCCL_PROTOCOLS, "proto")
    ('ll', 'simple')
    """
    left = known
    for index, entry in enumerate(value.lower().split(";") if value.strip() else ()):
        whom, colon, names = entry.rpartition(":")
        if index and not colon:
            raise InputError(
                f"{show(value)}: all entries but the first begin with a collective and a colon",
                key=key,
            )
        whom = whom.strip()
        if colon and whom not in NCCL_FUNCTIONS:
            hint = nearest(whom, NCCL_FUNCTIONS)
            raise InputError(
                f"{show(whom)} is no collective; allowed: {', '.join(NCCL_FUNCTIONS)}{hint}",
                key=key,
            )
        without = names.strip().startswith("^")
        listed = [one.strip() for one in names.strip().removeprefix("^").split(",")]
        wrong = next((one for one in listed if one not in known), None)
        if wrong is not None:
            raise InputError(
                f"{show(wrong)} is not known to NCCL; allowed: {', '.join(known)}"
                f"{nearest(wrong, known)}",
                key=key,
            )
        if not colon or whom == function:
            left = tuple(one for one in known if (one in listed) != without)
    return left


def read_tuner(path: str | Path) -> tuple[TunerRow, ...]:
    """Read a tuner file of NCCL's example plugin (``plugins/tuner/example``, 2.29.2).

    Lines of ``collective_type,min_bytes,max_bytes,algorithm,protocol,channels,nNodes,nRanks``, and
    optionally ``numPipeOps,regBuff``: rows for registered buffers, or for several operations at
    once, never fit here.

    Raises
    ------
    InputError
        The file cannot be read, or a line is not understood; names file, line and field.
    """
    file = Path(path)
    rows = []
    for at, line in enumerate(read_text(file).splitlines(), start=1):
        fields = [one.strip().lower() for one in line.split(",")]
        if not line.strip() or line.lstrip().startswith("#") or fields[0] == "collective_type":
            continue
        row = _tuner_row(fields, f"line {at}", file)
        if row is not None:
            rows.append(row)
    return tuple(rows)


def _tuner_row(fields: list[str], where: str, file: Path) -> TunerRow | None:
    if not 8 <= len(fields) <= 10:
        raise InputError(f"has {len(fields)} fields; allowed: 8 to 10", file=file, key=where)

    def one_of(value: str, known: tuple[str, ...], what: str) -> str:
        if value not in known:
            raise InputError(
                f"{show(value)} is not allowed; allowed: {', '.join(known)}{nearest(value, known)}",
                file=file,
                key=f"{where}: {what}",
            )
        return value

    def whole(at: int, what: str, low: int, high: int = 2**63 - 1) -> int:
        try:
            value = int(fields[at])
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise InputError(
                f"{show(fields[at])} is not allowed; allowed: {low} to {high}",
                file=file,
                key=f"{where}: {what}",
            )
        return value

    row = TunerRow(
        one_of(fields[0], NCCL_FUNCTIONS, "collective_type"),
        whole(1, "min_bytes", 0),
        whole(2, "max_bytes", 0),
        one_of(fields[3].replace("_", ""), NCCL_ALGORITHMS, "algorithm"),
        one_of(fields[4], NCCL_PROTOCOLS, "protocol"),
        whole(5, "channels", -1, MOST_CHANNELS),
        whole(6, "nNodes", -1),
        whole(7, "nRanks", -1),
    )
    operations = whole(8, "numPipeOps", -1) if len(fields) > 8 else -1
    registered = whole(9, "regBuff", -1, 1) if len(fields) > 9 else -1
    # 4294967295 stands for all sizes, as NCCL's examples say.
    row = row._replace(max_bytes=2**63 - 1) if row.max_bytes == 2**32 - 1 else row
    return row if operations in (-1, 1) and registered in (-1, 0) else None


def read_nccl(given: Mapping[str, Any] | None, file: Path | None) -> NcclSettings:
    """Read the key ``nccl`` of a system file.

    Its keys are ``algo``, ``proto``, ``min-nchannels``, ``max-nchannels``, ``tuner-file``,
    ``node-dimensions``, ``nic-GBps``, ``hardware``, and ``environment``: true also reads NCCL's
    variables of these names (``NCCL_ALGO``, ..., ``NCCL_TUNER_CONFIG_FILE``), which the file's own
    keys outrank.

    Raises
    ------
    InputError
        A key or value is not understood.
    """
    if given is None:
        return NcclSettings()
    problems = check_keys(given, (*_KEYS, "tuner-file", "environment"), file=file, where="nccl")
    if problems:
        raise InputError(problems[0], file=file, key="nccl")
    values = dict(given)
    asked = values.pop("environment", False)
    if not isinstance(asked, bool):
        raise InputError(
            f"{show(asked)} is not allowed; allowed: true, false", file=file, key="nccl.environment"
        )
    tuner = values.pop("tuner-file", None)
    if tuner is not None:
        if not isinstance(tuner, str):
            raise InputError(
                f"{show(tuner)} is not allowed; allowed: a path", file=file, key="nccl.tuner-file"
            )
        tuner = resolve(tuner, file)
    if asked:
        for variable, key in _ENVIRONMENT.items():
            value: Any = os.environ.get(variable)
            if value is None or key in given:
                continue
            if key == "tuner-file":
                tuner = value
                continue
            if key.endswith("channels"):
                try:
                    value = int(value)
                except ValueError:
                    raise InputError(
                        f"{show(value)} is not allowed; allowed: 1 to {MOST_CHANNELS}",
                        key=f"environment variable {variable}",
                    ) from None
            try:
                replace(NcclSettings(), **{_KEYS[key]: value})
            except InputError as error:
                raise InputError(error.reason, key=f"environment variable {variable}") from None
            values[key] = value
    rows = () if tuner is None else read_tuner(tuner)
    try:
        return NcclSettings(tuner=rows, **{_KEYS[key]: value for key, value in values.items()})
    except InputError as error:
        raise InputError(error.reason, file=file, key=f"nccl: {error.key}") from None
