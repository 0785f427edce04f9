# SPDX-License-Identifier: MIT
"""One of everything that a package can add to astra_bridge."""
