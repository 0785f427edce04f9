# SPDX-License-Identifier: MIT
"""What the build keeps of the header is what parsing it gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.network import header


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(header.KEPT, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    header.ffi.cache_clear()
    yield
    header.ffi.cache_clear()


def plain(c_name: str) -> str:
    """A kept header says ``struct astra_net_sim`` where a parsed one says ``astra_net_sim``."""
    return c_name.replace("struct ", "")


def layout(ffi: Any) -> dict[str, Any]:
    """Every named type of the header, with size and fields."""
    types = {}
    for name in ffi.list_types()[0]:
        # A function is a type only behind a pointer.
        kind = ffi.typeof(f"{name} *" if name.endswith("_fn") else name)
        if kind.kind == "struct" and name != "astra_net_sim":  # which is opaque
            rows = [(f, t.offset, plain(t.type.cname)) for f, t in kind.fields]
            types[name] = (ffi.sizeof(kind), rows)
        else:
            types[name] = (kind.kind, plain(kind.cname))
    return types


def test_kept_and_parsed_agree(tmp_path: Path) -> None:
    kept = load(header.keep(tmp_path)).ffi
    parsed = header.parse(header.declarations())
    assert len(layout(parsed)) > 10
    assert layout(kept) == layout(parsed)


def test_a_header_that_changed_is_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load(header.keep(tmp_path))
    monkeypatch.setattr(header, "import_module", lambda _: kept)
    assert header.ffi() is kept.ffi
    header.ffi.cache_clear()
    text = header.declarations()
    monkeypatch.setattr(header, "declarations", lambda: f"{text} typedef int astra_net_more;")
    assert header.ffi() is not kept.ffi
    assert header.ffi().sizeof("astra_net_more") == 4


def test_nothing_kept_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(header, "import_module", missing)
    assert header.ffi().sizeof("astra_net_transfer") == 48
