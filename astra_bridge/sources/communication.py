# SPDX-License-Identifier: MIT
"""What a call of PyTorch's communication does: kind, bytes, group, root, peer.

A collective leaves up to four marks, one inside the other: the functional operator
(``_c10d_functional::all_reduce``), the operator (``c10d::allreduce_``), ``record_param_comms`` and
the backend's annotation (``nccl:all_reduce``).  Each knows something; the innermost operator counts
first.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from astra_bridge.sources.execution_trace import Operator, tensors
from astra_bridge.trace.columns import CommType

__all__ = ["SEND_RECV", "Facts", "facts", "kind_of", "merged"]

SEND_RECV = ("send", "recv")

# The longest that a name begins with; letters only.
_KINDS: dict[str, CommType | str] = {
    "allreduce": CommType.ALL_REDUCE,
    "broadcast": CommType.BROADCAST,
    "reducescatter": CommType.REDUCE_SCATTER,
    "allgather": CommType.ALL_GATHER,
    "alltoall": CommType.ALL_TO_ALL,
    "gather": CommType.GATHER,
    "scatter": CommType.SCATTER,
    "barrier": CommType.BARRIER,
    "monitoredbarrier": CommType.BARRIER,
    "reduce": CommType.REDUCE,
    "send": "send",
    "isend": "send",
    "recv": "recv",
    "irecv": "recv",
    "wait": "wait",
}
_BY_LENGTH = sorted(_KINDS, key=len, reverse=True)
_PREFIX = re.compile(r"^[a-z0-9_]*:+(?=[a-z_])")
_P2P = re.compile(r"(send|recv) (\d+)\s*(?:->|<-)\s*(\d+)")

_ELEMENT_BYTES = {
    "byte": 1, "char": 1, "bool": 1, "uint8": 1, "int8": 1, "float8": 1, "short": 2, "half": 2,
    "bfloat16": 2, "int16": 2, "int": 4, "float": 4, "int32": 4, "long": 8, "double": 8,
    "int64": 8, "complexfloat": 8, "complexdouble": 16, "complexhalf": 4, "uint16": 2,
    "uint32": 4, "uint64": 8,
}  # fmt: skip


def kind_of(name: str) -> CommType | str | None:
    """What a call of this name does: a collective, "send", "recv", "wait", or nothing of these.

    Examples
    --------
    >>> kind_of("c10d::_reduce_scatter_base_"), kind_of("nccl:send 0->1"), kind_of("aten::add")
    (<CommType.REDUCE_SCATTER: 7>, 'send', None)
    """
    plain = _PREFIX.sub("", name.lower().split(" ")[0])
    letters = re.sub(r"[^a-z]", "", plain)
    return next((_KINDS[key] for key in _BY_LENGTH if letters.startswith(key)), None)


_ROOTED = (CommType.BROADCAST, CommType.REDUCE, CommType.GATHER, CommType.SCATTER)
_RANK_INPUT = 2


class Facts(msgspec.Struct):
    """What is known of a call; None where it is not.

    Attributes
    ----------
    kind : CommType, "send", "recv", "wait" or None
    in_bytes, out_bytes : int or None
        Of the buffers of this rank.
    element_bytes : int or None
        Of one element, where the number of bytes comes from.
    group : str or None
        PyTorch's name of the process group.
    members : tuple of int or None
        Its global ranks.
    size : int or None
        How many they are.
    root : int or None
        Position in the group.
    peer, peer_position : int or None
        Other end of a message: global rank, or position in the group.
    sequence : int or None
        Number of the call in its group; waits repeat it.
    storages : frozenset of int
        Of the tensors that it writes.
    blocking : bool or None
        ``async_op=False``: later work on the same stream waits.
    """

    kind: CommType | str | None = None
    in_bytes: int | None = None
    out_bytes: int | None = None
    group: str | None = None
    members: tuple[int, ...] | None = None
    size: int | None = None
    root: int | None = None
    peer: int | None = None
    peer_position: int | None = None
    sequence: int | None = None
    storages: frozenset[int] | None = None
    blocking: bool | None = None

    def size_bytes(self, members: int) -> int | None:
        """Chakra's ``comm_size``; None where the trace does not say it.

        Parameters
        ----------
        members : int
            Size of the group.
        """
        given, got = self.in_bytes, self.out_bytes
        if self.kind == CommType.BARRIER:
            return given or 1
        if self.kind == CommType.ALL_GATHER:
            return given if given is not None else got and got // members
        if self.kind == CommType.REDUCE_SCATTER:
            return given if given is not None else got and got * members
        if self.kind == CommType.GATHER:
            return given * members if given is not None else got
        if self.kind == CommType.SCATTER:
            return got * members if got is not None else given
        if given is not None and got is not None:
            return max(given, got)
        return given if given is not None else got


def merged(chain: list[Facts]) -> Facts:
    """What several marks of one call say together; the first that knows something counts."""
    result = Facts()
    for field in Facts.__struct_fields__:
        known = (getattr(one, field) for one in chain)
        setattr(result, field, next((value for value in known if value is not None), None))
    # Bytes belong together, and so do name and members of a group.
    sized = next((f for f in chain if f.in_bytes is not None or f.out_bytes is not None), None)
    if sized is not None:
        result.in_bytes, result.out_bytes = sized.in_bytes, sized.out_bytes
    return result


def facts(name: str, args: dict[str, Any], operator: Operator | None) -> Facts:
    """What one mark says.

    Parameters
    ----------
    name : str
    args : dict
        Kineto's.
    operator : Operator or None
        The same call in the execution trace.
    """
    known = [_recorded(args)]
    if operator is not None:
        known += [_attributes(operator), _inputs(operator)]
    shapes = args.get("Input Dims")
    if isinstance(shapes, list):
        known.append(_shaped(name, args, shapes))
    found = merged(known)
    if found.kind is None or name != "record_param_comms":
        found.kind = kind_of(name) if name != "record_param_comms" else found.kind
    if (ends := _P2P.search(name)) and found.peer_position is None:
        found.peer_position = int(ends.group(3))
    return found


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _bytes_of(elements: Any, dtype: Any) -> int | None:
    count = _whole(elements)
    text = re.sub(r"^(c10::|torch\.)", "", str(dtype or "")).lower()
    size = _ELEMENT_BYTES.get(text) or _ELEMENT_BYTES.get(text.split("_")[0])
    return None if count is None or size is None else count * size


def _members(text: Any, start: Any, stride: Any, size: int | None) -> tuple[int, ...] | None:
    """The ranks of a group: a list, its text, or where that is cut off, start and stride."""
    listed: tuple[int, ...] = ()
    if isinstance(text, list):
        listed = tuple(rank for rank in text if type(rank) is int)
    elif isinstance(text, str) and "..." not in text:
        listed = tuple(map(int, re.findall(r"\d+", text)))
    if listed and (size is None or len(listed) == size):
        return listed
    first, step = _whole(start), _whole(stride)
    if size and first is not None and step is not None and first >= 0 and step > 0:
        return tuple(range(first, first + size * step, step))
    return None


def _recorded(args: dict[str, Any]) -> Facts:
    """Kineto's arguments of ``record_param_comms`` and of NCCL's kernels."""
    collective = args.get("Collective name")
    if not collective:
        return Facts()
    kind = kind_of(str(collective))
    size = _whole(args.get("Group size"))
    dtype, rank = args.get("dtype"), _whole(args.get("Rank"))
    found = Facts(
        kind=kind,
        in_bytes=_bytes_of(args.get("In msg nelems"), dtype),
        out_bytes=_bytes_of(args.get("Out msg nelems"), dtype),
        group=_text(args.get("Process Group Name")),
        members=_members(
            args.get("Process Group Ranks"),
            args.get("Global rank start"),
            args.get("Global rank stride"),
            size,
        ),
        size=size,
        sequence=_whole(args.get("Seq")),
    )
    if kind in SEND_RECV:
        found.peer = _whole(args.get("Dst Rank" if kind == "send" else "Src Rank"))
        found.peer_position = rank
    elif kind in _ROOTED:
        found.root = rank
    return found


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _attributes(operator: Operator) -> Facts:
    """Attributes that the execution trace writes beside ``record_param_comms`` since 1.1.0."""
    given = operator.attributes
    names = {
        "Collective name": "collective_name",
        "In msg nelems": "in_msg_nelems",
        "Out msg nelems": "out_msg_nelems",
        "dtype": "dtype",
        "Group size": "pg_size",
        "Process Group Name": "pg_name",
    }
    return _recorded({ours: given.get(theirs) for ours, theirs in names.items()})


def _total(found: list[list[Any]]) -> int | None:
    return sum(one[3] * one[4] for one in found) if found else None


def _inputs(operator: Operator) -> Facts:
    """What the values of an operator's inputs say, in the order of its schema."""
    values = operator.inputs
    if operator.name == "record_param_comms":
        return _parameters(operator)
    found = Facts(kind=kind_of(operator.name))
    lists = [tensors(value) for value in values]
    holding = [one for one in lists if one]
    functional = "c10d_functional" in operator.name
    if found.kind is None or not holding:
        return found
    written = tensors(operator.outputs) if functional else holding[0]
    found.storages = frozenset(one[1] for one in written)
    if found.kind == "wait":
        found.storages = frozenset(one[1] for one in holding[0])
    elif functional or len(holding) == 1:
        found.in_bytes = _total(holding[0])
        found.out_bytes = _total(written) if functional else found.in_bytes
    else:
        # The operators of c10d name what they write first.
        found.out_bytes, found.in_bytes = _total(holding[0]), _total(holding[1])
    if functional:
        texts = [value for value in values if isinstance(value, str)]
        found.group = _text(texts[-1]) if texts else None
    plain = [value for value in values if type(value) in (int, bool)]
    if found.kind in SEND_RECV:
        whole = [value for value in plain if type(value) is int]
        found.peer_position = whole[0] if whole else None
    elif found.kind in _ROOTED:
        whole = [value for value in plain if type(value) is int]
        found.root = whole[0] if whole else None
    flags = [value for value in plain if type(value) is bool]
    if flags and not functional:
        found.blocking = not flags[-1]
    return found


