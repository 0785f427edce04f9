# SPDX-License-Identifier: MIT
"""The commands; the module of each is imported when it is chosen."""

from __future__ import annotations

from importlib import import_module

from astra_bridge.cli.command import Command, Group, unknown

__all__ = ["ROOT"]

# Each is the COMMAND of the module of its name, with _ for -.
_COMMANDS = {
    "run": "Run a simulation.",
    "compare": "Run experiments on several backends: errors, cost, where they part.",
    "explain": "Say where the time of a run went, and what would make it faster.",
    "sweep": "Run many experiments that differ in some values, each once; find the best.",
    "calibrate": "Fit parameters of a backend or of an accelerator to measurements.",
    "validate": "Predict measurements of real hardware; print the error, and that of naive models.",
    "report": "Make a page about runs, to look at and to send.",
    "trace": "Look at traces, check and convert them.",
    "workload": "Generate workloads.",
    "models": "List language models, with their parameters beside the published ones.",
    "topology": "Write the fabric of a cluster as a network file; convert those of others.",
    "garnet": "Garnet alone: replay message lists, draw latency against load.",
    "serve": "Answer what users of astra-sim-sdk send to ASTRA-sim's service.",
    "serve-backend": "Put a backend behind an address, for runs elsewhere.",
    "doctor": "Say what can be chosen by name here, and why the rest cannot.",
    "conformance": "Test a network backend against the contract; a verdict per rule.",
    "new-backend": "Write a package with a complete small backend, to start from.",
}


def _find(name: str) -> Command | Group:
    if name not in _COMMANDS:
        raise unknown("command", name, _COMMANDS)
    command: Command | Group = import_module(f"astra_bridge.cli.{name.replace('-', '_')}").COMMAND
    return command


ROOT = Group(
    "Simulate distributed machine-learning training over any network simulator.",
    lambda: _COMMANDS,
    _find,
    "`astra-bridge --version` says which version this is.",
)
