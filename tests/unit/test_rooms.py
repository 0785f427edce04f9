# SPDX-License-Identifier: MIT
"""The figure of docs/architecture.md is whole, and a parameter walks through each room once."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import astra_bridge
from astra_bridge import Experiment
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.trace import Workload
from tests.rooms import LEVELS, arrows, shortest, svg

ROOT = Path(__file__).parents[2]
PACKAGE = Path(astra_bridge.__file__).parent


def test_the_figure_has_every_room_and_no_loop() -> None:
    """The build of the documentation draws it; a loop would not end."""
    figure = svg()
    ElementTree.fromstring(figure)
    names = set(re.findall(r"[\w./]+", re.sub("<[^>]*>", " ", figure)))
    assert names >= set(LEVELS)
    assert figure.count("url(#tip)") == len(shortest(arrows())) > len(LEVELS) / 2


def test_an_arrow_that_others_stand_for_is_left_out() -> None:
    assert shortest({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [("a", "b"), ("b", "c")]


def _room(frame: FrameType | None) -> str | None:
    """The first folder or module; None outside of the package."""
    path = Path(frame.f_code.co_filename) if frame else ROOT
    return (
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") if PACKAGE in path.parents else None
    )


class Walk:
    """Counts, for each parameter, the calls that take it from one room into another."""

    def __init__(self, carriers: dict[str, tuple[str, tuple[type, ...]]]) -> None:
        self.steps: dict[str, Counter[tuple[str, str, str]]] = {p: Counter() for p in carriers}
        self._carriers = carriers

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        to = _room(frame) if event == "call" else None
        if to is None:
            return
        caller = frame.f_back
        while caller is not None and _room(caller) is None:
            caller = caller.f_back
        origin = _room(caller)
        if origin in (None, to):
            return
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = [frame.f_locals.get(name) for name in names]
        for parameter, (text, types) in self._carriers.items():
            if any(value is text or isinstance(value, types) for value in values):
                self.steps[parameter][origin, to, code.co_name] += 1


@pytest.mark.parametrize("backend", ["analytical-aware", "garnet"])
def test_a_parameter_walks_through_each_room_once(backend: str) -> None:
    folder = ROOT / "examples/analytical"
    given = {
        "workload": str(folder / "all_reduce/trace"),
        "system": str(folder / "system.json"),
        "network": str(folder / "ring.yml"),
        "backend": backend,
    }
    types: dict[str, tuple[type, ...]] = {
        "workload": (Workload,),
        "system": (SystemConfig,),
        "network": (NetworkRequest, Prepared, NetworkConfig),
        "backend": (BackendSpec,),
    }
    walk = Walk({name: (given[name], types[name]) for name in given})
    one = Experiment(given["workload"], given["system"], given["network"], backend=given["backend"])
    before = sys.getprofile()
    sys.setprofile(walk)
    try:
        one.run()
    finally:
        sys.setprofile(before)

    # The floors above the ground: what only checks a text or a number is no room on the way.
    ground = {"arguments", "registry", "text", "errors", "files"}
    for parameter, steps in walk.steps.items():
        again = {step: count for step, count in steps.items() if count > 1}
        assert again == {}, parameter
        rooms = {to for _, to, _ in steps} - ground
        assert rooms == {
            "workload": {"trace", "lowering"},
            "system": {"inputs", "lowering"},
            "network": {"network"},
            "backend": {"network", "isolation"},
        }[parameter] | (rooms & {"isolation"}), parameter
