# SPDX-License-Identifier: MIT
"""Networks: the contract in Python, the loader of libraries, and the backends that come along."""
