# SPDX-License-Identifier: MIT
"""What an accelerator is: datasheet values with their source, parameters fitted to measurements."""

from astra_bridge.hardware.parameters import (
    AttentionParameters,
    CopyParameters,
    Fitted,
    GemmParameters,
    HostParameters,
    NcclParameters,
    OperatorParameters,
    StreamParameters,
)
from astra_bridge.hardware.profile import HARDWARE, Datasheet, Hardware, hardware, read_hardware

__all__ = [
    "HARDWARE",
    "AttentionParameters",
    "CopyParameters",
    "Datasheet",
    "Fitted",
    "GemmParameters",
    "Hardware",
    "HostParameters",
    "NcclParameters",
    "OperatorParameters",
    "StreamParameters",
    "hardware",
    "read_hardware",
]
