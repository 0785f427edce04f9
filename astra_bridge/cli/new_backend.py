# SPDX-License-Identifier: MIT
"""``astra-bridge new-backend``: a package with a complete small backend, to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

from astra_bridge.arguments import path
from astra_bridge.cli.command import Argument, Command, one_of
from astra_bridge.kit import LANGUAGES, new_backend

__all__ = ["COMMAND"]


def _new_backend(name: str, language: str, output: Path | None) -> None:
    files = new_backend(name, language, output)
    for file in files:
        print(file)
    folder = shlex.quote(str(name if output is None else output))
    print(f"next: cd {folder}; README.md has the commands that install and test it")


COMMAND = Command(
    "Write a package with a complete small backend, to start from.",
    {
        "arguments": (
            Argument("NAME", "", "Of the backend and the package: small letters, digits, -."),
        ),
        "options": (
            Argument("--language", "|".join(LANGUAGES), "Of the backend.", one_of(*LANGUAGES),
                     default="c++"),
            Argument("--output", "FOLDER", "A new folder.", path, otherwise="NAME", short="-o"),
        ),
    },
    _new_backend,
    "new-backend my-net --language python",
    "docs/new_backend.md joins two simulators step by step.",
)  # fmt: skip
