# SPDX-License-Identifier: MIT
"""``python -m astra_bridge`` is ``astra-bridge``."""

from astra_bridge.cli import command

command()
