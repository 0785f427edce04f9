# SPDX-License-Identifier: MIT
"""What a collective algorithm is made of.

A :class:`Schedule` is the part that one position of a group plays.  It is driven by two counts
alone, packets processed and messages received, which is how ASTRA-sim's algorithms behave, so that
one small machine in each engine runs them all:

* at the start, steps that need no packet run, then ``window`` packets are inserted;
* every received message inserts the next packet;
* a packet crosses the bus, may pay a reduction, and is then *processed*;
* a processed packet lets up to ``burst`` further steps run, as far as their ``need`` is met;
* the schedule ends when ``end`` packets are processed and all steps have run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import PacketFlag, Peers, Variant
from astra_bridge.records import Record
from astra_bridge.registry import Spec

NO_GATE = 2**31 - 1


class Kind(IntEnum):
    """What a collective computes; values are Chakra's CollectiveCommType."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9

    @property
    def word(self) -> str:
        """As people write it, such as "all-reduce"."""
        return self.name.lower().replace("_", "-")


class Step(NamedTuple):
    """Send to and/or post a receive from positions that ``peers`` derives from the own one."""

    need: int
    send_to: int = 0
    send_bytes: int = 0
    recv_from: int = 0
    recv_bytes: int = 0
    peers: Peers = Peers.RELATIVE


class Packet(NamedTuple):
    """What the endpoint does with data before it counts as processed."""

    bytes: int
    flags: PacketFlag
    delay_ps: int = 0  # an algorithm's own, beside what the system says of reductions


class Schedule(Record, frozen=True, eq=False):
    """The part of one position; see the module's text."""

    steps: Sequence[Step]
    packets: Sequence[Packet]
    window: int
    end: int
    burst: int = 1
    gate_step: int = NO_GATE
    gate_received: int = 0


class Request(Record, frozen=True):
    """What to build.

    Attributes
    ----------
    kind : Kind
    size : int
        Members of the group, at least 2.
    bytes : int
        Data of this phase per member: the whole buffer, or for ALL_GATHER the shard.
    variant : int
        0 or 1: direction (0 clockwise) or tree (0 first), see ``Algorithm.variant``.
    window : int
        Concurrent sends of direct algorithms; -1 is all.
    subgroup : bool
        True in a communicator group that is not the whole world.
    root : int
        Position of the root of rooted collectives.
    quirks : frozenset of str
        Those of ``Algorithm.quirks`` that are wanted.
    level : int
        Network dimension, 0 first; 0 in a communicator group that is not the whole world.
    link_Bps : float
        Bandwidth of a link of the dimension; 0 where it is not known.
    reduces : bool
        Whether the network can reduce in this dimension (``Peers.REDUCED``).
    """

    kind: Kind
    size: int
    bytes: int
    variant: int = 0
    window: int = -1
    subgroup: bool = False
    root: int = 0
    quirks: frozenset[str] = frozenset()
    level: int = 0
    link_Bps: float = 0.0
    reduces: bool = False


class Built(Record, frozen=True, eq=False):
    """What an algorithm makes of a request.

    Attributes
    ----------
    final_bytes : int
        Data left per member.
    schedules : tuple of Schedule
        One for all positions, or one per position; what plays the same part should be the same
        object, which is kept once.
    same_way : bool
        Whether members that went different ways round would wait for one another for ever.
    said : str
        What was chosen, where the algorithm chooses, for people.
    remark : str
        A sentence for the user; "" for none.
    """

    final_bytes: int
    schedules: tuple[Schedule, ...]
    same_way: bool = False
    said: str = ""
    remark: str = ""


class Algorithm(Spec, frozen=True, eq=False):
    """A named algorithm.

    Attributes
    ----------
    kinds
        What it may be asked for.
    build
        Makes the schedules.
    variant
        What ``Request.variant`` chooses.
    fast_bus_in_subgroups
        Whether packets of a communicator group cross the bus in a fixed 10 ns.
    directed
        Whether ``Request.variant`` makes a difference.
    actual
        What it computes indeed: of the other ``kinds`` it only has the name, as in ASTRA-sim, and
        without the quirk ``double-binary-tree-is-all-reduce`` the default algorithm is taken for
        them.  None is all of ``kinds``.
    windowed
        Whether a number after the name is ``Request.window``.
    spanning
        The name under which it takes all dimensions as one ("oneRing"); "" where it does not.
    quirks
        Those of ASTRA-sim's quirks that ``build`` has where ``Request.quirks`` asks for them.
    own_delays
        Whether ``Packet.delay_ps`` is all that an endpoint takes: packets cross no bus.
    shares_links
        Whether what spans several network dimensions uses the links of all members: a group is cut
        where dimensions end, and an all-reduce reduces within each before it goes to the next one,
        whatever the system says of all-reduces.
    configured
        Makes the algorithm that a system configuration asks for; None where it needs none.
    """

    kinds: frozenset[Kind]
    build: Callable[[Request], Built]
    variant: Variant = Variant.BY_DIRECTION
    fast_bus_in_subgroups: bool = True
    directed: bool = True
    actual: frozenset[Kind] | None = None
    windowed: bool = False
    spanning: str = ""
    quirks: frozenset[str] = frozenset()
    own_delays: bool = False
    shares_links: bool = False
    configured: Callable[[SystemConfig], Algorithm] | None = None

    def computes(self, kind: Kind) -> bool:
        """Whether it does what a collective of this kind is to do."""
        return kind in (self.kinds if self.actual is None else self.actual)


def at_least_one(size_bytes: int) -> int:
    """A message has at least one byte: dividing small data must not make it vanish."""
    return max(1, size_bytes)


def final_bytes(kind: Kind, size: int, data_bytes: int) -> int:
    """Data per member after the phase."""
    if kind == Kind.ALL_GATHER:
        return data_bytes * size
    if kind in (Kind.REDUCE_SCATTER, Kind.REDUCE_SCATTER_BLOCK):
        return data_bytes // size
    return data_bytes


def packet_flags(kind: Kind, window: int, charged: int, count: int) -> list[PacketFlag]:
    """ASTRA-sim's charging pattern for ``count`` packets.

    Runs of ``window`` packets that come from the endpoint and pay nothing alternate with runs of
    ``charged`` received ones.  Of the latter, those of a reduce-scatter always pay a reduction,
    those of an all-reduce in every second run.
    """
    flags: list[PacketFlag] = []
    first_half = False
    sent_back = max(0, charged - window)
    while len(flags) < count:
        first_half = not first_half
        reduced = kind == Kind.REDUCE_SCATTER or (kind == Kind.ALL_REDUCE and first_half)
        flag = PacketFlag.REDUCED if reduced else PacketFlag(0)
        flags += [PacketFlag.TO_MEMORY] * window
        flags += [flag | PacketFlag.SEND_BACK] * sent_back + [flag] * (charged - sent_back)
    return flags[:count]


def exact_flags(
    window: int, reductions: int, count: int, *, forwarded: int = 0
) -> list[PacketFlag]:
    """The first ``window`` packets are the own data, then ``reductions`` received ones pay.

    Of these, the first ``forwarded`` go on to another member, and so cross the bus once more.
    """
    flags = [PacketFlag.TO_MEMORY] * min(window, count)
    for paid in range(min(reductions, count - len(flags))):
        back = PacketFlag.SEND_BACK if paid < forwarded else PacketFlag(0)
        flags.append(PacketFlag.REDUCED | back)
    return flags + [PacketFlag(0)] * (count - len(flags))
