# SPDX-License-Identifier: MIT
"""The files of ASTRA-sim's ns-3 program.

* ``config.txt``: ``KEY value`` pairs separated by white space (:func:`read_ns3_config`);
* the physical topology it names (:func:`read_physical_topology`);
* the logical topology JSON (:func:`read_logical_topology`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_json, nearest, read_text, resolve, show
from astra_bridge.units import parse_rate_Bps, parse_time_ps

__all__ = [
    "CC_MODES",
    "Ns3Config",
    "PhysicalLink",
    "PhysicalTopology",
    "is_ns3_config",
    "read_logical_topology",
    "read_ns3_config",
    "read_physical_topology",
]

CC_MODES = {
    1: "dcqcn",
    3: "hpcc",
    7: "timely",
    8: "dctcp",
    10: "hpcc-pint",
    12: "none",
}
"""``CC_MODE``; ASTRA-sim's fork treats every other number like 12."""

MAX_NODES = 65535


@dataclass(frozen=True)
class Ns3Config:
    """Every key of ``config.txt``, with the fork's defaults; rates in bit/s.

    Attributes are the keys in lower case; units are those of the file.  The maps go from a link
    rate [bit/s] to Kmin and Kmax [KB] and Pmax.  Paths are as written.  ``given`` holds the keys
    that stood in the file.
    """

    enable_qcn: bool = True
    use_dynamic_pfc_threshold: bool = True
    clamp_target_rate: bool = False
    pause_time: float = 5.0
    packet_payload_size: int = 1000
    l2_chunk_size: int = 0
    l2_ack_interval: int = 0
    l2_back_to_zero: bool = False
    topology_file: str = ""
    flow_file: str = ""
    trace_file: str = ""
    trace_output_file: str = ""
    fct_output_file: str = "fct.txt"
    pfc_output_file: str = "pfc.txt"
    qlen_mon_file: str = ""
    qlen_mon_start: int = 0
    qlen_mon_end: int = 2100000000
    simulator_stop_time: float = 3.01
    data_rate: str = ""
    link_delay: str = ""
    alpha_resume_interval: float = 55.0
    rp_timer: float = 0.0
    ewma_gain: float = 0.0
    fast_recovery_times: int = 5
    rate_decrease_interval: float = 4.0
    rate_ai: int = 0
    rate_hai: int = 0
    min_rate: int = 100_000_000
    dctcp_rate_ai: int = 1_000_000_000
    error_rate_per_link: float = 0.0
    cc_mode: int = 1
    has_win: bool = True
    global_t: int = 1
    mi_thresh: int = 5
    var_win: bool = False
    fast_react: bool = True
    u_target: float = 0.95
    int_multi: int = 1
    multi_rate: bool = True
    sample_feedback: bool = False
    pint_log_base: float = 1.05
    pint_prob: float = 1.0
    rate_bound: bool = True
    ack_high_prio: bool = False
    nic_total_pause_time: int = 0
    link_down: tuple[int, int, int] = (0, 0, 0)
    enable_trace: bool = True
    kmax_map: Mapping[int, float] = field(default_factory=dict)
    kmin_map: Mapping[int, float] = field(default_factory=dict)
    pmax_map: Mapping[int, float] = field(default_factory=dict)
    buffer_size: int = 16
    given: frozenset[str] = frozenset()
    source: Path | None = field(default=None, compare=False)


_RATES = {"rate_ai", "rate_hai", "min_rate", "dctcp_rate_ai"}
_MAPS = {"kmax_map", "kmin_map", "pmax_map"}
_KINDS = {
    name: kind.type
    for name, kind in Ns3Config.__dataclass_fields__.items()
    if name not in ("given", "source")
}
# Ranges beyond which a value has no meaning; inclusive.
_RANGES: dict[str, tuple[float, float]] = {
    "packet_payload_size": (1, 1 << 20),
    "l2_chunk_size": (0, 2**62),
    "l2_ack_interval": (0, 2**62),
    "alpha_resume_interval": (0.001, 1e9),
    "rate_decrease_interval": (0.001, 1e9),
    "rp_timer": (0.001, 1e9),
    "ewma_gain": (0, 1),
    "error_rate_per_link": (0, 1),
    "u_target": (0.001, 10),
    "int_multi": (1, 1 << 20),
    "pint_log_base": (1.0001, 100),
    "pint_prob": (0, 1),
    "buffer_size": (1, 4095),
    "mi_thresh": (0, 2**31),
    "fast_recovery_times": (0, 2**31),
}
_IGNORED = {
    "SIMULATOR_STOP_TIME": "a run ends when all ranks have",
    "DATA_RATE": "rates stand in the topology file",
    "LINK_DELAY": "delays stand in the topology file",
}
"""Keys that the fork reads and does not use either; only worth a word where one would expect it."""


def is_ns3_config(path: str | Path) -> bool:
    """Whether a file looks like a ``config.txt`` (its first word is one of the keys)."""
    file = arguments.path(path, "path")
    if file.suffix.lower() in (".yml", ".yaml", ".json"):
        return False
    words = read_text(file).split(maxsplit=1)
    return bool(words) and words[0].lower() in _KINDS


