# SPDX-License-Identifier: MIT
"""``python -m astra_bridge`` is ``astra-bridge``."""

import sys

from astra_bridge.cli import main

sys.exit(main())
