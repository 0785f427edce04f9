# SPDX-License-Identifier: MIT
"""What both readers, native and pure Python, take out of a trace's bytes."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

ATTRIBUTES: dict[bytes, int] = {
    b"comm_type": 0,
    b"comm_size": 1,
    b"comm_src": 2,
    b"comm_dst": 3,
    b"comm_tag": 4,
    b"comm_priority": 5,
    b"num_ops": 6,
    b"tensor_size": 7,
    b"root_rank": 8,
    b"comm_root": 8,
    b"duration_ns": 9,
    b"stream": 10,
    b"tid": 11,
    b"is_cpu_op": 12,
    b"pg_name": 13,
    b"involved_dim": 14,
}
"""Attributes that a simulation reads -> slot: 0 to 11 are those of `RawTrace.ints`."""

IS_CPU_OP, PG_NAME, INVOLVED_DIM = 12, 13, 14


class RawTrace(msgspec.Struct, frozen=True):
    """Decoded records, before ids, names and groups are checked; n nodes, e dependencies.

    Attributes
    ----------
    version : bytes
    record_start : ndarray of int64, shape (n,)
        Where each node's length prefix starts in the file.
    node_id, duration_micros : ndarray of uint64, shape (n,)
    type : ndarray of int32, shape (n,)
    is_cpu_op : ndarray of uint8, shape (n,)
        0 or 1.
    ints : list of 12: ndarray of int64, shape (n,), or None
        As in `ATTRIBUTES`; MISSING where absent, None where no node has the attribute.
    pg_name, involved_dim : ndarray of int32, shape (n,)
        Index into `strings` and `involved_dims`, -1 where absent.
    strings : list of bytes
    involved_dims : list of bytes
        One byte, 0 or 1, per dimension.
    dep_start : ndarray of int64, shape (n + 1,)
    dep_id : ndarray of uint64, shape (e,)
        Ids of parents: of each node, its data dependencies, then its control dependencies.
    data_dep_count : ndarray of int32, shape (n,)
        How many of them are data dependencies.
    """

    version: bytes
    record_start: npt.NDArray[np.int64]
    node_id: npt.NDArray[np.uint64]
    type: npt.NDArray[np.int32]
    duration_micros: npt.NDArray[np.uint64]
    is_cpu_op: npt.NDArray[np.uint8]
    ints: list[npt.NDArray[np.int64] | None]
    pg_name: npt.NDArray[np.int32]
    involved_dim: npt.NDArray[np.int32]
    strings: list[bytes]
    involved_dims: list[bytes]
    dep_start: npt.NDArray[np.int64]
    dep_id: npt.NDArray[np.uint64]
    data_dep_count: npt.NDArray[np.int32]


class RawError(ValueError):
    """The bytes are not a trace; `reader` turns this into an InputError that names the file.

    Parameters
    ----------
    problem
        What is wrong, without the place.
    place
        Where: "byte 17", or "node 12: comm_size".
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem


def twice(first: int, second: int) -> str:
    """What is wrong where the nodes at two positions have one id."""
    return (
        f"the id is used twice, by the nodes at positions {first} and {second}; ids must be unique"
    )
