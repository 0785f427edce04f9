# SPDX-License-Identifier: MIT
"""For those who write packages: a complete small backend to start from, and how C and C++ compile.

:mod:`astra_bridge.kit.build` is for their ``setup.py``, so setuptools is imported there only.
"""

from astra_bridge.kit.new_backend import LANGUAGES, new_backend

__all__ = ["LANGUAGES", "new_backend"]
