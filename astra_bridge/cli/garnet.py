# SPDX-License-Identifier: MIT
"""``astra-bridge garnet``: the Garnet network alone, without traces and collectives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _garnet() -> None:
    """Garnet alone: replay message lists, draw latency against load."""


@app.command("replay")
def replay_command(
    file: Path = typer.Argument(..., help="A message list (JSON); docs/garnet.md has the format."),
    json_file: Path | None = typer.Option(
        None, "--json", help="Write the delivery cycle and more of each message here; - is stdout."
    ),
) -> None:
    """Run a list of messages and say which cycle delivers each."""
    from astra_bridge.network.garnet.replay import read_messages, replay

    case = read_messages(file)
    result = replay(case)
    if json_file is not None:
        _write(json_file, json.dumps(result.to_json()))
    if str(json_file) == "-":
        return
    rows = result.rows
    print(f"{len(case.messages)} messages, {int(rows['flits'].sum())} flits")
    if len(case.messages):
        print(f"last delivery: cycle {int(rows['deliver'].max())}")
        print(f"mean queueing latency: {rows['queueing_latency'].mean():.3f} cycles")
        print(f"mean network latency: {rows['network_latency'].mean():.3f} cycles")
    if case.results is not None:
        expected = _expected(case.results)
        if expected is not None and len(expected) == len(rows["deliver"]):
            same = int(np.count_nonzero(expected == rows["deliver"]))
            print(f"deliveries equal to those in the file: {same} of {len(expected)}")


def _expected(results: object) -> np.ndarray | None:
    """The delivery cycles that a message list brings along, or None."""
    try:
        column = results["columns"].index("deliver")  # type: ignore[index]
        return np.array([row[column] for row in results["rows"]], np.int64)  # type: ignore[index]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _write(path: Path, text: str) -> None:
    from astra_bridge.errors import InputError

    if str(path) == "-":
        print(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the file: {error.strerror}", file=path) from None


if __name__ == "__main__":
    from astra_bridge.cli import main

    sys.exit(main(["garnet", *sys.argv[1:]]))
