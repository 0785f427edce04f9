# SPDX-License-Identifier: MIT
"""astra_net.h is C99 and C++11, and its records are NumPy's, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from astra_bridge.network import api
from astra_bridge.network.native import ffi, header_path

STRICT = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ["-x", "c", "-std=c99"]), ("g++", ["-x", "c++", "-std=c++11"])],
)
def test_header_compiles_alone(
    compiler: str, flags: list[str], missing: Callable[[str, str], None]
) -> None:
    if shutil.which(compiler) is None:
        missing("native", f"no {compiler}")
    source = b'#include "astra_net.h"\nastra_net_backend_init_fn *init = astra_net_backend_init;\n'
    command = [compiler, *flags, *STRICT, "-I", str(header_path().parent), "-"]
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_header_needs_only_stddef_and_stdint() -> None:
    lines = header_path().read_text().splitlines()
    included = {line.split()[1] for line in lines if line.startswith("#include")}
    assert included == {"<stddef.h>", "<stdint.h>"}


@pytest.mark.parametrize(
    ("struct", "dtype", "size"),
    [
        ("astra_net_transfer", api.TRANSFER, 48),
        ("astra_net_completion", api.COMPLETION, 32),
        ("astra_net_link", api.LINK, 32),
    ],
)
def test_record_is_the_numpy_record(struct: str, dtype: np.dtype[np.void], size: int) -> None:
    assert ffi().sizeof(struct) == dtype.itemsize == size
    fields = {name: (f.offset, f.type.cname) for name, f in ffi().typeof(struct).fields}
    assert dtype.fields is not None
    assert list(fields) == list(dtype.names or ())
    c_names = {"<i8": "int64_t", "<i4": "int32_t", "<u4": "uint32_t", "<f8": "double"}
    for name, (kind, offset, *_) in dtype.fields.items():
        assert fields[name] == (offset, c_names[kind.str])


@pytest.mark.parametrize("struct", ["error", "host", "info", "config", "exchange", "backend"])
def test_every_struct_begins_with_its_size(struct: str) -> None:
    name, field = ffi().typeof(f"astra_net_{struct}").fields[0]
    assert (name, field.offset, field.type.cname) == ("struct_size", 0, "uint32_t")


def _constants(prefix: str) -> dict[str, int]:
    library = ffi().dlopen(None)
    return {
        name.removeprefix(prefix): getattr(library, name)
        for name in dir(library)
        if name.startswith(prefix)
    }


def test_constants_are_those_of_python() -> None:
    statuses = {"OK", *(status.name for status in api.Status)}
    assert {k: v for k, v in _constants("ASTRA_NET_").items() if k in statuses} == {
        status.name: status.value for status in api.Status
    }
    assert _constants("ASTRA_NET_STOP_") == {stop.name: stop.value for stop in api.Stop}
    assert _constants("ASTRA_NET_CAP_") == {
        capability.name: capability.value for capability in api.Capability
    }
    rest = _constants("ASTRA_NET_")
    assert (rest["DELIVERED"], rest["SENT"]) == (api.DELIVERED, api.SENT)
    assert rest["PLACES_PER_TRANSFER"] == api.PLACES_PER_TRANSFER
    assert "ASTRA_NET_TIME_NEVER INT64_MAX" in header_path().read_text()
    assert api.TIME_NEVER == 2**63 - 1


def test_every_capability_has_its_sentence() -> None:
    assert set(api.CAPABILITY_SENTENCES) == set(api.Capability)


def test_the_table_is_the_order_of_the_versions() -> None:
    """A minor version only appends: 1.0 ends where 1.1 begins, and 1.1 where 1.2 does."""
    names = [name for name, _ in ffi().typeof("astra_net_backend").fields]
    assert names == [
        "struct_size", "abi_version",
        "info", "create", "destroy", "submit", "advance", "poll",
        "interrupt", "set_link", "stats", "snapshot",
        "exchange",
        "save", "load", "peek",
    ]  # fmt: skip
