# SPDX-License-Identifier: MIT
"""``config.txt`` of ASTRA-sim's ns-3 program: ``KEY value`` pairs separated by white space."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import read_text, resolve
from astra_bridge.network.ns3.words import number_word, rate_word, whole_word
from astra_bridge.records import Sourced, field
from astra_bridge.text import nearest

__all__ = ["CC_MODES", "Ns3Config", "is_ns3_config", "read_ns3_config", "topology_path"]

CC_MODES = {
    1: "dcqcn",
    3: "hpcc",
    7: "timely",
    8: "dctcp",
    10: "hpcc-pint",
    12: "none",
}
"""``CC_MODE``; ASTRA-sim's fork treats every other number like 12."""


class Ns3Config(Sourced, frozen=True, eq=False):
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
    source: Path | None = None


_KEY = re.compile(r"[A-Z][A-Z0-9_]+")
_SPELLING = 0.85
"""How near an unknown key must be to a known one to be taken for a mistake in spelling."""

_RATES = {"rate_ai", "rate_hai", "min_rate", "dctcp_rate_ai"}
_MAPS = {"kmax_map", "kmin_map", "pmax_map"}
_KINDS = {
    name: kind
    for name, kind in Ns3Config.__annotations__.items()
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

    Keys of other forks are left out, with one warning that names them.

    Raises
    ------
    InputError
        What should be a key does not look like one, or a value is missing, malformed or out of
        range.
    """
    file = arguments.path(path, "path")
    words = iter(read_text(file).split())
    values: dict[str, Any] = {}
    warnings: list[str] = []
    unknown: list[str] = []
    while (key := next(words, None)) is not None:
        name = key.lower()
        if not _KEY.fullmatch(key):
            hint = nearest(key, [known.upper() for known in _KINDS])
            raise InputError(f"unknown key{hint}", file=file, key=key)
        if name not in _KINDS:
            from difflib import get_close_matches  # which few runs need

            near = get_close_matches(name, _KINDS, 1, _SPELLING)
            unknown.append(f"{key} (did you mean {near[0].upper()}?)" if near else key)
            following = list(words)
            taken = next((i for i, word in enumerate(following) if _KEY.fullmatch(word)), None)
            words = iter(following[len(following) if taken is None else taken :])
            continue
        if name in values:
            warnings.append(f"{file}: {key}: given twice; the last value counts")
        values[name] = _value(name, key, words, file)
        if key in _IGNORED:
            warnings.append(f"{file}: {key}: ignored: {_IGNORED[key]}")
    if unknown:
        warnings.append(f"{file}: unknown keys are left out: {', '.join(unknown)}")
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
        count = whole_word(_next(words, key, file), key, file, 0, 10000)
        found: dict[int, float] = {}
        for _ in range(count):
            rate = whole_word(_next(words, key, file), key, file, 1, 10**17)
            limit = 1.0 if name == "pmax_map" else 1e9
            found[rate] = number_word(_next(words, key, file), key, file, 0, limit)
        return found
    if name == "link_down":
        return tuple(whole_word(_next(words, key, file), key, file, 0, 2**40) for _ in range(3))
    word = _next(words, key, file)
    if word.upper() == word and word.lower() in _KINDS:
        raise InputError(f"has no value: the next word is the key {word}", file=file, key=key)
    if name in _RATES:
        return rate_word(word, key, file)
    low, high = _RANGES.get(name, (0, 2**62))
    if kind == "bool":
        return whole_word(word, key, file, 0, 1) == 1
    if kind == "int":
        return whole_word(word, key, file, int(low), int(high))
    if kind == "float":
        return number_word(word, key, file, low, 1e30 if name == "simulator_stop_time" else high)
    return word


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
