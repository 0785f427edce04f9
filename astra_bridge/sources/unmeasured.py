# SPDX-License-Identifier: MIT
"""An execution trace alone: what runs in which order, with operations and bytes in place of times.

Innermost operators run one after the other, on the device of their tensors.  A collective starts
after what was issued before it, and the first operator that reads what it wrote waits for it.
Operations are those of the textbook; bytes are the tensors that go in and come out.
"""

from __future__ import annotations

import math
import re

from astra_bridge.errors import InputError
from astra_bridge.sources.communication import SEND_RECV, Facts, facts, merged
from astra_bridge.sources.execution_trace import ExecutionTrace, Operator, tensors
from astra_bridge.sources.kineto import is_communication
from astra_bridge.sources.rank import Rank, Step
from astra_bridge.trace.columns import NodeType
from astra_bridge.trace.inferences import Inferences

__all__ = ["operations", "order_of"]

# Operators that look at a tensor in another way, or make one without filling it.
_NO_WORK = re.compile(
    r"aten::(view|_?reshape.*|transpose|t|permute|expand.*|slice|select|as_strided.*|detach.*|alias"
    r"|empty.*|unsqueeze|squeeze|split.*|chunk|narrow|_unsafe_view|unbind|result_type|lift_fresh"
    r"|resolve_(conj|neg)|item|_local_scalar_dense|is_nonzero|view_as|flatten|unflatten|to|size"
    r"|contiguous|numel|set_|resize_.*|_has_compatible_shallow_copy_type|movedim|unfold|diagonal"
    r"|real|imag|conj|expand_as|broadcast_to|new_empty.*|ones_like|zeros_like|record_stream)$"
)
_MATMUL = re.compile(r"aten::(addmm|mm|bmm|baddbmm|matmul|_scaled_mm|addmv|mv|dot|linear)_?$")
_CONVOLUTION = re.compile(r"aten::.*convolution(?!_backward)")
_CONVOLUTION_BACKWARD = re.compile(r"aten::.*convolution_backward")
_ATTENTION = re.compile(r"aten::_?(scaled_dot_product|flash|efficient|cudnn).*attention")