def read_ns3_config(path: str | Path) -> tuple[Ns3Config, tuple[str, ...]]:
    """Read a ``config.txt``; return it and warnings.

    Raises
    ------
    InputError
        An unknown key, a missing or malformed value, or one out of range.
    """
    file = arguments.path(path, "path")
    words = iter(read_text(file).split())
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key in words:
        name = key.lower()
        if key != key.upper() or name not in _KINDS:
            hint = nearest(key, [known.upper() for known in _KINDS])
            raise InputError(f"unknown key{hint}", file=file, key=key)
        if name in values:
            warnings.append(f"{file}: {key}: given twice; the last value counts")
        values[name] = _value(name, key, words, file)
        if key in _IGNORED:
            warnings.append(f"{file}: {key}: ignored: {_IGNORED[key]}")
    # Every shipped file has the stop time, so saying so would be noise.
    warnings = [text for text in warnings if "SIMULATOR_STOP_TIME" not in text]
    config = Ns3Config(**values, given=frozenset(key.upper() for key in values), source=file)
    return config, tuple(warnings)


def _next(words: Iterator[str], key: str, file: Path) -> str:
    word = next(words, None)
    if word is None:
        raise InputError("the file ends before its value", file=file, key=key)
    return word


def _value(name: str, key: str, words: Iterator[str], file: Path) -> Any:
    kind = _KINDS[name]
    if name in _MAPS:
        count = _integer(_next(words, key, file), key, file, 0, 10000)
        found: dict[int, float] = {}
        for _ in range(count):
            rate = _integer(_next(words, key, file), key, file, 1, 10**17)
            limit = 1.0 if name == "pmax_map" else 1e9
            found[rate] = _number(_next(words, key, file), key, file, 0, limit)
        return found
    if name == "link_down":
        return tuple(_integer(_next(words, key, file), key, file, 0, 2**40) for _ in range(3))
    word = _next(words, key, file)
    if word.upper() == word and word.lower() in _KINDS:
        raise InputError(f"has no value: the next word is the key {word}", file=file, key=key)
    if name in _RATES:
        return _rate(word, key, file)
    low, high = _RANGES.get(name, (0, 2**62))
    if kind == "bool":
        return _integer(word, key, file, 0, 1) == 1
    if kind == "int":
        return _integer(word, key, file, int(low), int(high))
    if kind == "float":
        return _number(word, key, file, low, 1e30 if name == "simulator_stop_time" else high)
    return word


def _integer(word: str, key: str, file: Path, low: int, high: int) -> int:
    try:
        value = int(word)
    except ValueError:
        raise InputError(
            f"expected a whole number, found {show(word)}", file=file, key=key
        ) from None
    if not low <= value <= high:
        raise InputError(f"{value} is not in {low} .. {high}", file=file, key=key)
    return value


def _number(word: str, key: str, file: Path, low: float, high: float) -> float:
    try:
        value = float(word)
    except ValueError:
        raise InputError(f"expected a number, found {show(word)}", file=file, key=key) from None
    if not low <= value <= high:  # also false for nan
        raise InputError(f"{word} is not in {low:g} .. {high:g}", file=file, key=key)
    return value


def _rate(word: str, key: str, file: Path) -> int:
    """bit/s."""
    try:
        bps = round(parse_rate_Bps(word) * 8)
    except (ValueError, OverflowError) as error:
        raise InputError(str(error), file=file, key=key) from None
    if not 1 <= bps <= 10**17:
        raise InputError(f"rate {word} is out of range", file=file, key=key)
    return bps


@dataclass(frozen=True)
class PhysicalLink:
    """A cable (both directions): rate [bit/s], delay [ps], loss probability."""

    a: int
    b: int
    bps: int
    delay_ps: int
    loss: float


@dataclass(frozen=True)
class PhysicalTopology:
    """A physical topology file; ids as in the file, the ids that are no switches are endpoints."""

    nodes: int
    switches: tuple[int, ...]
    links: tuple[PhysicalLink, ...]
    source: Path | None = field(default=None, compare=False)

    @property
    def endpoints(self) -> tuple[int, ...]:
        """Ids of the endpoints, ascending: rank r is the r-th."""
        switches = set(self.switches)
        return tuple(node for node in range(self.nodes) if node not in switches)


