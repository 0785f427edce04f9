# SPDX-License-Identifier: MIT
"""What a rank does while a node runs, and what to call it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program.schema import Op
from astra_bridge.trace import CommType, NodeType, TraceColumns

__all__ = ["Activity", "Kinds", "kinds"]


class Activity(IntEnum):
    """What a rank does; of several at once the first one counts."""

    COMPUTE = 0
    MEMORY = 1
    COLLECTIVE = 2
    RECEIVE = 3
    HOST = 4
    STRAGGLER = 5  # a collective that another member has not begun
    SENDER = 6  # a receive whose message has not been sent
    SEND = 7
    IDLE = 8
    NOT_STARTED = 9

    @property
    def text(self) -> str:
        """What to call it.

        Examples
        --------
        >>> Activity.STRAGGLER.text
        'waiting for a straggler'
        """
        return _TEXTS.get(self, self.name.lower().replace("_", " "))


_TEXTS = {
    Activity.COLLECTIVE: "exposed collective",
    Activity.RECEIVE: "exposed message",
    Activity.STRAGGLER: "waiting for a straggler",
    Activity.SENDER: "waiting for a sender",
}


class Kinds(NamedTuple):
    """Of each node of a template its activity (-1: takes no time), and which label it has.

    Attributes
    ----------
    activity : ndarray of int64, shape (nodes,)
    label : ndarray of int64, shape (nodes,)
        Index into ``labels``.
    labels : list of str
        "all-reduce", "all-to-all dims 0,1", "all-gather group tp", "send", or "".
    """

    activity: NDArray[np.int64]
    label: NDArray[np.int64]
    labels: list[str]


_OF_OP = np.full(max(Op) + 1, -1, np.int64)
_OF_OP[Op.MEMORY] = Activity.MEMORY
_OF_OP[Op.COLLECTIVE] = Activity.COLLECTIVE
_OF_OP[Op.SEND] = Activity.SEND
_OF_OP[Op.RECV] = Activity.RECEIVE

_OF_TYPE = {
    NodeType.COMM_COLL: Activity.COLLECTIVE,
    NodeType.COMM_SEND: Activity.SEND,
    NodeType.COMM_RECV: Activity.RECEIVE,
    NodeType.MEM_LOAD: Activity.MEMORY,
    NodeType.MEM_STORE: Activity.MEMORY,
}
"""What a node that only takes a recorded time stands for."""


def kinds(nodes: NDArray[np.void], trace: TraceColumns, order: NDArray[np.int64]) -> Kinds:
    """Say what each node of a template does.

    Parameters
    ----------
    nodes
        Records of the Program.
    trace
        The trace that they are of.
    order
        Node i is node ``order[i]`` of the trace.
    """
    activity = _OF_OP[nodes["op"]]
    types = trace.type[order]
    delay = nodes["op"] == Op.DELAY
    cpu = trace.is_cpu_op[order]
    activity[delay] = np.where(cpu[delay], Activity.HOST, Activity.COMPUTE)
    for node_type, one in _OF_TYPE.items():
        activity[delay & (types == node_type)] = one
    labels, label = [""], np.zeros(len(nodes), np.int64)
    collective = np.flatnonzero(activity == Activity.COLLECTIVE)
    keys = np.stack(
        [
            column[order[collective]].astype(np.int64)
            for column in (trace.comm_type, trace.pg_name, trace.involved_dim)
        ],
        axis=1,
    )
    different, which = np.unique(keys, axis=0, return_inverse=True)
    label[collective] = which.reshape(-1) + 1
    labels += [_collective(trace, *key) for key in different.tolist()]
    for one, text in ((Activity.SEND, "send"), (Activity.RECEIVE, "receive")):
        label[activity == one] = len(labels)
        labels.append(text)
    return Kinds(activity, label, labels)


def _collective(trace: TraceColumns, kind: int, group: int, dims: int) -> str:
    known = kind in CommType.__members__.values()
    name = CommType(kind).name.lower().replace("_", "-") if known else "collective"
    if group >= 0 and trace.strings[group]:
        return f"{name} group {trace.strings[group]}"
    involved = trace.involved_dims[dims] if dims >= 0 else ()
    if involved and not all(involved):
        return f"{name} dims {','.join(str(dim) for dim, one in enumerate(involved) if one)}"
    return name
