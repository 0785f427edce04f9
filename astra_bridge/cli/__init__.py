# SPDX-License-Identifier: MIT
"""The command line: arguments in, report out."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from astra_bridge.cli.terminal import drop_stdout, prepare, say

__all__ = ["command", "main"]


def command() -> NoReturn:
    """Be ``astra-bridge``: run what the command line says, and end this process."""
    code: list[int] = []
    # What others have to do at the end comes before what is registered now, and is done; whoever
    # came first (who measures coverage, say) comes after it, and needs an end as Python makes it.
    if not atexit._ncallbacks():
        atexit.register(_leave, code)
    code.append(main())
    sys.exit(code[0])


def _leave(code: list[int]) -> None:
    """End at once, for Python takes 7 ms to free what the system frees without looking at it.

    Not where code of others has run, whose files it may have to close, and where someone wants to
    hear of warnings.
    """
    from astra_bridge import process

    if not code or not process.is_ours() or sys.warnoptions or sys.flags.dev_mode:
        return
    with suppress(OSError, ValueError):  # which Python makes again, and tells of
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``astra-bridge`` and return its exit code.

    0 done, 1 the machine stands in the way (no memory, no space) or a fault of astra_bridge itself,
    2 bad input, 3 the simulation cannot go on, 4 a network backend failed, 130 interrupted, 128 + n
    ended by signal n.
    """
    prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # NumPy's linear algebra is not used, but on import its threads start and spin: 0.05 s of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The process ends soon: searching everything for garbage before that takes 0.03 s.
    atexit.register(gc.freeze)
    # What imports make stays: searching it for garbage every 700 objects is 3 % of a small run.
    gc.set_threshold(50_000)
    from astra_bridge import process
    from astra_bridge.errors import AstraBridgeError
    from astra_bridge.signals import Ended, unwinding

    if arguments is None:
        process.claim()
    try:
        with unwinding():
            code = _dispatch(given)
            sys.stdout.flush()
    except AstraBridgeError as error:
        return _fail(str(error), error.exit_code)
    except Ended as ended:
        if ended.number == signal.SIGINT:
            return _fail("interrupted", 130)
        return _fail(f"ended by {signal.Signals(ended.number).name}", 128 + ended.number)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output (such as head) has gone; files are written before anything is
        # printed, so nothing is lost that anybody wanted.
        drop_stdout()
        return 0
    except MemoryError:
        return _fail("out of memory", 1)
    except OSError as error:
        drop_stdout()
        what = f": {error.filename}" if error.filename else ""
        return _fail(f"the system refused: {error.strerror or error}{what}", 1)
    except Exception as error:
        if os.environ.get("ASTRA_BRIDGE_TRACEBACK") == "1":
            raise
        return _fail(
            f"internal fault: {type(error).__name__}: {error}\n"
            "This is a bug of astra_bridge; ASTRA_BRIDGE_TRACEBACK=1 shows where.",
            1,
        )
    return code


def _fail(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop_stdout()
    say("error", message)
    return code


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        import astra_bridge

        print(f"astra-bridge {astra_bridge.__version__}")
        return 0
    from astra_bridge.cli.command import dispatch
    from astra_bridge.cli.commands import ROOT

    return dispatch(ROOT, arguments)