def read_physical_topology(path: str | Path) -> PhysicalTopology:
    """Read a topology file: ``nodes switches links``, switch ids, then one line per cable.

    Raises
    ------
    InputError
        A count is wrong, an id out of range, or a rate or delay is malformed.
    """
    file = arguments.path(path, "path")
    lines = [line.split() for line in read_text(file).splitlines()]
    rows = [(number, words) for number, words in enumerate(lines, 1) if words]
    if not rows:
        raise InputError("the file is empty", file=file)
    number, head = rows[0]
    if len(head) != 3:
        raise InputError(
            f"expected 'nodes switches links', found {len(head)} words"
            + (
                " (SimAI's header; its servers and GPU type are not read)" if len(head) == 6 else ""
            ),
            file=file,
            key=f"line {number}",
        )
    at = f"line {number}"
    nodes = _integer(head[0], at, file, 1, MAX_NODES)
    switch_count = _integer(head[1], at, file, 0, nodes)
    link_count = _integer(head[2], at, file, 0, 10**7)
    # The ids may stand on several lines or none, as for the fork, which reads words.
    words = [(number, word) for number, row in rows[1:] for word in row]
    if len(words) < switch_count:
        raise InputError(f"{switch_count} switch ids expected", file=file, key=at)
    switches: list[int] = []
    for number, word in words[:switch_count]:
        node = _integer(word, f"line {number}", file, 0, nodes - 1)
        if node in switches:
            raise InputError(f"switch {node} is listed twice", file=file, key=f"line {number}")
        switches.append(node)
    words = words[switch_count:]
    if len(words) != 5 * link_count:
        last = words[-1][0] if words else number
        raise InputError(
            f"line 1 announces {link_count} links of 5 words (src dst rate delay error_rate), but "
            f"{len(words)} words follow the switches",
            file=file,
            key=f"line {last}",
        )
    links = []
    for index in range(link_count):
        number = words[5 * index][0]
        row = [word for _, word in words[5 * index : 5 * index + 5]]
        at = f"line {number}"
        a, b = (_integer(word, at, file, 0, nodes - 1) for word in row[:2])
        if a == b:
            raise InputError(f"node {a} is linked to itself", file=file, key=at)
        try:
            delay_ps = parse_time_ps(row[3])
        except (ValueError, OverflowError) as error:
            raise InputError(str(error), file=file, key=at) from None
        if not 0 <= delay_ps <= 10**15:
            raise InputError(f"delay {row[3]} is not in 0 .. 1000 s", file=file, key=at)
        links.append(
            PhysicalLink(a, b, _rate(row[2], at, file), delay_ps, _number(row[4], at, file, 0, 1))
        )
    topology = PhysicalTopology(nodes, tuple(switches), tuple(links), file)
    if not topology.endpoints:
        raise InputError("every node is a switch; there is no endpoint", file=file)
    _check_connected(topology, file)
    return topology


def _check_connected(topology: PhysicalTopology, file: Path) -> None:
    linked = {link.a for link in topology.links} | {link.b for link in topology.links}
    endpoints = topology.endpoints
    for node in endpoints:
        if node not in linked and len(endpoints) > 1:
            raise InputError(f"endpoint {node} has no link", file=file)
    neighbours: dict[int, list[int]] = {}
    for link in topology.links:
        neighbours.setdefault(link.a, []).append(link.b)
        neighbours.setdefault(link.b, []).append(link.a)
    reached, queue = {endpoints[0]}, [endpoints[0]]
    while queue:
        for node in neighbours.get(queue.pop(), []):
            if node not in reached:
                reached.add(node)
                queue.append(node)
    for node in endpoints:
        if node not in reached:
            raise InputError(
                f"endpoint {node} cannot be reached from endpoint {endpoints[0]}", file=file
            )


def read_logical_topology(path: str | Path, endpoints: int) -> tuple[int, ...]:
    """Read ``{"logical-dims": ["8", "2"]}``; dimension 0 varies fastest in rank ids.

    Parameters
    ----------
    endpoints
        Of the physical topology.

    Raises
    ------
    InputError
        The key is missing, an entry is no positive whole number, or the product exceeds
        ``endpoints``.
    """
    raw = load_json(path)
    key = "logical-dims"
    if not isinstance(raw, Mapping) or key not in raw:
        raise InputError(f'expected {{"{key}": ["8", "2"]}}', file=path, key=key)
    values = raw[key]
    if not isinstance(values, list) or not values:
        raise InputError(f"expected a list of sizes, found {show(values)}", file=path, key=key)
    dims = []
    for index, value in enumerate(values):
        try:
            size = int(value) if isinstance(value, (str, int)) else 0
        except ValueError:
            size = 0
        if isinstance(value, bool) or not 1 <= size <= MAX_NODES:
            raise InputError(
                f"expected a whole number of at least 1, found {show(value)}",
                file=path,
                key=f"{key}[{index}]",
            )
        dims.append(size)
    ranks = math.prod(dims)
    if ranks > endpoints:
        raise InputError(
            f"{' x '.join(map(str, dims))} = {ranks} ranks, but the physical topology has "
            f"{endpoints} endpoints",
            file=path,
            key=key,
        )
    return tuple(dims)


def topology_path(config: Ns3Config) -> Path:
    """The topology file that a configuration names.

    Raises
    ------
    InputError
        It names none.
    """
    if not config.topology_file:
        raise InputError(
            "missing; or give --physical-topology", file=config.source, key="TOPOLOGY_FILE"
        )
    return Path(resolve(config.topology_file, config.source))
