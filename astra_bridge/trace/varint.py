# SPDX-License-Identifier: MIT
"""Protobuf's numbers, without protobuf, which takes 15 ms to import."""

from __future__ import annotations

_ONE_BYTE = [bytes((value,)) for value in range(0x80)]
_MORE = [bytes((value | 0x80,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """A number >= 0 as protobuf writes it."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return _MORE[value & 0x7F] + _ONE_BYTE[value >> 7]
    if value < 0x200000:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _ONE_BYTE[value >> 14]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
