# SPDX-License-Identifier: MIT
"""Write the C++ header of the records and enums of astra_bridge/program/schema.py.

The build runs it: ``python csrc/engine/make_records.py FILE``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from astra_bridge import program
from astra_bridge.program.compiled import fingerprint

INTEGERS = {"u1": "uint8_t", "i4": "int32_t", "i8": "int64_t", "f8": "double"}
OTHER_NAMES = {"MESSAGE": "MessageSpec"}  # the engine has messages of its own
COUNTED = (program.Unit,)  # enums whose number of members matters


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def struct_name(record: str) -> str:
    return OTHER_NAMES.get(record, camel(record))


def records() -> dict[str, Any]:
    """Name -> dtype."""
    return {
        name: value
        for name, value in vars(program).items()
        if isinstance(value, np.dtype) and value.names
    }


def tables() -> Iterator[tuple[str, str]]:
    """Each array of a Program: its name, and the C++ type of a row."""
    names = {dtype: struct_name(name) for name, dtype in records().items()}
    empty = program.Program(np.zeros(0, program.TASK))
    for field in fields(program.Program):
        value = getattr(empty, field.name)
        if isinstance(value, np.ndarray):
            yield field.name, names.get(value.dtype) or INTEGERS[value.dtype.str[1:]]


def enums(storage: dict[type[IntEnum], str]) -> Iterator[str]:
    for kind in vars(program).values():
        if not isinstance(kind, type) or kind in (IntEnum, IntFlag):
            continue
        if issubclass(kind, IntFlag):
            values = ", ".join(f"k{camel(str(one.name))} = {one.value}" for one in kind)
            yield f"enum {kind.__name__} : int32_t {{ {values} }};"
        elif issubclass(kind, IntEnum):
            values = ", ".join(f"k{camel(one.name)} = {one.value}" for one in kind)
            yield f"enum class {kind.__name__} : {storage.get(kind, 'uint8_t')} {{ {values} }};"
        if kind in COUNTED:
            yield f"constexpr int k{kind.__name__}s = {len(kind)};"


def struct(name: str, dtype: Any, storage: dict[type[IntEnum], str]) -> Iterator[str]:
    cpp = struct_name(name)
    yield f"struct {cpp} {{"
    for field, (kind, _) in dtype.fields.items():
        base, shape = kind.subdtype or (kind, ())
        integer = INTEGERS[base.str[1:]]
        enum = program.ENUMS.get((name, field))
        if enum is not None and storage.setdefault(enum, integer) != integer:
            raise SystemExit(f"{enum.__name__} is stored as {storage[enum]} and as {integer}")
        written = integer if enum is None else enum.__name__
        yield f"  {written} {field}{''.join(f'[{count}]' for count in shape)};"
    yield "};"
    yield f"static_assert(sizeof({cpp}) == {dtype.itemsize});"
    for field, (_, offset) in dtype.fields.items():
        yield f"static_assert(offsetof({cpp}, {field}) == {offset});"


def header() -> str:
    storage: dict[type[IntEnum], str] = {}
    structs = [line for name, dtype in records().items() for line in struct(name, dtype, storage)]
    rows = [
        f"  {'FIXED' if name in program.RANK_TABLES else 'GROWS'}({name}, {row})"
        for name, row in tables()
    ]
    layout = [
        f'  f("{name}", "{field}", offsetof({struct_name(name)}, {field}), '
        f"sizeof({struct_name(name)}::{field}));"
        for name, dtype in records().items()
        for field in dtype.names
    ]
    lines = [
        "// SPDX-License-Identifier: MIT",
        "//",
        "// Made by csrc/engine/make_records.py from astra_bridge/program/schema.py: change that.",
        "#ifndef ASTRA_ENGINE_RECORDS_HPP",
        "#define ASTRA_ENGINE_RECORDS_HPP",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "",
        "// The tables of a Program: those that grow with work, and those of what the ranks are.",
        "#define ENGINE_TABLES(GROWS, FIXED) \\",
        " \\\n".join(rows),
        "",
        "namespace engine {",
        "",
        *enums(storage),
        "",
        *structs,
        "",
        "// What this was made of, in short.",
        f'constexpr const char* kFingerprint = "{fingerprint()}";',
        "",
        "// f(record, field, offset, size) for each field.",
        "template <class F>",
        "void each_field(F f) {",
        *layout,
        "}",
        "",
        "}  // namespace engine",
        "",
        "#endif  // ASTRA_ENGINE_RECORDS_HPP",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(header(), encoding="utf-8")