def operations(operator: Operator) -> int:
    """Floating-point operations of an operator, by the shapes of its tensors.

    A product of matrices takes two per multiplication; attention two products, and two and a half
    times as many backward (Dao, arXiv 2307.08691, section 2); anything else one per element of what
    it writes.

    Parameters
    ----------
    operator : Operator
    """
    shapes = [shape for shape in _shapes(operator.input_shapes) if shape]
    name = operator.name
    if _MATMUL.match(name) and len(shapes) >= 2:
        left, right = _factors(name, shapes)
        inner = left[-1]
        columns = right[-1] if len(right) > 1 else 1
        return int(2 * math.prod(left[:-1]) * inner * columns)
    if _ATTENTION.match(name) and len(shapes) >= 3:
        backward = "backward" in name
        query, key = (shapes[1], shapes[2]) if backward else (shapes[0], shapes[1])
        if len(query) == 4 and len(key) == 4:
            products = 4 * math.prod(query[:-2]) * query[-2] * key[-2] * query[-1]
            return int(products * 5 // 2 if backward else products)
    if _CONVOLUTION_BACKWARD.match(name) and len(shapes) >= 3:
        return int(4 * math.prod(shapes[0]) * math.prod(shapes[2][1:]))
    written = sum(int(one[3]) for one in tensors(operator.outputs))
    if _CONVOLUTION.match(name) and len(shapes) >= 2:
        return 2 * written * math.prod(shapes[1][1:])
    return written


def kernels_of(operator: Operator) -> str:
    """The kernel of a product or of attention by its shape; "" of anything else.

    Parameters
    ----------
    operator : Operator
    """
    shapes = [shape for shape in _shapes(operator.input_shapes) if shape]
    name = operator.name
    if _MATMUL.match(name) and len(shapes) >= 2:
        left, right = _factors(name, shapes)
        if len(left) < 2 or len(right) < 2 or min(*left, *right) < 1:
            return ""
        rows, inner = math.prod(left[:-1]), left[-1]
        if "linear" in name:
            return f"gemm {rows} {right[0]} {inner}"
        precision = " fp8" if "_scaled_mm" in name else ""
        if len(left) > 2 and len(right) > 2:  # a batch of products
            batch = math.prod(left[:-2])
            return f"{batch}*gemm {left[-2]} {right[-1]} {inner}"
        return f"gemm {rows} {right[-1]} {inner}{precision}"
    if _ATTENTION.match(name) and len(shapes) >= 3:
        backward = "backward" in name
        query, key = (shapes[1], shapes[2]) if backward else (shapes[0], shapes[1])
        if len(query) == 4 and len(key) == 4 and min(*query, *key) >= 1:
            batch, heads, length, size = query
            direction = " backward" if backward else ""
            return f"attention {batch} {heads} {key[1]} {length} {key[-2]} {size}{direction}"
    return ""


def _factors(name: str, shapes: list[list[int]]) -> list[list[int]]:
    """The two factors of a product: the last tensors, but where a bias or scales come behind."""
    return shapes[:2] if name.startswith(("aten::linear", "aten::_scaled_mm")) else shapes[-2:]


def _shapes(value: object) -> list[list[int]]:
    if not isinstance(value, list):
        return []
    if value and all(type(n) is int for n in value):
        return [list(map(int, value))]
    return [shape for inner in value for shape in _shapes(inner)]


def order_of(trace: ExecutionTrace, position: int, made: Inferences) -> Rank:
    """Make the steps of a rank.

    Parameters
    ----------
    trace : ExecutionTrace
        With all its operators.
    position : int
        Number of the rank.
    made : Inferences

    Raises
    ------
    InputError
        There is nothing that could be simulated.
    """
    parents = {operator.parent for operator in trace.operators}
    by_id = {operator.id: operator for operator in trace.operators}
    outer = _around(trace, by_id)
    steps: list[Step] = []
    last: dict[bool, int] = {}  # by whether it runs on the host
    pending: dict[int, int] = {}  # storage -> the collective that writes it
    joined: list[int] = []
    number_of: dict[int, int] = {}  # of a call in its group -> its step
    previous = -1
    for operator in trace.operators:
        if is_communication(operator.name):
            found = None if operator.id in outer else _call(operator, by_id)
            if found is None:
                continue
            if found.kind == "wait":
                storages = found.storages or frozenset()
                known = {pending[one] for one in storages if one in pending}
                if found.sequence in number_of:
                    known.add(number_of[found.sequence])
                joined += known
                continue
            deps = {*last.values(), *joined} | ({previous} if previous >= 0 else set())
            kind = NodeType.COMM_COLL
            if found.kind in SEND_RECV:
                kind = NodeType.COMM_SEND if found.kind == "send" else NodeType.COMM_RECV
            at = len(steps)
            steps.append(
                Step(kind, operator.name, at, 0, sorted(deps), facts=found, group=found.group or "")
            )
            previous = at
            for storage in found.storages or ():
                pending[storage] = at
            if found.sequence is not None:
                number_of[found.sequence] = at
            continue
        if operator.id in parents or _NO_WORK.match(operator.name):
            continue
        given, got = tensors(operator.inputs), tensors(operator.outputs)
        if not given and not got:
            continue
        host = not any(not one[5].startswith("cpu") for one in [*given, *got])
        read = {one[1] for one in [*given, *got]}
        deps = {pending.pop(one) for one in read if one in pending} | set(joined)
        joined = []
        if host in last:
            deps.add(last[host])
        last[host] = len(steps)
        steps.append(
            Step(
                NodeType.COMP, operator.name, len(steps), 0, sorted(deps), cpu=host,
                ops=operations(operator),
                moved_bytes=sum(one[3] * one[4] for one in [*given, *got]),
                kernels="" if host else kernels_of(operator),
            )
        )  # fmt: skip
    if not steps:
        raise InputError("holds no operator that computes or communicates", file=trace.file)
    made.note("operations and bytes in place of recorded times", trace.file.name, len(steps))
    groups = {
        str(one["pg_name"]): tuple(one["ranks"])
        for one in trace.groups
        if isinstance(one.get("ranks"), list) and one.get("pg_name") is not None
    }
    sizes = [one["group_size"] for one in trace.groups if type(one.get("group_size")) is int]
    highest = [max(ranks) + 1 for ranks in groups.values() if ranks]
    return Rank(position, max([*sizes, *highest], default=None), steps, groups, trace.file)


_ANNOTATION = re.compile(r"[a-z]+:(?!:)")


def _around(trace: ExecutionTrace, by_id: dict[int, Operator]) -> set[int]:
    """Operators that have a call of communication in them."""
    found: set[int] = set()
    for operator in trace.operators:
        if is_communication(operator.name) and not _ANNOTATION.match(operator.name):
            parent = operator.parent
            while parent in by_id and parent not in found:
                found.add(parent)
                parent = by_id[parent].parent
    return found


def _call(operator: Operator, by_id: dict[int, Operator]) -> Facts | None:
    """What an innermost call of communication does; None of a backend's annotation."""
    known = facts(operator.name, {}, operator)
    if _ANNOTATION.match(operator.name) or known.kind is None:
        return None
    chain = [known]
    parent = by_id.get(operator.parent)
    while parent is not None and is_communication(parent.name):
        chain.append(facts(parent.name, {}, parent))
        parent = by_id.get(parent.parent)
    return merged(chain)
