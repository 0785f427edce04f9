# SPDX-License-Identifier: MIT
"""The rooms of astra_bridge, and the figure of what they import: ``python -m tests.rooms``.

Nothing here needs more than Python: the build of the documentation draws the figure too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

FIGURE = Path(__file__).parents[1] / "build/rooms.svg"
PACKAGE = Path(__file__).parents[1] / "astra_bridge"

# The longest prefix counts.
LEVELS = {
    "text": 0,
    "errors": 0,
    "arguments": 0,
    "signals": 0,
    "supervision": 0,
    "units": 0,
    "files": 0,
    "notebook": 0,
    "plotting": 0,
    "sealed": 0,
    "semantics": 0,
    "records": 0,
    "registry": 0,
    "process": 0,
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


FILES = sorted(PACKAGE.rglob("*.py"))

_WIDTH, _ROW, _HEIGHT, _GAP = 960, 78, 30, 14


def arrows() -> dict[str, set[str]]:
    """Room -> rooms that it imports, but for the ground floor, which all use."""
    found: dict[str, set[str]] = {name: set() for name, level in LEVELS.items() if level}
    for file in FILES:
        own = room(name_of(file))
        if own not in found:
            continue
        for module, _line in imports(ast.parse(file.read_text(encoding="utf-8"))):
            other = room(module)
            if other in found and other != own:
                found[own].add(other)
    return found


def shortest(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no way over other rooms stands for."""

    def reach(start: str) -> set[str]:
        return set().union(*({other} | reach(other) for other in graph[start]))

    return sorted(
        (own, other)
        for own, others in graph.items()
        for other in others
        if not any(other in reach(between) for between in others - {other})
    )


def _box(name: str, x: float, y: float, width: float) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_HEIGHT}" rx="5" fill="#fff" '
        f'stroke="#345"/><text x="{x + width / 2:.0f}" y="{y + 20:.0f}" '
        f'text-anchor="middle">{name}</text>'
    )


def svg() -> str:
    """The figure."""
    top = max(LEVELS.values())
    place: dict[str, tuple[float, float, float]] = {}
    for level in range(top, 0, -1):
        names = [name for name in LEVELS if LEVELS[name] == level]
        widths = [8.2 * len(name) + 20 for name in names]
        x = (_WIDTH - sum(widths) - _GAP * 3 * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            place[name] = (x, 20 + _ROW * (top - level), width)
            x += width + _GAP * 3
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_ROW * top + 80}" '
        'font-family="monospace" font-size="13">',
        "<title>Rooms of astra_bridge; an arrow is an import</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#789"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{_ROW * top + 80}" fill="#f8fafc"/>',
    ]
    for own, other in shortest(arrows()):
        (x0, y0, w0), (x1, y1, w1) = place[own], place[other]
        if y0 == y1:  # rooms of one level
            left, right = sorted((x0 + w0 / 2, x1 + w1 / 2))
            x0, x1 = (left, right) if place[own][0] < place[other][0] else (right, left)
            lines.append(
                f'<path d="M{x0:.0f} {y0 + _HEIGHT} Q{(x0 + x1) / 2:.0f} {y0 + 52} {x1:.0f} '
                f'{y0 + _HEIGHT}" fill="none" stroke="#789" marker-end="url(#tip)"/>'
            )
            continue
        lines.append(
            f'<line x1="{x0 + w0 / 2:.0f}" y1="{y0 + _HEIGHT:.0f}" x2="{x1 + w1 / 2:.0f}" '
            f'y2="{y1:.0f}" stroke="#789" marker-end="url(#tip)"/>'
        )
    lines += [_box(name, *spot) for name, spot in place.items()]
    ground = " · ".join(name for name, level in LEVELS.items() if not level)
    lines.append(_box(ground, 20, 20 + _ROW * top, _WIDTH - 40))
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(svg(), encoding="utf-8")
    print(FIGURE)
