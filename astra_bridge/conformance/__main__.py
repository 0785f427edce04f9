# SPDX-License-Identifier: MIT
"""``python -m astra_bridge.conformance LIB``: a verdict per rule."""

from __future__ import annotations

import argparse
import sys

from astra_bridge.conformance.suite import rule_titles, run_supervised, serve
from astra_bridge.errors import AstraBridgeError


def main() -> int:
    """Exit code 0 if nothing failed, 1 if a rule is broken, 2 or 4 if it could not be tested."""
    parser = argparse.ArgumentParser(
        prog="astra-bridge conformance",
        description="Test a network backend against the contract.",
        epilog="Rules: " + "; ".join(f"{rule} {text}" for rule, text in rule_titles().items()),
    )
    parser.add_argument("target", nargs="?", help="path of a library, or name of a backend")
    parser.add_argument(
        "--network-configuration", help="network file (default: six endpoints, fully connected)"
    )
    parser.add_argument("--network-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rule", action="append", help="only this rule; may be repeated")
    parser.add_argument("--skip", action="append", default=[], metavar="RULE=REASON")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one rule")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        serve(arguments.worker)
        return 0
    if arguments.target is None:
        parser.error("the path of a library, or the name of a backend, is missing")
    try:
        verdicts = run_supervised(
            arguments.target,
            network=arguments.network_configuration,
            options=dict(pair.split("=", 1) for pair in arguments.network_option),
            skip=dict(pair.split("=", 1) for pair in arguments.skip),
            rules=arguments.rule,
            limit_s=arguments.limit,
        )
    except AstraBridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for verdict in verdicts:
        print(f"{verdict.rule:<4} {verdict.outcome:<5} {verdict.title}")
        if verdict.detail:
            print(f"           {verdict.detail}")
    count = {kind: sum(v.outcome == kind for v in verdicts) for kind in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 1 if count["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
