# SPDX-License-Identifier: MIT
"""Which of ASTRA-sim's quirks a simulation keeps: ``--semantics``.

``astra-sim`` keeps all that ASTRA-sim's numbers have, ``corrected`` none; ``+NAME`` adds one of
:data:`QUIRKS` and ``-NAME`` takes one away, as in ``corrected,+direct-in-groups-is-ring``.  Where a
quirk acts, it is asked for by its name.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property, lru_cache

from astra_bridge.errors import InputError
from astra_bridge.text import nearest, show

__all__ = ["ASTRA_SIM", "CORRECTED", "QUIRKS", "Effects", "Semantics"]

QUIRKS = {
    "remainder-is-a-chunk": "a remainder of the data costs one or more further full chunks",
    "small-chunks-are-padded": "a chunk, except of an all-gather, has at least one byte for each "
    "rank of the world",
    "one-communication-at-a-time": "a collective, a send or a memory access of a rank starts when "
    "the one before it has ended",
    "store-and-forward": "every link of a way takes the whole message before the next one starts, "
    "on analytical-aware",
    "first-dimension-only": "only the first dimension in which two ranks differ costs anything, "
    "on analytical-unaware",
    "missing-algorithms-leave-dimensions-out": "a collective leaves out the dimensions for which "
    "the system names no algorithm; without, that is refused",
    "groups-skip-endpoint-delay": "messages of a communicator group cross the bus in 10 ns, "
    "whatever endpoint-delay and the shared bus say",
    "direct-in-groups-is-ring": "a communicator group runs a ring where the system names several "
    "algorithms, such as direct; without, it runs the first of them",
    "direct-charges-by-window": "of direct, some receives that reduce are free where there is a "
    "window, and some that do not reduce are paid for in a group",
    "halving-doubling-skips-a-reduction": "all but one of the log2(n) reductions of "
    "halvingDoubling are paid for",
    "halving-doubling-wraps-around": "halvingDoubling among 6, 12, 20, ... members, no powers of "
    "two, gathers as if they were one",
    "double-binary-tree-is-all-reduce": "doubleBinaryTree runs an all-reduce whatever is asked "
    "for; without, it is a ring where that is not an all-reduce",
    "custom-peers-as-listed": "custom collectives take the own file by its place among the sorted "
    "ranks of a group, but peers by their place in its list",
    "false-is-on": "JSON false switches a flag of the system file on; only 0 is off",
    "receives-complete-at-once": "a collective's receive whose data is there completes inside its "
    "post, on ns-3",
    "printed-times-wrap-around": "a negative time in the result lines is printed as 2**64 less it",
    "overlap-is-busy-less-wall": "the overlap of GPU compute and communication of ranks with "
    "nothing else is the sum of both less the wall time, idle or not",
    "streams-do-not-order": "streams of the GPU and threads of the host (attributes stream and "
    "tid) do not count: nodes of one wait for one another only where dependencies say so, and "
    "those of several run one at a time",
    "broadcast-is-replayed": "a broadcast takes its recorded duration, or 1 ns, and no network",
}
"""Name -> what it does."""

_BASES = {
    "astra-sim": frozenset(QUIRKS) - {"broadcast-is-replayed"},
    "corrected": frozenset[str](),
}


class Semantics:
    """A set of quirks.

    Attributes
    ----------
    quirks : frozenset of str
        Those of :data:`QUIRKS` that a simulation has.

    Examples
    --------
    >>> some = Semantics.of("corrected,+direct-in-groups-is-ring")
    >>> "direct-in-groups-is-ring" in some, "store-and-forward" in some
    (True, False)
    >>> str(some)
    'corrected,+direct-in-groups-is-ring'
    """

    def __init__(self, quirks: frozenset[str]) -> None:
        self.quirks = quirks

    @staticmethod
    def of(text: str | Semantics, key: str = "semantics") -> Semantics:
        """Read what ``--semantics`` takes.

        Parameters
        ----------
        text : str or Semantics
            ``astra-sim`` or ``corrected``, then any number of ``,+NAME`` and ``,-NAME``.
        key : str
            What it is called, for messages.

        Raises
        ------
        InputError
            There is no such quirk; says which there are, and the nearest.
        """
        return text if isinstance(text, Semantics) else _read(text, key)

    def __contains__(self, name: str) -> bool:
        if name not in QUIRKS:
            raise KeyError(name)
        return name in self.quirks

    def __str__(self) -> str:
        return self._spelling

    @cached_property
    def _spelling(self) -> str:
        def changes(base: str) -> list[str]:
            return [
                f"{'+' if name in self.quirks else '-'}{name}"
                for name in QUIRKS
                if (name in self.quirks) != (name in _BASES[base])
            ]

        base = min(_BASES, key=lambda base: len(changes(base)))
        return ",".join([base, *changes(base)])


@lru_cache(maxsize=64)
def _read(text: str, key: str) -> Semantics:
    base, *changes = text.split(",")
    if base not in _BASES:
        raise InputError(
            f"{show(text)} is not allowed; allowed: {', '.join(_BASES)}, and after it ,+NAME or "
            f",-NAME with a quirk of docs/semantics.md{nearest(base, _BASES)}",
            key=key,
        )
    quirks = set(_BASES[base])
    for change in changes:
        sign, name = change[:1], change[1:]
        if sign not in ("+", "-") or name not in QUIRKS:
            hint = nearest(change.lstrip("+-"), QUIRKS)
            raise InputError(
                f"{show(change)} is not allowed; allowed: + or - before one of "
                f"{', '.join(QUIRKS)}{hint}",
                key=key,
            )
        (quirks.add if sign == "+" else quirks.discard)(name)
    return Semantics(frozenset(quirks))


ASTRA_SIM = Semantics.of("astra-sim")
CORRECTED = Semantics.of("corrected")

_MOST_DETAILS = 3


class Effects:
    """What quirks changed in a run, and in others: each is named once.

    Examples
    --------
    >>> effects = Effects()
    >>> effects.note("remainder-is-a-chunk", "all-reduce: 5 chunks in place of 4", 2)
    >>> effects.warnings()
    ['quirk remainder-is-a-chunk: 2 x all-reduce: 5 chunks in place of 4']
    """

    def __init__(self, *others: Effects) -> None:
        self._times: dict[str, Counter[str]] = {}
        for other in others:
            for quirk, times in other._times.items():
                for detail, count in times.items():
                    self.note(quirk, detail, count)

    def note(self, quirk: str, detail: str, times: int = 1) -> None:
        """Something was not as it is without a quirk.

        Parameters
        ----------
        quirk : str
            One of :data:`QUIRKS`.
        detail : str
            What it was, and what it cost where that is known.
        times : int
            How often.
        """
        self._times.setdefault(quirk, Counter())[detail] += times

    def warnings(self) -> list[str]:
        """One sentence per quirk, the most frequent first in each."""
        return [
            f"quirk {quirk}: {_listed(self._times[quirk])}"
            for quirk in QUIRKS
            if quirk in self._times
        ]


def _listed(times: Counter[str]) -> str:
    details = [
        f"{count:,} x {detail}" if count > 1 else detail
        for detail, count in times.most_common(_MOST_DETAILS)
    ]
    more = sum(times.values()) - sum(count for _, count in times.most_common(_MOST_DETAILS))
    return "; ".join(details) + (f"; and {more:,} more" if more else "")
