# SPDX-License-Identifier: MIT
"""Chakra execution traces: reading, writing, converting."""

from astra_bridge.trace.columns import (
    MISSING,
    CommType,
    NodeType,
    ProcessGroup,
    TraceColumns,
    Workload,
)

__all__ = ["MISSING", "CommType", "NodeType", "ProcessGroup", "TraceColumns", "Workload"]
