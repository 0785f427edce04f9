# SPDX-License-Identifier: MIT
"""Chakra execution traces: reading, writing, converting."""

from astra_bridge.trace.about import About
from astra_bridge.trace.columns import (
    MISSING,
    CommType,
    NodeType,
    ProcessGroup,
    TraceColumns,
    Workload,
)
from astra_bridge.trace.formats import TRACE_FORMATS, TraceFormat, read_workload
from astra_bridge.trace.reader import parse_trace, read_trace

__all__ = [
    "About",
    "MISSING",
    "CommType",
    "NodeType",
    "TRACE_FORMATS",
    "ProcessGroup",
    "TraceColumns",
    "TraceFormat",
    "Workload",
    "parse_trace",
    "read_trace",
    "read_workload",
]
