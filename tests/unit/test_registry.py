# SPDX-License-Identifier: MIT
"""Name -> specification: built in, plugged in and added; whose fault it is where one is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from astra_bridge import registry as module
from astra_bridge.errors import InputError, MissingDependency, PluginError
from astra_bridge.registries import REGISTRIES
from astra_bridge.registry import Registry, Spec

GROUP = "astra_bridge.test"
TEAL = Spec("teal", "Between green and blue.")
SEVERAL = (Spec("red", "Warm."), Spec("blue", "Cold."))


class Mixer(Spec, frozen=True, eq=False):
    mix: object = None


BROKEN = Mixer("broken", "Raises.", mix=lambda: 1 / 0)
OTHER = "no specification"


def colours(built_in: dict[str, str], spec: type[Spec] = Spec) -> Registry[Spec]:
    return Registry("colour", GROUP, spec, built_in)


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(
        EntryPoint(name, value, GROUP)
        for name, value in (
            ("teal", f"{__name__}:TEAL"),
            ("red", f"{__name__}:SEVERAL"),
            ("broken", f"{__name__}:BROKEN"),
            ("other", f"{__name__}:OTHER"),
            ("absent", "no_such_module:SPEC"),
        )
    )
    monkeypatch.setattr(module, "_entry_points", lambda group: entries if group == GROUP else ())


def test_what_is_built_in() -> None:
    known = colours({"teal": f"{__name__}:TEAL", "red": f"{__name__}:SEVERAL"})
    assert known.names() == ["teal", "red"]
    assert known.find("teal", key="paint") is TEAL
    assert known.find("red", key="paint") is SEVERAL[0]
    with pytest.raises(MissingDependency, match="colour 'grey' is not part of this installation"):
        colours({"grey": "no_such_module:SPEC"}).find("grey", key="paint")


@pytest.mark.parametrize("name", ["tael", 7, None, "", "\0"])
def test_a_name_that_nobody_has(name: object) -> None:
    with pytest.raises(InputError, match=r"f\.json: paint: .* is not allowed; allowed: teal"):
        colours({"teal": f"{__name__}:TEAL"}).find(name, key="paint", file="f.json")


def test_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'teal'"):
        colours({"teal": f"{__name__}:TEAL"}).find("Teel", key="paint")


@pytest.mark.usefixtures("plugged_in")
def test_what_packages_plug_in() -> None:
    known = colours({"red": f"{__name__}:SEVERAL"})
    assert known.names() == ["red", "teal", "broken", "other", "absent"]
    assert known.find("red", key="paint") is SEVERAL[0]  # what is built in is not replaced
    assert known.find("teal", key="paint").summary == TEAL.summary


@pytest.mark.usefixtures("plugged_in")
def test_a_fault_of_a_plug_in_is_its_own() -> None:
    known = colours({}, Mixer)
    found = known.find("broken", key="paint")
    assert isinstance(found, Mixer)
    with pytest.raises(PluginError, match="plug-in colour 'broken': ZeroDivisionError") as caught:
        found.mix()  # type: ignore[operator]
    assert caught.value.exit_code == 4
    for name, words in (
        ("teal", f"plug-in colour 'teal': {__name__}:TEAL is not a Mixer"),
        ("other", "is not a Mixer"),
        ("absent", "plug-in colour 'absent': ModuleNotFoundError"),
    ):
        with pytest.raises(PluginError, match=words):
            known.find(name, key="paint")


def test_what_a_program_adds() -> None:
    known = colours({"red": f"{__name__}:SEVERAL"})
    known.add(TEAL)
    assert known.names() == ["red", "teal"]
    assert known.find("teal", key="paint") is TEAL
    for wrong in (TEAL, SEVERAL[0]):
        with pytest.raises(InputError, match=r"there is a colour '.*' already"):
            known.add(wrong)
    with pytest.raises(InputError, match="is not a Spec"):
        known.add("teal")  # type: ignore[arg-type]


@pytest.mark.parametrize("title", REGISTRIES)
def test_what_is_built_in_can_be_had(title: str) -> None:
    known = REGISTRIES[title]
    groups = [other.group for other in REGISTRIES.values()]
    assert groups.count(known.group) == 1
    for name in known.built_in:
        found = known.find(name, key=title)
        assert found.summary
        assert found.unavailable() is None or found.unavailable()


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text()


def test_the_page_has_each_registry() -> None:
    titles = [part.partition("\n")[0] for part in PAGE.split("\n## ")[1:]]
    for known in REGISTRIES.values():
        assert f"`{known.group}`" in PAGE
        assert f".{known.spec.__name__}`" in PAGE
    assert len(titles) == len(REGISTRIES)


def test_the_examples_of_the_page() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = []
    for example in examples:
        made: dict[str, Any] = {}
        exec(example, made)
        (spec,) = [value for value in made.values() if isinstance(value, Spec)]
        (known,) = [one for one in REGISTRIES.values() if type(spec) is one.spec]
        own = Registry(known.kind, known.group, known.spec, known.built_in)
        own.add(spec)
        assert own.find(spec.name, key="name") is spec
        found.append(known.kind)
    assert found == ["compute model", "accelerator", "memory model", "queue policy",
                     "order of dimensions", "trace format", "generator"]  # fmt: skip


def test_a_run_without_plug_ins_does_not_look_for_them() -> None:
    """It takes 20 ms; so do protobuf, hashes and temporary files, which few runs need."""
    inputs = ROOT / "examples" / "analytical"
    code = f"""
import sys
import numpy  # older ones need some of it themselves
before = set(sys.modules)
from astra_bridge import simulate
simulate("{inputs}/all_reduce/trace", "{inputs}/system.json", "{inputs}/ring.yml")
slow = ["importlib.metadata", "difflib", "google.protobuf", "gzip", "hashlib", "tempfile"]
slow += ["numpy.ma", "zipfile"]
print([name for name in slow if name in sys.modules and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
