# SPDX-License-Identifier: MIT
"""The child process of ``run_supervised``; people type ``astra-bridge conformance``."""

from __future__ import annotations

import sys

from astra_bridge.conformance.suite import serve

if __name__ == "__main__":
    serve(int(sys.argv[1]))