def _parameters(operator: Operator) -> Facts:
    """The values of ``record_param_comms``: tensors, number, group, rank, kind, splits, ranks."""
    values = operator.inputs
    at = next(
        (
            i
            for i, value in enumerate(values)
            if isinstance(value, str)
            and kind_of(value) is not None
            and isinstance(values[i + 1 : i + 2], list)
        ),
        None,
    )
    if at is None or at < 3:
        return Facts()
    number, group, rank = values[at - 3 : at]
    kind = kind_of(values[at])
    start, stride, size = [*values[at + 3 : at + 6], None, None, None][:3]
    found = Facts(
        kind=kind,
        in_bytes=_total(tensors(values[: at - 3])),
        out_bytes=_total(tensors(operator.outputs)),
        size=_whole(size) or None,
        sequence=_whole(number[0] if isinstance(number, list) and number else number),
    )
    if isinstance(group, list) and group:
        found.group = _text(group[0])
    elif type(group) is int and group and kind != "wait":
        found.group = f"0x{group:x}"  # an address: PyTorch before 2.2 wrote no name
    found.members = _members(None, start, stride, found.size)
    if kind in SEND_RECV:
        found.peer_position = _whole(rank)
    elif kind in _ROOTED:
        found.root = _whole(rank)
    return found


