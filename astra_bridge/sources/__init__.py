# SPDX-License-Identifier: MIT
"""What other tools record or write, as workloads: one module per format."""
