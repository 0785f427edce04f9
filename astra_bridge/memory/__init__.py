# SPDX-License-Identifier: MIT
"""Remote memory: how long an access takes, and who waits for whom."""

from astra_bridge.memory.remote import access_ns, servers

__all__ = ["access_ns", "servers"]
