# SPDX-License-Identifier: MIT
"""How long nodes take: recorded, computed by a model, or at a remote memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute import ComputeModel, ComputeNodes
from astra_bridge.errors import PluginError, SimulationError
from astra_bridge.lowering.view import Setting, TraceView
from astra_bridge.program import Op
from astra_bridge.registry import Spec
from astra_bridge.trace import MISSING, NodeType
from astra_bridge.units import INT64_MAX, PS_PER_NS, PS_PER_US

__all__ = ["compute", "recorded_ps", "remote_memory", "replayed_ps", "sum_ps"]

_FROM_KINETO = "a trace recorded with Kineto has durations"

_MOST_PS = 2**62
"""Longest single duration, 53 days: two of them can be added."""


def recorded_ps(view: TraceView) -> NDArray[np.int64]:
    """Recorded durations: `duration_ns`, else `duration_micros`; without one a node takes 1 ns.

    Raises
    ------
    InputError
        One is beyond the range of time.
    """
    duration_us = view.trace.duration_micros[view.order]
    most = 2**62 // PS_PER_US
    too_long = duration_us > most
    if too_long.any():
        at = int(np.argmax(too_long))
        view.refuse(
            f"is {duration_us[at]}; allowed: up to {most}", int(view.order[at]), "duration_micros"
        )
    result: NDArray[np.int64] = np.where(duration_us == 0, PS_PER_NS, duration_us * PS_PER_US)
    exact_ns = view.trace.duration_ns[view.order]
    exact = exact_ns != MISSING
    if exact.any():
        most = 2**62 // PS_PER_NS
        if (exact_ns > most).any():
            at = int(np.argmax(exact_ns > most))
            view.refuse(
                f"is {exact_ns[at]}; allowed: up to {most}", int(view.order[at]), "duration_ns"
            )
        result[exact] = exact_ns[exact] * PS_PER_NS
    return result


def replayed_ps(view: TraceView) -> NDArray[np.int64]:
    """Recorded durations of a run that takes all times from the trace; says where there is none."""
    working = (view.types != int(NodeType.METADATA)) & (view.types != int(NodeType.INVALID))
    silent = working & view.trace.untimed[view.order]
    if silent.any():
        what = f"nodes have no duration and take 1 ns each under replay-only; {_FROM_KINETO}"
        view.remark(what, int(silent.sum()))
    return recorded_ps(view)


def sum_ps(view: TraceView, duration_ps: NDArray[np.int64]) -> int:
    """The sum of durations.

    Raises
    ------
    SimulationError
        It is beyond the range of time.
    """
    total = float(duration_ps.sum(dtype=np.float64))
    if total >= float(INT64_MAX):
        raise SimulationError(
            f"{view.trace.file or 'trace'}: its nodes take {total:.3g} ps, beyond the range of "
            "time (2^63 ps)"
        )
    return int(duration_ps.sum())


def compute(
    view: TraceView, nodes: Any, duration_ps: NDArray[np.int64], setting: Setting
) -> tuple[int, NDArray[np.bool_]]:
    """Fill in COMP nodes.

    Returns
    -------
    tuple
        The time that does not count as exposed communication, and the nodes that a model other
        than the recording has timed.
    """
    if "streams-do-not-order" not in setting.semantics:
        # A stream that does nothing, for reasons of which the trace says nothing.
        stream = view.trace.stream[view.order]
        pauses = (view.types == int(NodeType.METADATA)) & (stream != MISSING)
        nodes["op"][pauses] = Op.DELAY
        nodes["duration_ps"][pauses] = duration_ps[pauses]
    comp = view.types == int(NodeType.COMP)
    nodes["op"][comp] = Op.DELAY
    nodes["duration_ps"][comp] = duration_ps[comp]
    accelerated = comp & ~view.cpu
    host = comp & view.cpu
    if host.any():
        silent = host & view.trace.untimed[view.order]
        if silent.any():
            what = f"operators of the host have no duration and take 1 ns each; {_FROM_KINETO}"
            view.remark(what, int(silent.sum()))
    modelled = accelerated.copy()
    model = setting.choices.compute
    if modelled.any():
        _remark_on_none(view, modelled, model)
        # What has been measured needs no model.
        bare = np.zeros(len(modelled), np.bool_)
        for column in model.needs:
            bare |= getattr(view.trace, column)[view.order] == MISSING
        modelled &= ~(bare & _has_duration(view))
        for column in model.needs:
            view.required(modelled, column, 0, 2**62)
        positions = view.order[modelled]
        asked = ComputeNodes(view.trace, positions, duration_ps[modelled])
        given = model.duration_ps(asked, setting.system)
        nodes["duration_ps"][modelled] = _checked_ps(given, model, view, positions)
    timed = np.zeros_like(modelled) if model.recorded else modelled
    return sum_ps(view, nodes["duration_ps"][accelerated]), timed


def _remark_on_none(view: TraceView, modelled: NDArray[np.bool_], model: ComputeModel) -> None:
    """Say which compute takes no time because nothing gives it one."""
    if not model.recorded:
        return
    silent = modelled & ~_has_duration(view)
    if not silent.any():
        return
    operations = (view.trace.num_ops[view.order[silent]] != MISSING).any()
    remedy = (
        '; they have num_ops, from which "roofline-enabled": 1 and peak-perf in the system file '
        "give durations"
        if operations
        else f"; {_FROM_KINETO}"
    )
    view.remark(f"compute nodes have no duration and take 1 ns each{remedy}", int(silent.sum()))


def _has_duration(view: TraceView) -> NDArray[np.bool_]:
    trace = view.trace
    known: NDArray[np.bool_] = (trace.duration_micros != 0) | (trace.duration_ns != MISSING)
    return known[view.order]


def remote_memory(view: TraceView, nodes: Any, setting: Setting) -> None:
    """Fill in MEM_LOAD and MEM_STORE nodes.

    Raises
    ------
    InputError
        There are some, but no remote memory.
    """
    which = (view.types == int(NodeType.MEM_LOAD)) | (view.types == int(NodeType.MEM_STORE))
    if not which.any():
        return
    model, positions = setting.choices.memory, view.order[which]
    if model.duration_ps is None:
        source = setting.memory.source
        view.refuse(
            f"needs remote memory, but memory-type is {model.name}"
            f"{f' in {source}' if source else ''}",
            int(positions[0]),
        )
    sizes = view.required(which, "tensor_size", 0, 2**62)
    nodes["op"][which] = Op.MEMORY
    given = model.duration_ps(setting.memory, sizes)
    if model.store_duration_ps is not None:
        stores = view.types[which] == int(NodeType.MEM_STORE)
        given = np.where(stores, model.store_duration_ps(setting.memory, sizes), given)
    nodes["duration_ps"][which] = _checked_ps(given, model, view, positions)


def _checked_ps(
    duration_ps: Any, model: Spec, view: TraceView, positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What a model gives as the durations of nodes, in whole ps."""
    given = np.asarray(duration_ps)
    if given.shape != positions.shape or given.dtype.kind not in "iuf":
        raise PluginError(
            f"{model.name}: gives {given.dtype} of shape {given.shape} as durations of "
            f"{len(positions)} nodes; allowed: a number of ps for each"
        )
    too_long = ~((given >= 0) & (given <= _MOST_PS))
    if too_long.any():
        at = int(np.argmax(too_long))
        view.refuse(
            f"takes {given[at] / PS_PER_NS:.3g} ns by the model {model.name}; allowed: up to "
            f"{_MOST_PS / PS_PER_NS:.3g}",
            int(positions[at]),
        )
    return (np.rint(given) if given.dtype.kind == "f" else given).astype(np.int64)
