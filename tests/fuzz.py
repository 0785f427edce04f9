# SPDX-License-Identifier: MIT
"""Long fuzzing: ``python tests/fuzz.py --minutes 10 [networks|numbers|programs|replies ...]``.

``programs`` changes fields of Programs: refused, or run alike by both engines.  ``numbers`` writes
number texts into input files: accepted or refused with file and key, at once.  ``replies`` lets a
backend lie in any field and order: named as a lie by both engines.  ``networks`` are ns-3's, with
failing links: every run ends, and says how.  Bounded runs of the same are part of the suite.  Ends
with "ok" and status 0, or with what failed and its seed.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from astra_bridge.network.ns3.build import NS3
from tests import ns3_fuzz, number_fuzz, program_fuzz, reply_fuzz

Attack = Callable[[int], tuple[str, str]]
"""From a seed to what happened, and what is wrong with that (or nothing)."""

ATTACKS: dict[str, Attack] = {
    "networks": ns3_fuzz.attack,
    "numbers": number_fuzz.attack,
    "programs": program_fuzz.attack,
    "replies": reply_fuzz.attack,
}


def fuzz(name: str, seconds: float, first_seed: int) -> int:
    """Attack for a while; returns the number of faults."""
    counts: collections.Counter[str] = collections.Counter()
    faults, seed, end = 0, first_seed, time.monotonic() + seconds
    while time.monotonic() < end and faults < 10:
        what, wrong = ATTACKS[name](seed)
        counts[what] += 1
        seed += 1
        if wrong:
            faults += 1
            print(f"{name}: {wrong}", flush=True)
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{name}: {seed - first_seed} attacks, {told}; {faults} faults", flush=True)
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[], metavar="|".join(ATTACKS))
    parser.add_argument("--minutes", type=float, default=1.0, help="for each kind")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    chosen = parser.parse_args(arguments)
    for kind in chosen.kinds:
        if kind not in ATTACKS:
            parser.error(f"{kind!r} is none of {', '.join(ATTACKS)}")
    kinds = chosen.kinds or list(ATTACKS)
    if "networks" in kinds and (missing := NS3.unavailable()) is not None:
        print(f"networks: left out: {missing}")
        kinds.remove("networks")
    faults = sum(fuzz(kind, 60 * chosen.minutes, chosen.seed) for kind in kinds)
    print("ok" if not faults else f"{faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
