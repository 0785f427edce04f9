# SPDX-License-Identifier: MIT
"""``astra-bridge conformance``: test a network backend against the rules of the contract."""

from __future__ import annotations

import typer

from astra_bridge.cli.flags import key_value
from astra_bridge.conformance import rule_titles, run_supervised
from astra_bridge.text import printable

__all__ = ["app"]

app = typer.Typer()


@app.command(epilog="Rules: " + "; ".join(f"{rule} {text}" for rule, text in rule_titles().items()))
def conformance(
    target: str = typer.Argument(..., help="Path of a shared library, or name of a backend."),
    network_configuration: str = typer.Option(
        None, help="Network file (default: six endpoints, fully connected)."
    ),
    network_option: list[str] = typer.Option([], metavar="KEY=VALUE", help="For the backend."),
    rule: list[str] = typer.Option([], help="Only this rule; may be repeated."),
    skip: list[str] = typer.Option([], metavar="RULE=REASON", help="May be repeated."),
    limit: float = typer.Option(120.0, min=0.0, help="Seconds for one rule."),
) -> None:
    """Test a network backend against the contract; a verdict per rule.

    Exit code 1 if a rule is broken.
    """
    verdicts = run_supervised(
        target,
        network=network_configuration,
        options=dict(key_value(text, "--network-option") for text in network_option),
        skip=dict(key_value(text, "--skip") for text in skip),
        rules=rule or None,
        limit_s=limit,
    )
    for verdict in verdicts:
        print(f"{verdict.rule:<4} {verdict.outcome:<5} {verdict.title}")
        if verdict.detail:
            print(f"           {printable(verdict.detail, indent=' ' * 11)}")
    count = {kind: sum(v.outcome == kind for v in verdicts) for kind in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    raise typer.Exit(1 if count["fail"] else 0)
