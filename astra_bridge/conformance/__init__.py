# SPDX-License-Identifier: MIT
"""The conformance suite: the rules R1 to R19 of the network contract, as tests of any backend.

``astra-bridge conformance path/to/lib.so`` prints a verdict per rule; :func:`run` returns them.
docs/contract.md explains the rules.
"""

from __future__ import annotations

from astra_bridge.conformance.quirks import Quirks
from astra_bridge.conformance.subject import Subject, subject
from astra_bridge.conformance.suite import Outcome, Verdict, rule_titles, run, run_supervised

__all__ = [
    "Outcome",
    "Quirks",
    "Subject",
    "Verdict",
    "rule_titles",
    "run",
    "run_supervised",
    "subject",
]
