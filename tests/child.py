# SPDX-License-Identifier: MIT
"""A call in a child process, whose death is an answer too."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import tempfile
from collections.abc import Callable
from typing import Any

SECONDS = 300
DEATHS = ("killed", "ended", "raised")
"""What an answer of :func:`in_child` begins with that the call did not give."""


def in_child(call: Callable[..., tuple[Any, ...]], *arguments: Any) -> tuple[Any, ...]:
    """What the call returns, or ("killed", signal), ("ended", exit code), ("raised", what)."""
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()  # a death is an answer here, not news for the terminal
            signal.alarm(SECONDS)
            try:
                pickle.dump(call(*arguments), said)
            except BaseException as error:
                pickle.dump(("raised", repr(error)[:500]), said)
            finally:
                said.flush()
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return ("killed", os.WTERMSIG(status))
        if code := os.waitstatus_to_exitcode(status):
            return ("ended", code)
        said.seek(0)
        return pickle.load(said)
