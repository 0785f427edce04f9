# SPDX-License-Identifier: MIT
"""Number texts in every input file: accepted, or refused at once with file and key."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.network import read_network
from astra_bridge.inputs.system import read_system
from astra_bridge.network.ns3.topologies import read_logical_topology, read_physical_topology
from astra_bridge.units import parse_rate_Bps, parse_size_bytes, parse_time_ps
from tests import small

_MOST_S = 10.0


def number(rng: random.Random) -> str:
    """A number, or what looks like one."""
    digits = "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 9, 19, 20, 400))))
    text = rng.choice(
        (
            digits,
            f"{rng.randrange(10)}.{digits}",
            f"{digits}e{rng.choice(('', '-', '+'))}{rng.choice((0, 3, 30, 308, 309, 99999999999))}",
            str(rng.choice((2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**4000))),
            rng.choice(("NaN", "Infinity", "1e99999999", "0x10", "1_000", "٣", "1e-99999", "")),
            digits * rng.choice((1, 300)),
        )
    )
    return rng.choice(("", "", "", "-", "+")) + text


def _json_value(rng: random.Random) -> Any:
    text = number(rng)
    return f"@{text}@" if rng.random() < 0.8 else text


def _file(rng: random.Random, model: dict[str, Any], path: Path) -> Path:
    """The file, with a number text somewhere."""
    model = json.loads(json.dumps(model))
    key = rng.choice(sorted(model))
    if isinstance(model[key], list):
        model[key][rng.randrange(len(model[key]))] = _json_value(rng)
    else:
        model[key] = _json_value(rng)
    text = json.dumps(model, ensure_ascii=False)
    path.write_text(text.replace('"@', "").replace('@"', ""), encoding="utf-8")
    return path


SYSTEM = small.system(peak_perf=10, roofline_enabled=1, replay_only=0) | {
    "model-shared-bus": 1, "L": 5, "o": 2, "g": 3, "G": 0.01, "local-reduction-delay": 1,
}  # fmt: skip
MEMORY = {
    "memory-type": "PER_NODE_MEMORY_EXPANSION",
    "remote-mem-latency": 10,
    "remote-mem-bw": 5,
    "num-nodes": 2,
    "num-npus-per-node": 2,
}


def _system(rng: random.Random, folder: Path) -> Any:
    return read_system(_file(rng, SYSTEM, folder / "system.json"))


def _memory(rng: random.Random, folder: Path) -> Any:
    return read_remote_memory(_file(rng, MEMORY, folder / "memory.json"))


def _network(rng: random.Random, folder: Path) -> Any:
    return read_network(_file(rng, small.network("Ring Switch", [2, 2], [1, 1], [1, 1]),
                              folder / "network.yml"))  # fmt: skip


def _groups(rng: random.Random, folder: Path) -> Any:
    return read_comm_groups(_file(rng, {"1": [0, 1], "2": [2, 3]}, folder / "groups.json"), 4)


def _logical(rng: random.Random, folder: Path) -> Any:
    return read_logical_topology(
        _file(rng, {"logical-dims": ["2", "2"]}, folder / "logical.json"), 4
    )


def _physical(rng: random.Random, folder: Path) -> Any:
    words = [
        "3",
        "1",
        "2",
        "2",
        "0",
        "2",
        "100Gbps",
        "0.001ms",
        "0",
        "1",
        "2",
        "100Gbps",
        "1us",
        "0",
    ]
    words[rng.randrange(len(words))] = number(rng) + rng.choice(("", "Gbps", "ms", "ns"))
    path = folder / "topology.txt"
    lines = [words[:3], words[3:4], words[4:9], words[9:]]
    path.write_text("\n".join(" ".join(line) for line in lines), encoding="utf-8")
    return read_physical_topology(path)


def _text(rng: random.Random, folder: Path) -> Any:
    parse: Callable[[str], Any] = rng.choice((parse_rate_Bps, parse_size_bytes, parse_time_ps))
    return parse(number(rng) + rng.choice(("", " ", "Gbps", "GB/s", "ms", "ns", "MiB", "XB")))


READERS = (_system, _memory, _network, _groups, _logical, _physical, _text)


def attack(seed: int) -> tuple[str, str]:
    """One number text in one file; what happened, and what is wrong with that."""
    rng = random.Random(seed)
    reader = rng.choice(READERS)
    began_s = time.process_time()
    what, wrong = "accepted", ""
    with tempfile.TemporaryDirectory() as name:
        try:
            reader(rng, Path(name))
        except InputError as error:
            what = "refused"
            if len(str(error)) > 2000:
                wrong = "a message without end"
            elif reader is not _text and error.file is None:
                wrong = f"does not name the file: {error}"
        except AstraBridgeError as error:
            what, wrong = type(error).__name__, str(error)
        except Exception as error:
            what, wrong = "raised", repr(error)[:500]
    took_s = time.process_time() - began_s
    if not wrong and took_s > _MOST_S:
        wrong = f"took {took_s:.1f} s of processor time"
    return what, f"seed {seed}, {reader.__name__[1:]}: {wrong}" if wrong else ""
