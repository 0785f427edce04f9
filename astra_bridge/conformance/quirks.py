# SPDX-License-Identifier: MIT
"""What is known to be different about a backend, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["QUIRKS", "Quirks"]


@dataclass(frozen=True)
class Quirks:
    """Differences that the suite takes into account.

    Attributes
    ----------
    skip : mapping of str to str
        Rule ("R10") to the reason why it is not tested.
    largest_bytes : int
        R14 waits for a transfer of this size to end (a packet-level simulator cannot send 2**40
        bytes in any useful time); one of 2**40 bytes must be accepted all the same.
    bound_slack_ps : int
        R8: how much earlier than bytes / bandwidth + latency a transfer may arrive, because the
        model that is reproduced rounds down.
    bound_in_one_dimension : bool
        R8: the bound holds only between endpoints that differ in one dimension.
    """

    skip: Mapping[str, str] = field(default_factory=dict)
    largest_bytes: int = 2**40
    bound_slack_ps: int = 0
    bound_in_one_dimension: bool = False


# ASTRA-sim's model, reproduced: only the first dimension in which two ranks differ costs time.
_UNAWARE = Quirks(bound_in_one_dimension=True)

QUIRKS: dict[str, Quirks] = {
    "analytical-unaware": _UNAWARE,
    "analytical-unaware-python": _UNAWARE,
    # Packet by packet: 2**40 bytes are 10**9 packets.
    "ns3": Quirks(largest_bytes=2**22),
    "htsim": Quirks(largest_bytes=2**22),
    "garnet": Quirks(largest_bytes=2**20),
    "gem5": Quirks(largest_bytes=2**20),
}
"""By the name that the backend gives in its info."""
