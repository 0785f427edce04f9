# SPDX-License-Identifier: MIT
"""What the children of test_supervision do; a module of its own, so that they start fast."""

from __future__ import annotations

import os
import threading

from astra_bridge.supervision import Parent


def echo(parent: Parent) -> None:
    parent.send("echo", bytes(parent.request), length=len(parent.request))


def write_raw(parent: Parent) -> None:
    """Write bytes into the pipe, as a library could; ``token`` stands for the child's own."""
    os.write(parent._answers, parent.request.replace(b"token", parent._token))


def wait(parent: Parent) -> None:
    """Say nothing, for ever."""
    threading.Event().wait()


def raise_it(parent: Parent) -> None:
    raise parent.request
