# SPDX-License-Identifier: MIT
"""Backends in other processes, and on other machines; docs/remote.md.

`backend` is the near end, `server` the far one, `callbacks` lets that serve networks in Python.
What crosses is said in ``backends/remote/wire.hpp``.
"""

from astra_bridge.network.remote.backend import remote_backend

__all__ = ["remote_backend"]
