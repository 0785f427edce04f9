# SPDX-License-Identifier: MIT
"""In which ways the ranks of a network of dimensions are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.network.analytical.topologies import Dimensions, LinkList
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.spec import Symmetry
from astra_bridge.program.folding import NotFolded, Turn
from astra_bridge.program.tables import distinct

__all__ = ["symmetry_of"]

Digits = Sequence[tuple[int, int]]


def symmetry_of(config: NetworkConfig) -> Symmetry:
    """All dimensions may be turned; the ranks of a Switch, or a FullyConnected one, change places.

    A transfer crosses dimensions in ascending order, a ring the shorter way round, clockwise where
    both are equally long: all of which a turn leaves as it is.  Of a list of links the ways that
    are taken are compared one by one.

    Raises
    ------
    NotFolded
        The network has loads over time, or is a list of links whose messages each go their own way.

    Examples
    --------
    >>> ring = {"topology": "Ring", "npus_count": "4", "bandwidth": "1", "latency": "0"}
    >>> of_ring = symmetry_of(NetworkConfig(4, 4, options=ring | {"fold": "1:4"}))
    >>> of_ring.turns
    (Turn(size=4, any=False),)
    >>> link, src, dst = of_ring.turned(np.array([1]), np.array([0, 1]))
    >>> link.tolist(), src.tolist(), dst.tolist()
    ([[1, 3]], [[0, 1]], [[3, 0]])
    """
    if config.options.get("sample_interval_us"):
        raise NotFolded("loads over time are kept of every link (sample_interval_us)")
    if "topology" not in config.options:
        return _of_links(config)
    network = Dimensions(config.options, config.endpoints, first_only=False)

    def turned(
        links: NDArray[Any], by: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        shape = (len(links), len(by))
        number, src, dst = (np.zeros(shape, np.int64) for _ in range(3))
        firsts = [one.first_link for one in network.dimensions]
        dimension = np.searchsorted(firsts, links, "right") - 1
        for d in range(len(network.dimensions)):
            rows = np.flatnonzero(dimension == d)
            if len(rows):
                number[rows], src[rows], dst[rows] = network.turned(d, links[rows], by)
        return number, src, dst

    return Symmetry(tuple(Turn(one.size, one.kind != "Ring") for one in network.dimensions), turned)


def _of_links(config: NetworkConfig) -> Symmetry:
    """Ranks of any digits, as far as the ways of all pairs agree."""
    if config.options.get("routing", "ecmp") not in ("ecmp", "static"):
        raise NotFolded("messages of one pair of ranks take different ways")

    def kept(
        digits: Digits, src: NDArray[Any], dst: NDArray[Any]
    ) -> tuple[tuple[tuple[int, int], ...], dict[str, str]]:
        return _Ways(config, src, dst).kept(digits)

    def turned(
        links: NDArray[Any], by: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        numbers = config.options["fold_links"].replace(";", ",").split(",")
        table = np.array(numbers, np.int64)
        link, stands_for, turn = table.reshape(-1, 3).T
        key = stands_for * config.endpoints + turn
        order = np.argsort(key)
        wanted = np.asarray(links, np.int64)[:, None] * config.endpoints + by[None, :]
        number = link[order][np.searchsorted(key[order], wanted)]
        return number, config.links["src"][number], config.links["dst"][number]

    return Symmetry((Turn(config.endpoints, True),), turned, kept)


def _moved(rank: NDArray[Any], stride: int, size: int) -> NDArray[Any]:
    """Ranks whose digit is one more, round and round."""
    digit = rank // stride % size
    moved: NDArray[Any] = rank + ((digit + 1) % size - digit) * stride
    return moved


_FEW = 64
"""Pairs that are looked at before all: most networks of which no ranks are alike show it there."""


class _Ways:
    """The links that messages between pairs of ranks cross, one after the other."""

    def __init__(self, config: NetworkConfig, src: NDArray[Any], dst: NDArray[Any]) -> None:
        self.config, self.src, self.dst = config, src, dst
        self._routes = LinkList(config)
        self._known: dict[tuple[int, int], list[int]] = {}

    def _way(self, pair: tuple[int, int]) -> list[int]:
        found = self._known.get(pair)
        if found is None:
            found = self._known[pair] = self._routes.route(*pair)
        return found

    def _may_turn(self, stride: int, size: int) -> bool:
        """Whether the first few ways agree with a digit."""
        pairs = [
            list(zip(rank[0].tolist(), rank[1].tolist(), strict=True))
            for rank in (
                (self.src[:_FEW], self.dst[:_FEW]),
                (_moved(self.src[:_FEW], stride, size), _moved(self.dst[:_FEW], stride, size)),
            )
        ]
        images: dict[int, int] = {}
        for here, there in zip(*pairs, strict=True):
            one, other = self._way(here), self._way(there)
            if len(one) != len(other):
                return False
            for link, image in zip(one, other, strict=True):
                if images.setdefault(link, image) != image:
                    return False
        return True

    def _compare(self) -> None:
        """Find all ways."""
        pairs = zip(self.src.tolist(), self.dst.tolist(), strict=True)
        ways = [self._way(pair) for pair in pairs]
        self.count = np.array([len(way) for way in ways], np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.count)])
        self.link = np.array([link for way in ways for link in way], np.int64)
        self.used = distinct(self.link)

    def image(self, stride: int, size: int) -> NDArray[np.int64] | None:
        """What each link becomes when the digit is turned by one; None where ways do not agree."""
        ranks, links = self.config.endpoints, self.config.links
        pair = self.src * ranks + self.dst
        wanted = _moved(self.src, stride, size) * ranks + _moved(self.dst, stride, size)
        at = np.minimum(np.searchsorted(pair, wanted), len(pair) - 1)
        if (pair[at] != wanted).any() or (self.count[at] != self.count).any():
            return None
        inner = np.arange(len(self.link)) - np.repeat(self.first[:-1], self.count)
        there = self.link[np.repeat(self.first[at], self.count) + inner]
        found = np.full(len(links), -1, np.int64)
        found[self.link] = there
        one_to_one = len(distinct(found[self.used])) == len(self.used)
        agree = (found[self.link] == there).all() and all(
            (links[name][there] == links[name][self.link]).all()
            for name in ("bytes_per_second", "latency_ps")
        )
        return found if bool(agree) and one_to_one else None

    def kept(self, digits: Digits) -> tuple[tuple[tuple[int, int], ...], dict[str, str]]:
        """Those that all ways agree with, where no link is shared by ranks that are alike."""
        digits = [one for one in digits if self._may_turn(*one)]
        if not digits:
            return (), {}
        self._compare()
        stands = np.full(len(self.config.links), -1, np.int64)
        stands[self.used] = self.used
        ones = self.used  # that stand for others, so far
        kept, images = [], []
        for stride, size in digits:
            image = self.image(stride, size)
            if image is None:
                continue
            here, least = ones, ones
            for _ in range(size - 1):
                here = stands[image[here]]
                if (here == ones).any():
                    break
                least = np.minimum(least, here)
            else:
                if (stands[image[here]] != ones).any():
                    continue
                stands[ones] = least
                stands[self.used] = stands[stands[self.used]]
                ones = distinct(least)
                kept.append((stride, size))
                images.append(image)
        link, by = ones[None, :], np.zeros(1, np.int64)
        for (stride, size), image in zip(kept, images, strict=True):
            turns = [link]
            for _ in range(size - 1):
                turns.append(image[turns[-1]])
            link = np.concatenate(turns)
            by = (np.arange(size)[:, None] * stride + by[None, :]).reshape(-1)
        table = np.stack(np.broadcast_arrays(link, ones[None, :], by[:, None]), -1).reshape(-1, 3)
        text = ";".join(",".join(map(str, row)) for row in table.tolist())
        return tuple(kept), {"fold_links": text}
