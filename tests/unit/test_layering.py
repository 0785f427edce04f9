# SPDX-License-Identifier: MIT
"""An import may only point to a smaller number; docs/architecture.md has the reasons."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from astra_bridge.registries import REGISTRIES

PACKAGE = Path(__file__).parents[2] / "astra_bridge"

# The longest prefix counts.
LEVELS = {
    "text": 0,
    "errors": 0,
    "arguments": 0,
    "signals": 0,
    "supervision": 0,
    "units": 0,
    "files": 0,
    "plotting": 0,
    "sealed": 0,
    "semantics": 0,
    "registry": 0,
    "inputs": 1,
    "trace": 1,
    "workload": 2,
    "workload.models": 4,
    "sources": 2,
    "fabrics": 2,
    "hardware": 2,
    "topology": 2,
    "program": 2,
    "network.api": 2,
    "network.spec": 2,
    "collectives": 3,
    "compute": 3,
    "memory": 3,
    "network": 3,
    "lowering": 4,
    "network.registry": 4,
    "network.composite": 5,
    "network.remote.server": 5,
    "engine": 4,
    "conformance": 5,
    "explanation": 5,
    "isolation": 5,
    "kit": 5,
    "registries": 5,
    "stall": 5,
    "results": 5,
    "simulation": 6,
    "comparison": 7,
    "service": 7,
    "report": 7,
    "sweeping": 7,
    "validation": 7,
    "cli": 8,
}


def room(module: str) -> str:
    """The longest prefix that has a level; "" if there is none."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in LEVELS), "")


def level(module: str) -> int:
    found = LEVELS.get(room(module))
    if found is None:
        raise KeyError(f"astra_bridge.{module} has no level; add it to LEVELS")
    return found


def name_of(file: Path) -> str:
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Module below astra_bridge, line.  An import inside a function counts too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("astra_bridge."):
                    yield alias.name.removeprefix("astra_bridge."), node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            module = node.module or ""
            if module == "astra_bridge":
                for alias in node.names:
                    yield alias.name, node.lineno
            elif module.startswith("astra_bridge."):
                for alias in node.names:
                    inner = module.removeprefix("astra_bridge.")
                    # `from astra_bridge.network import registry` imports a module.
                    if (PACKAGE / inner.replace(".", "/") / f"{alias.name}.py").exists():
                        inner += f".{alias.name}"
                    yield inner, node.lineno
        else:
            yield from imports(node)


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


FILES = sorted(PACKAGE.rglob("*.py"))


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
    names -= {"baseline", "ring"}  # also a value of collective-optimization, and a topology
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                sides += [one for side in sides if isinstance(side, ast.Tuple) for one in side.elts]
                if any(isinstance(s, ast.Constant) and s.value in names for s in sides):
                    found.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []
