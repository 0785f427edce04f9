# SPDX-License-Identifier: MIT
"""An import may only point to a smaller number; docs/architecture.md has the reasons."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from astra_bridge.registries import REGISTRIES
from tests.rooms import FILES, PACKAGE, imports, level, name_of


def violations(file: Path, source: str) -> list[str]:
    own = name_of(file)
    if not own or own.startswith("_"):
        return []  # astra_bridge itself offers what is below it
    found = []
    for module, line in imports(ast.parse(source)):
        if module.startswith("_") or own.split(".")[0] == module.split(".")[0] != "network":
            continue
        if level(module) > level(own):
            found.append(
                f"{file.name}:{line}: {own} [{level(own)}] imports {module} [{level(module)}]"
            )
    return found


def circles(sources: Mapping[str, str]) -> list[list[str]]:
    """Modules that import one another in a circle: the components of Tarjan's algorithm.

    Parameters
    ----------
    sources
        Source text by module.  An import inside a function, or for the type checker only, counts.
    """
    graph = {
        module: [other for other, _line in imports(ast.parse(source)) if other in sources]
        for module, source in sources.items()
    }
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            at = stack.index(module)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1 or module in graph[module]:
                found.append(sorted(component))

    for module in graph:
        if module not in number:
            visit(module)
    return sorted(found)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_down(file: Path) -> None:
    assert violations(file, file.read_text(encoding="utf-8")) == []


def test_the_check_can_fail() -> None:
    file = PACKAGE / "inputs" / "made_up.py"
    assert violations(file, "from astra_bridge.units import time_ps") == []
    for source in (
        "from astra_bridge.cli import main",
        "import astra_bridge.engine.python",
        "from astra_bridge.network import registry",
        "def late():\n    from astra_bridge.lowering import lower",
    ):
        assert len(violations(file, source)) == 1, source
    with pytest.raises(KeyError, match="has no level"):
        violations(file, "import astra_bridge.nowhere")


def test_no_module_imports_itself_by_way_of_others() -> None:
    sources = {name_of(file): file.read_text(encoding="utf-8") for file in FILES}
    assert circles(sources) == []


def test_a_circle_is_found() -> None:
    first = "def late():\n    from astra_bridge import b"
    second = "if TYPE_CHECKING:\n    from astra_bridge.c import x"
    assert circles({"a": first, "b": second, "c": ""}) == []
    assert circles({"a": first, "b": second, "c": "import astra_bridge.a"}) == [["a", "b", "c"]]
    assert circles({"a": "import astra_bridge.a"}) == [["a"]]


def test_no_name_decides() -> None:
    """What differs between two things of a kind is data: no comparison with the name of one."""
    names = {name for registry in REGISTRIES.values() for name in registry.built_in}
    # Also a value of collective-optimization, a topology, and what kernels of NCCL begin with.
    names -= {"baseline", "ring", "nccl"}
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                sides += [one for side in sides if isinstance(side, ast.Tuple) for one in side.elts]
                if any(isinstance(s, ast.Constant) and s.value in names for s in sides):
                    found.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []
