# SPDX-License-Identifier: MIT
"""A profile that is another one under a name of its own."""

from dataclasses import replace

from astra_bridge.hardware import hardware

PROFILE = replace(hardware("h100-sxm"), name="h100-lab", summary="The cards of our laboratory.")
