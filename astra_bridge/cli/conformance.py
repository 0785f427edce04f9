# SPDX-License-Identifier: MIT
"""``astra-bridge conformance``: test a network backend against the rules of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from astra_bridge.arguments import number_text, whole_text
from astra_bridge.cli.command import Argument, Command, key_value
from astra_bridge.conformance import rule_titles, run_supervised
from astra_bridge.text import printable

__all__ = ["COMMAND"]


def _conformance(
    target: str,
    network_configuration: str | None,
    network_option: Sequence[str],
    rule: Sequence[str],
    skip: Sequence[str],
    largest: int | None,
    limit: float,
) -> int:
    verdicts = run_supervised(
        target,
        network=network_configuration,
        options=dict(key_value(text, "--network-option") for text in network_option),
        skip=dict(key_value(text, "--skip") for text in skip),
        largest_bytes=largest,
        rules=list(rule) or None,
        limit_s=limit,
    )
    for verdict in verdicts:
        print(f"{verdict.rule:<4} {verdict.outcome:<5} {verdict.title}")
        if verdict.detail:
            print(f"           {printable(verdict.detail, indent=' ' * 11)}")
    count = {kind: sum(v.outcome == kind for v in verdicts) for kind in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 1 if count["fail"] else 0


COMMAND = Command(
    "Test a network backend against the contract; a verdict per rule.",
    {
        "arguments": (
            Argument("TARGET", "", "Path of a shared library, name of a backend, or address of a "
                     "server."),
        ),
        "options": (
            Argument("--network-configuration", "FILE", "Network file.",
                     otherwise="six endpoints, fully connected"),
            Argument("--network-option", "KEY=VALUE", "For the backend.", repeated=True),
            Argument("--rule", "RULE", "Only this rule.", repeated=True),
            Argument("--skip", "RULE=REASON", "Not this rule.", repeated=True),
            Argument("--largest", "BYTES", "R14 waits for no larger transfer: a cycle-level "
                     "simulator cannot send 2**40.", whole_text(1, 2**40)),
            Argument("--limit", "SECONDS", "Time for one rule.", number_text(0, 1e12),
                     default=120.0),
        ),
    },
    _conformance,
    "conformance ./libmine.so --network-configuration ring.yml",
    "Exit code 1 if a rule is broken.\n\nrules:\n"
    + "\n".join(f"  {rule:<4}  {text}" for rule, text in rule_titles().items()),
)  # fmt: skip
