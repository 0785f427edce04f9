# SPDX-License-Identifier: MIT
"""Who runs the points: processes on this machine, or the workers of a Dask cluster.

Both are executors of `concurrent.futures`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.text import one_line, show

__all__ = ["workers"]

_CONNECT_S = 20.0


@contextmanager
def workers(count: int, dask: str | None) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """An executor, and the function that says how many points it can run at a time just now.

    Parameters
    ----------
    count
        Processes on this machine.
    dask
        The address of a Dask scheduler, in place of them.

    Raises
    ------
    InputError
        Nobody answers at the address.
    MissingDependency
        Dask is not installed.
    """
    if dask is None:
        # Not forked: a copy of a process that has threads may wait for ever.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)
        try:
            yield pool, lambda: count
        except BaseException:
            # Who is interrupted does not wait for what runs.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return
    try:
        distributed: Any = import_module("distributed")  # whose functions may have no types
    except ImportError:
        raise MissingDependency(
            "--dask needs distributed: pip install 'astra-bridge[sweep]'"
        ) from None
    try:
        client = distributed.Client(dask, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {show(dask)}: {one_line(str(error), 200)}", key="--dask"
        ) from None
    with client, client.get_executor(pure=False) as executor:
        yield executor, lambda: sum(client.nthreads().values())


def _end_with_parent() -> None:
    """In a worker: end when the process that started it has ended, however it has."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