def _shaped(name: str, args: dict[str, Any], shapes: list[Any]) -> Facts:
    """Kineto's shapes and values of inputs (``record_shapes=True``)."""
    kind = kind_of(name)
    types = args.get("Input type")
    if kind is None or not isinstance(types, list):
        return Facts(kind=kind)
    sizes = [_shape_bytes(shape, dtype) for shape, dtype in zip(shapes, types, strict=False)]
    holding = [size for size in sizes if size is not None]
    found = Facts(kind=kind)
    functional = "c10d_functional" in name
    if functional or len(holding) == 1 or name == "record_param_comms":
        found.in_bytes = holding[0] if holding else None
    elif holding:
        found.out_bytes, found.in_bytes = holding[0], holding[1]
    concrete = args.get("Concrete Inputs")
    if functional and isinstance(concrete, list):
        texts = [str(one).strip("'\"") for one in concrete if one not in (None, "")]
        found.group = _text(texts[-1]) if texts else None
    elif isinstance(concrete, list) and len(concrete) > _RANK_INPUT:
        # send(tensors, group, to, tag), broadcast_(tensors, group, root, ...), ...
        rank = _whole(concrete[_RANK_INPUT])
        if kind in SEND_RECV:
            found.peer_position = rank
        elif kind in _ROOTED:
            found.root = rank
        flags = [one for one in concrete if one in ("True", "False")]
        found.blocking = flags[-1] == "False" if flags else None
    return found


def _shape_bytes(shape: Any, dtype: Any) -> int | None:
    """Bytes of a tensor or a list of tensors; None of anything else."""
    if not isinstance(shape, list):
        return None
    if shape and isinstance(shape[0], list):
        inner = dtype if isinstance(dtype, list) else [_element_type(dtype)] * len(shape)
        sizes = [_shape_bytes(one, kind) for one, kind in zip(shape, inner, strict=False)]
        known = [size for size in sizes if size is not None]
        return sum(known) if known else None
    size = _bytes_of(1, _element_type(dtype))
    if size is None or not shape or not all(type(n) is int for n in shape):
        return None
    for extent in shape:
        size *= extent
    return size


def _element_type(dtype: Any) -> str:
    text = re.sub(r"^(GenericList|TensorList)\[?", "", str(dtype)).rstrip("]")
    return text.removeprefix("Tensor(").rstrip(")").removeprefix("long ")
