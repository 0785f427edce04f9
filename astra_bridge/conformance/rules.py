# SPDX-License-Identifier: MIT
"""One function per rule of docs/contract.md; each raises ``Broken`` or returns a remark.

A function raises ``NotTested`` where the rule does not apply to the subject.
"""

from __future__ import annotations

import contextlib
import functools
import locale
import logging
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cffi
import numpy as np
from numpy.typing import NDArray

from astra_bridge.conformance.drive import (
    Broken,
    Records,
    drain,
    exchange_all,
    finish_times,
    need,
    refused,
    simulate,
    submit_all,
    transfers,
    workload,
)
from astra_bridge.conformance.subject import Subject
from astra_bridge.errors import (
    ContractError,
    InputError,
    Interrupted,
    NetworkError,
    SimulationError,
    Unsupported,
)
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    REDUCE,
    SENT,
    TIME_NEVER,
    Capability,
    Network,
    Status,
    Stop,
)
from astra_bridge.network.native import NativeNetwork, ffi

__all__ = ["RULES", "NotTested", "environment"]


class NotTested(Exception):
    """The rule does not apply, and why."""


def _same(a: Records, b: Records, what: str) -> None:
    """Both runs gave the same completions: ids, times and order."""
    if a.tobytes() == b.tobytes():
        return
    left, right = finish_times(a), finish_times(b)
    for number in sorted(left.keys() | right.keys()):
        if left.get(number) != right.get(number):
            raise Broken(
                f"{what} changes when transfer {number} ends: {left.get(number)} ps against "
                f"{right.get(number)} ps"
            )
    raise Broken(f"{what} changes the order of completions")


def versions(s: Subject) -> str:
    """R1: offers are answered version by version, and no struct is read past its size."""
    library = s.library
    if library is None:
        raise NotTested("pure Python: there is no table")
    parsed = ffi()
    init = library.init
    guard = 64

    def padded(kind: str, size: int) -> tuple[Any, Any]:
        memory = parsed.new("uint8_t[]", size + guard)
        parsed.memmove(memory, b"\0" * size + b"\xa5" * guard, size + guard)
        pointer = parsed.cast(f"{kind} *", memory)
        pointer.struct_size = size
        return memory, pointer

    def untouched(memory: Any, size: int, what: str) -> None:
        tail = bytes(parsed.buffer(memory)[size : size + guard])
        need(tail == b"\xa5" * guard, f"{what} wrote past struct_size={size}")

    full = parsed.sizeof("astra_net_backend")
    sizes = {
        1003: full,
        1002: full,
        1001: parsed.offsetof("astra_net_backend", "save"),
        1000: parsed.offsetof("astra_net_backend", "exchange"),
    }
    agreed = []
    for version, size in ((999_999, full), *sizes.items()):
        memory, table = padded("astra_net_backend", size)
        _, err = padded("astra_net_error", parsed.sizeof("astra_net_error"))
        status = init(version, table, err)
        untouched(memory, size, f"init({version})")
        if version == 999_999:
            need(
                status == Status.UNSUPPORTED,
                f"init({version}) returned {status}, but an unknown version is UNSUPPORTED (1)",
            )
        elif status == Status.OK:
            agreed.append(version)
            need(table.abi_version == version, f"init({version}) filled {table.abi_version}")
            need(table.struct_size <= size, f"init({version}) claims {table.struct_size} bytes")
        else:
            need(status == Status.UNSUPPORTED, f"init({version}) returned {status}")
    need(agreed, "none of 1.3, 1.2, 1.1 and 1.0 is spoken")

    # A host that knows only the head of the structs.
    head = 8
    memory, info = padded("astra_net_info", head)
    _, err = padded("astra_net_error", parsed.sizeof("astra_net_error"))
    status = library.table.info(info, err)
    need(status in (Status.OK, Status.INVALID), f"info() with struct_size={head} gave {status}")
    untouched(memory, head, "info()")
    small = parsed.offsetof("astra_net_error", "message") + 8
    memory, err = padded("astra_net_error", small)
    out = parsed.new("astra_net_sim **")
    status = library.table.create(parsed.NULL, parsed.NULL, out, err)
    need(status == Status.INVALID, f"create(NULL) returned {status}, not INVALID (2)")
    untouched(memory, small, "create(NULL)")
    return "speaks " + ", ".join(f"{v // 1000}.{v % 1000}" for v in agreed)


def ownership(s: Subject) -> str:
    """R2: arrays belong to the caller, a simulation to the backend until destroy."""
    items = workload(s, 2)
    reference = simulate(s, items.copy())
    with s.open() as network:
        s_links = getattr(network, "config", s.config).links
        mine = items.copy()
        rest = submit_all(network, mine)
        need(mine.tobytes() == items.tobytes(), "submit wrote into the caller's array")
        kept = rest.copy()
        # Whoever kept a pointer reads nonsense from here on.
        mine["bytes"], mine["dst"], mine["start_ps"] = 1, mine["src"], TIME_NEVER
        if len(s_links) and s_links.flags.writeable and s_links is not s.config.links:
            s_links["bytes_per_second"] = 1
        _same(reference, drain(network, items["id"].tolist(), kept), "overwriting the arrays")
    with s.open() as network:
        # Closing is legal with transfers in flight and completions undrained.
        submit_all(network, items)
        network.advance(TIME_NEVER)
    if s.library is None:
        return ""
    parsed = ffi()
    s.library.table.destroy(parsed.NULL)
    with s.open() as network:
        assert isinstance(network, NativeNetwork)
        submit_all(network, transfers((4 * k, 0, 1024, k, k + 1) for k in range(2)))
        network.advance(TIME_NEVER)
        out = parsed.new("astra_net_completion[]", 3)
        parsed.memmove(out, b"\xa5" * 96, 96)
        count = parsed.new("size_t *")
        network.library.call(
            "poll", parsed.cast("astra_net_sim *", network.handle[1]), out, 1, count
        )
        need(count[0] == 1, f"poll(capacity=1) gave {count[0]} records")
        need(bytes(parsed.buffer(out))[32:] == b"\xa5" * 64, "poll wrote past its capacity")
    return ""


def _bad_items(s: Subject) -> Iterator[tuple[str, dict[str, int]]]:
    endpoints = s.config.endpoints
    yield "src below 0", {"src": -1}
    yield f"src={endpoints}", {"src": endpoints}
    yield f"dst={endpoints}", {"dst": endpoints}
    yield "dst below 0", {"dst": -(2**31)}
    yield "src = dst", {"src": 1, "dst": 1}
    yield "bytes=0", {"bytes": 0}
    yield "bytes below 0", {"bytes": -(2**62)}
    yield "a start in the past", {"start_ps": -1}
    yield "an unknown traffic_class", {"traffic_class": s.info.traffic_classes}
    yield "flags that are not 0", {"flags": 1}
    yield "reserved that is not 0", {"reserved": 1}
    yield "an id twice in one batch", {"id": 1000}


def atomic_refusal(s: Subject) -> str:
    """R3: a refused call names the item and leaves the simulation as it was."""
    items = workload(s, 3)
    reference = simulate(s, items)
    good = transfers([(1000, 0, 5000, 0, 1), (1004, 0, 5000, 1, 2), (1008, 0, 5000, 2, 0)])
    with s.open() as network:
        for what, change in _bad_items(s):
            batch = good.copy()
            for name, value in change.items():
                batch[name][1] = value
            error = refused(lambda batch=batch: network.submit(batch), what)  # type: ignore[misc]
            need(error.item == 1, f"{what}: the error names item {error.item}, not item 1")
            need(len(str(error)) > 20, f"{what}: the error says only {str(error)!r}")
        rest = submit_all(network, items)
        if not len(rest):
            again = items[3:4].copy()
            refused(lambda: network.submit(again), "the id of a transfer in flight")
        first = int(items["start_ps"].min())
        refused(lambda: network.advance(-1), "advance to a time before now")
        need(network.poll().size == 0, "poll gave completions before any advance")
        records = drain(network, items["id"].tolist(), rest, steps=[first])
        _same(reference, records, "refusing bad calls")
        now_ps = int(records["time_ps"][-1])
        refused(lambda: network.advance(now_ps - 1), "advance to a time before now")
        refused(lambda: network.submit(good), "a start before now")
    return ""


def back_pressure(s: Subject) -> str:
    """R4: accepted < n is not an error, and the prefix was taken."""
    bounded = s.info.max_in_flight <= 100_000
    count = s.info.max_in_flight + 8 if bounded else 1000
    endpoints = s.config.endpoints
    items = transfers((4 * k, 0, 64, k % endpoints, (k + 1) % endpoints) for k in range(count))
    with s.open() as network:
        rest = submit_all(network, items)
        need(
            len(items) - len(rest) <= s.info.max_in_flight,
            f"{len(items) - len(rest)} accepted, but max_in_flight is {s.info.max_in_flight}",
        )
        need(len(rest) < len(items), "an empty network accepts nothing")
        if len(rest):
            need(network.submit(rest) == 0 or bounded is False, "more was accepted when full")
        need(network.submit(items[:0]) == 0, "an empty batch is not accepted")
        # What was not taken is unknown to the backend, so it comes back as new.
        done = finish_times(drain(network, items["id"].tolist(), rest))
    need(len(done) == count, f"{len(done)} of {count} transfers were delivered")
    return f"max_in_flight={s.info.max_in_flight}" if bounded else "unbounded"


def early_stop(s: Subject) -> str:
    """R5: advance stops at min(until, first completion + max(0, lookahead - 1)), or sooner."""
    items = workload(s, 5)
    reference = simulate(s, items)
    times = np.unique(reference["time_ps"])
    first = int(times[0])
    for lookahead in (0, 1, 2, int(times[-1] - first) // 2, TIME_NEVER):
        for until in (first, first + 1, int(times[len(times) // 2]), TIME_NEVER):
            with s.open() as network:
                rest = submit_all(network, items)
                if len(rest):
                    raise NotTested("the backend takes fewer than 24 transfers at once")
                latest = min(until, first + max(0, lookahead - 1))
                now = -1
                while True:
                    before, (now, stop) = now, network.advance(until, lookahead)
                    need(
                        now <= latest,
                        f"advance(until={until}, lookahead={lookahead}) went to {now} ps, past "
                        f"{latest} ps",
                    )
                    if stop != Stop.REACHED or now == until:
                        break
                    need(now > before, "advance returns without progress")
                need(stop == Stop.COMPLETION, f"advance missed the completion at {first} ps")
                need(int(network.poll()["time_ps"][0]) == first, "poll missed the first one")
    if first > 1:
        with s.open() as network:
            submit_all(network, items)
            need(
                network.advance(first - 1) == (first - 1, Stop.REACHED),
                "advance does not stop just before the first completion",
            )
            need(network.poll().size == 0, "poll gave a completion that is in the future")
    return ""


def no_half_instants(s: Subject) -> str:
    """R6: on return, every completion up to now can be polled, and none after it."""
    endpoints = s.config.endpoints
    same = [(4 * k, 0, 4096, k, (k + 1) % endpoints) for k in range(endpoints)]
    for items in (transfers(same), workload(s, 6), workload(s, 60)):
        with s.open() as network:
            rest = submit_all(network, items)
            done, behind = 0, -1
            for _ in range(100 * len(items)):
                now, stop = network.advance(TIME_NEVER)
                records = network.poll()
                for time in records["time_ps"].tolist():
                    need(time <= now, f"a completion at {time} ps, but now is {now} ps")
                    need(
                        time > behind,
                        f"a completion at {time} ps came after advance had returned at {behind} ps",
                    )
                behind = now
                done += int((records["kind"] == DELIVERED).sum())
                if stop == Stop.IDLE:
                    break
                if len(rest):
                    rest["start_ps"] = np.maximum(rest["start_ps"], now)
                    rest = submit_all(network, rest)
            need(done == len(items), f"{done} of {len(items)} transfers were delivered")
    return ""


def order(s: Subject) -> str:
    """R7: ascending time; the same inputs give the same bytes; submission order is nothing."""
    for seed in (7, 70, 700):
        items = workload(s, seed)
        one = simulate(s, items)
        _same(one, simulate(s, items), "a second run")
        # Look-ahead, so that one poll spans many instants.
        _same(one, simulate(s, items, lookahead_ps=TIME_NEVER), "reading many instants at once")
        shuffled = items[np.random.default_rng(seed).permutation(len(items))]
        _same(one, simulate(s, shuffled), "another order of submission")
    with s.open() as network:
        rest = submit_all(network, items)
        network.advance(TIME_NEVER)
        refused(lambda: network.advance(TIME_NEVER), "advance with undrained completions")
        first = network.poll()
        need(len(first), "a refused advance lost the completions")
        waiting = items["id"].tolist()
        for number in first[first["kind"] == DELIVERED]["id"].tolist():
            waiting.remove(number)
        _same(one, np.concatenate([first, drain(network, waiting, rest)]), "a refused advance")
    return ""


def conservation(s: Subject) -> str:
    """R8: every transfer is delivered exactly once, and not before physics allows."""
    tightest = np.inf
    for seed in (8, 80):
        items = workload(s, seed)
        records = simulate(s, items)
        done = records[records["kind"] == DELIVERED]
        need(
            sorted(done["id"].tolist()) == sorted(items["id"].tolist()),
            f"{len(items)} transfers were accepted, {len(done)} delivered",
        )
        need(np.isin(done["outcome"], (0, Status.MODEL)).all(), "an outcome that is not 0 or 5")
        need((records["reserved"] == 0).all(), "reserved is not 0")
        times = finish_times(records)
        lost = set(done["id"][done["outcome"] != 0].tolist())
        need(not lost or (s.topology.loss > 0).any(), f"{len(lost)} lost without a cause")
        for item in items:
            number = int(item["id"])
            apart = s.dimensions_apart(int(item["src"]), int(item["dst"]))
            if number in lost or (s.quirks.bound_in_one_dimension and apart > 1):
                continue
            took = times[number] - int(item["start_ps"])
            least = s.earliest_ps(int(item["src"]), int(item["dst"]), int(item["bytes"]))
            slack = s.quirks.bound_slack_ps + s.info.resolution_ps
            need(
                took >= least - slack,
                f"transfer {number} of {item['bytes']} bytes took {took} ps, but bytes / bandwidth "
                f"+ latency is {least:.0f} ps",
            )
            tightest = min(tightest, took / least)
    return f"the fastest took {tightest:.3f} of bytes / bandwidth + latency"


def splitting(s: Subject) -> str:
    """R9: splitting a call, or keeping a promised look-ahead, changes no completion."""
    for seed in (9, 90, 900):
        items = workload(s, seed, distinct=seed == 900)
        one = simulate(s, items)
        last = int(one["time_ps"][-1])
        rng = np.random.default_rng(seed)
        steps = np.sort(rng.integers(0, last + 1, 40)).tolist()
        _same(one, simulate(s, items, steps=steps), "splitting advance")
        # On the very instants of completions and starts.
        edges = np.unique(np.concatenate([one["time_ps"], items["start_ps"]])).tolist()
        _same(one, simulate(s, items, steps=edges), "stopping where something happens")
        _same(one, simulate(s, items, batches=5), "splitting submit")
        _same(one, simulate(s, items, lookahead_ps=TIME_NEVER), "look-ahead")
        promise = 50_000 * s.info.resolution_ps
        _same(
            simulate(s, items, react=_reactions(s, promise)),
            simulate(s, items, react=_reactions(s, promise), lookahead_ps=promise),
            "keeping a promised look-ahead",
        )
    return ""


def _reactions(s: Subject, promise_ps: int) -> Callable[[Records], Records]:
    """A host that answers completions with transfers which start exactly ``promise_ps`` later."""
    endpoints = s.config.endpoints
    left, fresh = 30, 10_000

    def react(records: Records) -> Records:
        nonlocal left, fresh
        rows = []
        for record in records[records["kind"] == DELIVERED]:
            if left:
                left, fresh = left - 1, fresh + 4
                src = int(record["id"]) % endpoints
                start = int(record["time_ps"]) + promise_ps
                rows.append((fresh, start, 2048, src, (src + 1) % endpoints))
        return transfers(rows)

    return react


def threads(s: Subject) -> str:
    """R10: a sim may migrate between threads; more only with its capability."""
    items = workload(s, 10)
    reference = simulate(s, items)
    capabilities = s.info.capabilities
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        network = one.submit(s.open).result()
        rest = one.submit(submit_all, network, items).result()
        ids = items["id"].tolist()
        _same(reference, other.submit(drain, network, ids, rest).result(), "another thread")
        one.submit(network.close).result()
    tested = ["migration"]
    if Capability.MULTI_INSTANCE in capabilities:
        with s.open() as a, s.open() as b:
            rest_a, rest_b = submit_all(a, items), submit_all(b, items)
            a.advance(0)
            records = a.poll()
            need(records.size == 0 or int(records["time_ps"].max()) == 0, "time ran ahead")
            _same(reference, drain(b, ids, rest_b), "a second simulation")
            waiting = set(ids) - set(records["id"].tolist())
            rest_of_a = drain(a, waiting, rest_a)
            _same(reference, np.concatenate([records, rest_of_a]), "a second simulation")
        tested.append("two simulations")
    if Capability.PARALLEL in capabilities:
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: simulate(s, items), range(8)):
                _same(reference, got, "a parallel simulation")
        tested.append("in parallel")
    if Capability.INTERRUPT in capabilities:
        with s.open() as network:
            rest = submit_all(network, items)
            thread = threading.Thread(target=network.interrupt)
            thread.start()
            thread.join()
            try:
                network.advance(TIME_NEVER)
            except Interrupted:
                pass
            else:
                raise Broken("interrupt() did not make the next advance return INTERRUPTED")
            first = network.poll()
            waiting = set(ids) - set(first["id"].tolist())
            again = np.concatenate([first, drain(network, waiting, rest)])
            _same(reference, again, "an interrupt")
        tested.append("interrupt")
    return ", ".join(tested)


def callbacks(s: Subject) -> str:
    """R11: the only callback is log, on the calling thread, with Python's levels."""
    if s.library is None:
        raise NotTested("pure Python: there is no callback")
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger = logging.getLogger(f"astra_bridge.network.{s.info.name}")
    handler, level = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(1)
    try:
        simulate(s, workload(s, 11))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    here = threading.get_ident()
    for record in seen:
        need(record.thread == here, f"log was called on another thread: {record.getMessage()!r}")
        need(
            10 <= record.levelno <= 40,
            f"log level {record.levelno} is not 10 to 40: {record.getMessage()!r}",
        )
    return f"{len(seen)} log messages"


def environment() -> dict[str, object]:
    """What a backend must leave alone in its process."""
    libm: Any = cffi.FFI()
    libm.cdef("int fegetround(void);")
    library: Any = libm.dlopen("libm.so.6" if sys.platform == "linux" else None)
    rounding = library.fegetround()
    status = Path("/proc/self/status")
    caught = 0
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        line = next((line for line in lines if line.startswith("SigCgt")), "SigCgt: 0")
        # Signals 32 and 33 are the C library's own: it handles them from the first thread on.
        caught = int(line.split()[1], 16) & ~(0b11 << 31)
    smallest = np.float64(sys.float_info.min)
    return {
        "the working directory": os.getcwd(),  # noqa: PTH109 - what chdir changes
        "the locale": locale.setlocale(locale.LC_ALL),
        "the rounding mode": rounding,
        "denormal numbers": bool(smallest / 2 > 0),
        "the handled signals": f"{caught:#x}",
        "Python's SIGINT handler": signal.getsignal(signal.SIGINT),
        "the file mode mask": _umask(),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _captured_stdout() -> Iterator[Callable[[], bytes]]:
    """What is written to file descriptor 1, below Python."""
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)

        def written() -> bytes:
            # The C library may hold what was printed in its own buffer.
            libc = cffi.FFI()
            libc.cdef("int fflush(void *);")
            library: Any = libc.dlopen(None)
            library.fflush(libc.NULL)
            file.seek(0)
            return file.read()

        try:
            yield written
        finally:
            written()
            os.dup2(saved, 1)
            os.close(saved)


def manners(s: Subject, before: dict[str, object]) -> str:
    """R12: no stdout, exit, chdir, signal handler, locale or floating-point mode."""
    with _captured_stdout() as written:
        simulate(s, workload(s, 12))
        with s.open() as network, contextlib.suppress(NetworkError):
            network.submit(transfers([(0, 0, 1, 0, 0)]))
        with s.open() as network:
            network.stats()
        said = written()
    need(not said, f"the backend writes to stdout: {said[:60]!r}")
    after = environment()
    for what, value in before.items():
        need(after[what] == value, f"the backend changed {what}: {value!r} became {after[what]!r}")
    return ""


def stuck(s: Subject) -> str:
    """R13: transfers in flight without an event left are an error that names them."""
    # `drain` refuses IDLE with transfers in flight.
    simulate(s, workload(s, 13))
    if Capability.LINK_FAULTS not in s.info.capabilities:
        return "only that IDLE means idle: without LINK_FAULTS the suite cannot cut a network"
    with s.open() as network:
        for link in range(s.link_count):
            network.set_link(link, 0, 0.0)
        submit_all(network, transfers([(7777, 0, 4096, 0, s.config.endpoints - 1)]))
        try:
            _, stop = network.advance(TIME_NEVER)
        except SimulationError as error:
            need("7777" in str(error), f"the message does not name transfer 7777: {error}")
            refused(lambda: network.submit(transfers([(8, 0, 1, 0, 1)])), "submit after MODEL")
            refused(lambda: network.advance(TIME_NEVER), "advance after MODEL")
            return "all links down: " + str(error)
        need(
            stop == Stop.COMPLETION,
            "all links are down and a transfer is in flight, but advance said "
            f"{Stop(stop).name}, which is neither an error nor a loss",
        )
        need(
            (network.poll()["outcome"] == Status.MODEL).all(), "delivered over links that are down"
        )
    return "all links down: the transfer is lost"


def numbers(s: Subject) -> str:
    """R14: 2**40 bytes and times beyond 2**53 ps are exact; off-grid starts round up."""
    resolution = s.info.resolution_ps
    size = 4096
    took = finish_times(simulate(s, transfers([(4, 0, size, 0, 1)])))[4]
    # Past 2**60 a double is a multiple of 256.  An odd number of microseconds is not, but it is a
    # whole number of cycles of the usual clocks.
    grid = math.lcm(10**6, resolution)
    start = (2**60 // grid | 1) * grid
    late = finish_times(simulate(s, transfers([(4, start, size, 0, 1)])))[4]
    need(
        late - start == took,
        f"{size} bytes take {took} ps from time 0, but {late - start} ps from {start} ps",
    )
    need(took % resolution == 0, f"{took} ps is not a multiple of resolution_ps={resolution}")
    if resolution > 1:
        odd = finish_times(simulate(s, transfers([(4, resolution + 1, size, 0, 1)])))[4]
        need(odd == took + 2 * resolution, f"a start off the grid ends at {odd} ps")
    big_id = finish_times(simulate(s, transfers([(2**62, 0, size, 0, 1)])))
    need(big_id == {2**62: took}, "an id of 2**62 does not come back")
    huge = 2**40
    with s.open() as network:
        submit_all(network, transfers([(4, 0, huge, 0, 1)]))
        network.advance(took)
        need(network.poll().size == 0, f"2**40 bytes arrive as fast as {size}")
    for wait in (2**31 + 4096, huge):
        if wait > s.quirks.largest_bytes:
            return f"waited for at most {s.quirks.largest_bytes} bytes"
        long = finish_times(simulate(s, transfers([(4, 0, wait, 0, 1)])))[4]
        least = s.earliest_ps(0, 1, wait)
        need(
            long >= least * (1 - 1e-12) - resolution - s.quirks.bound_slack_ps,
            f"{wait} bytes take {long} ps, but bytes / bandwidth + latency is {least:.0f} ps",
        )
    return ""


def exchange(s: Subject) -> str:
    """R15: exchange() gives what submit, advance and poll give, however it is split."""
    if Capability.ORDERED not in s.info.capabilities:
        raise NotTested("ORDERED is not declared")
    for seed in (15, 150, 1500):
        items = workload(s, seed, distinct=True)
        # Ids are places, drawn when a transfer starts: they ascend with the start times.
        items = items[np.argsort(items["start_ps"], kind="stable")]
        items["id"] = 4 * np.arange(len(items))
        plain = finish_times(simulate(s, items))
        whole, place = exchange_all(s, items)
        need(finish_times(whole) == plain, "exchange() and advance() give different times")
        rng = np.random.default_rng(seed)
        last = int(whole["time_ps"][-1])
        stops = [(int(t), int(p)) for t, p in rng.integers(0, [last, 200], (30, 2))]
        stops += [(int(t), 0) for t in whole["time_ps"]]
        split, split_place = exchange_all(s, items, stops)
        _same(whole, split, "splitting exchange()")
        need(place == split_place, f"splitting exchange() draws {split_place - place} more places")
    one = transfers([(4, 0, 4096, 0, 1)])
    with s.open() as network:
        network.exchange(one, 0, 0, 0, 8)
        refused(lambda: network.submit(one), "submit() after exchange()")
        again = transfers([(12, 0, 4096, 0, 1), (8, 0, 4096, 0, 1)])
        refused(lambda: network.exchange(again, 0, 0, 0, 16), "an id that does not ascend")
        wrong = transfers([(8, 5, 4096, 0, 1)])
        refused(lambda: network.exchange(wrong, 0, 0, 0, 12), "a start that is not now")
    with s.open() as network:
        submit_all(network, one)
        refused(lambda: network.exchange(one, 0, 0, 0, 8), "exchange() after submit()")
    with s.open() as network:
        refused(lambda: network.exchange(wrong, 0, 0, 0, 12), "a start that is not now")
        try:
            submit_all(network, one)
        except ContractError as error:
            raise Broken(
                f"exchange() was refused, and submit() after it is, too (R3): {error}"
            ) from error
    return ""


def saving(s: Subject) -> str:
    """R16: a simulation that is saved and loaded goes on as the original."""
    if Capability.SAVE not in s.info.capabilities:
        raise NotTested("SAVE is not declared")
    for seed in (16, 160, 1600):
        items = workload(s, seed)
        reference = simulate(s, items)
        ids = items["id"].tolist()
        calls = int(np.random.default_rng(seed).integers(0, len(items) // 2))
        with s.open() as network, s.open() as other:
            if Capability.LINK_FAULTS in s.info.capabilities:
                network.set_link(0, int(reference["time_ps"][-1]) + 1, 0.5)
            rest = submit_all(network, items)
            first = drain_some(network, calls)
            data = network.save()
            need(network.save() == data, "saving twice gives different bytes")
            other.restore(data)
            waiting = set(ids) - set(first["id"].tolist())
            theirs = drain(other, waiting, rest.copy())
            ours = drain(network, waiting, rest)
            _same(ours, theirs, "a saved simulation")
            _same(reference, np.concatenate([first, ours]), "saving")
    if Capability.ORDERED in s.info.capabilities:
        _saved_exchange(s)
    for damaged, what in (
        (data[: len(data) // 2], "bytes that are cut off"),
        (b"", "no bytes"),
        (data + b"\0", "bytes with more behind them"),
        *((_flipped(data, at), f"bytes that are changed at {at}") for at in _places(len(data))),
    ):
        with s.open() as network:
            refused(functools.partial(network.restore, damaged), what)
            submit_all(network, items)
            _same(reference, drain(network, ids), "a refused load")
    return ""


def peeking(s: Subject) -> str:
    """R17: nothing completes before what peek() says, and going there makes progress."""
    if Capability.PEEK not in s.info.capabilities:
        raise NotTested("PEEK is not declared")
    for seed in (17, 170, 1700):
        items = workload(s, seed, distinct=seed == 170)
        reference = simulate(s, items)
        waiting, parts = set(items["id"].tolist()), []
        with s.open() as network:
            need(network.peek() == TIME_NEVER, "nothing is in flight, but peek() gives a time")
            rest, now_ps = submit_all(network, items), 0
            while waiting:
                next_ps = network.peek()
                need(next_ps >= now_ps, f"peek() gives {next_ps} ps, but now is {now_ps} ps")
                need(network.peek() == next_ps, "peeking twice gives different times")
                need(next_ps != TIME_NEVER, f"{len(waiting)} are in flight, but peek() gives NEVER")
                for until_ps in (next_ps - 1, next_ps):
                    if until_ps < now_ps:
                        continue
                    now_ps, _ = network.advance(until_ps)
                    records = network.poll()
                    early = until_ps < next_ps and len(records) > 0
                    need(not early, f"a transfer ended at {now_ps} ps; peek() had said {next_ps}")
                parts.append(records)
                waiting -= set(records["id"][records["kind"] == DELIVERED].tolist())
                if len(records):
                    rest = submit_all(network, rest)
                elif waiting:
                    later = network.peek() > next_ps
                    need(later, f"{next_ps} ps is reached, and peek() still gives that time")
        _same(reference, np.concatenate(parts), "peeking")
    return ""


def lending(s: Subject) -> str:
    """R18: parts that the host does not lend, or that nobody asked for, are refused."""
    library = s.library
    if library is None or library.version < 1002:
        raise NotTested("the library does not know of parts")

    def nothing(name: str) -> Path:
        raise InputError(f"{name} is not lent")

    wrong = replace(s.config, parts=(("no-such-backend", s.config),))
    for lend in (None, nothing):
        refused(
            functools.partial(NativeNetwork.open, library, wrong, lend=lend),
            "a part that cannot be had",
        )
    with s.open() as network:
        lent = network.lent if isinstance(network, NativeNetwork) else []
        return f"made of {', '.join(part.info.name for part in lent)}" if lent else ""


def reduction(s: Subject) -> str:
    """R19: a reduction ends once all members have started, for each, and takes what it must."""
    if Capability.REDUCTION not in s.info.capabilities:
        raise NotTested("REDUCTION is not declared")
    members, grid = s.config.endpoints, s.info.resolution_ps
    start = -(-700_000 // grid) * grid

    def together(number: int, size: int, first: int) -> Records:
        rows = [
            (first + 4 * i, start if i == members - 1 else 0, size, i, (i + 1) % members)
            for i in range(members)
        ]
        items = transfers(rows)
        items["flags"], items["reserved"] = REDUCE | members << 8, number
        return items

    one, two = together(1, 4096, 0), together(2, 10_007, 4 * members)
    items = np.concatenate([one, two, transfers([(8 * members, 0, 4096, 0, 1)])])
    reference = simulate(s, items)
    done = finish_times(reference)
    need(len(done) == len(items), f"{len(items) - len(done)} of {len(items)} do not end")
    for item in items[:-1]:
        number, src, dst = (int(item[name]) for name in ("id", "src", "dst"))
        least: float = start - s.quirks.bound_slack_ps - grid
        if not s.quirks.bound_in_one_dimension or s.dimensions_apart(src, dst) < 2:
            least += s.earliest_ps(src, dst, int(item["bytes"]))
        need(
            done[number] >= least,
            f"transfer {number} of a reduction whose last member starts at {start} ps ends at "
            f"{done[number]} ps, before {least:.0f} ps",
        )
    with s.open() as network:
        rest = submit_all(network, items)
        parts = drain(network, items["id"].tolist(), rest, steps=[start // 2 // grid * grid, start])
        _same(reference, parts, "splitting an advance")
    if Capability.SAVE in s.info.capabilities:
        with s.open() as network, s.open() as other:
            rest = submit_all(network, items)
            network.advance(0)
            first = network.poll()
            other.restore(network.save())
            waiting = set(items["id"].tolist()) - set(first["id"].tolist())
            saved = drain(other, waiting, rest.copy())
            _same(reference, np.concatenate([first, saved]), "saving half a reduction")
    with s.open() as network:
        for what, flags, number in (
            ("a reduction of one member", REDUCE | 1 << 8, 1),
            ("a reduction without a number", REDUCE | 2 << 8, 0),
            ("an unknown flag", 2 | 2 << 8, 1),
        ):
            bad = one.copy()
            bad["flags"][1], bad["reserved"][1] = flags, number
            refused(lambda bad=bad: network.submit(bad), what)  # type: ignore[misc]
        submit_all(network, one[:-1])
        try:
            network.advance(TIME_NEVER)
        except SimulationError:
            return ""
        raise Broken("a reduction ends that lacks a member")


def _saved_exchange(s: Subject) -> None:
    one, two = transfers([(4, 0, 4096, 0, 1)]), transfers([(8, 0, 4096, 0, 1)])
    with s.open() as network, s.open() as other:
        network.exchange(np.concatenate([one, two]), 0, 0, 0, 12)
        other.restore(network.save())
        last = (0, TIME_NEVER, TIME_NEVER, 12)
        ours, theirs = (
            network.exchange(one[:0], *last),
            other.exchange(one[:0], *last),
        )
        _same(ours.completions, theirs.completions, "a saved simulation after exchange()")
        need(ours[1:] == theirs[1:], f"exchange() gives {ours[1:]}, after load() {theirs[1:]}")


def _places(size: int) -> list[int]:
    return sorted({*range(min(size, 48)), size // 3, size // 2, size - 1})


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


_SINCE = {Capability.ORDERED: 1001, Capability.SAVE: 1002, Capability.PEEK: 1002}
"""Version from which a library of the contract can have the entry."""


def capabilities(s: Subject) -> str:
    """CAP: what is declared works, and what is not declared is refused."""
    declared = s.info.capabilities
    items = workload(s, 16)
    reference = simulate(s, items)
    ids = items["id"].tolist()
    if s.library is not None:
        for capability, entry in (
            (Capability.INTERRUPT, "interrupt"),
            (Capability.SNAPSHOT, "snapshot"),
            (Capability.LINK_FAULTS, "set_link"),
            (Capability.ORDERED, "exchange"),
            (Capability.SAVE, "save"),
            (Capability.SAVE, "load"),
            (Capability.PEEK, "peek"),
        ):
            since = _SINCE.get(capability, 1000)
            if s.library.version < since:
                continue
            need(
                capability not in declared or entry not in s.library.missing,
                f"{capability.name} is declared, but {entry} is NULL",
            )
    if Capability.SNAPSHOT in declared:
        with s.open() as network:
            rest = submit_all(network, items)
            first = drain_some(network, 3)
            waiting = set(ids) - set(first["id"].tolist())
            with network.snapshot() as copy:
                theirs = drain(copy, waiting, rest.copy())
            ours = drain(network, waiting, rest)
            _same(ours, theirs, "a snapshot")
            _same(reference, np.concatenate([first, ours]), "taking a snapshot")
    if Capability.SAVE not in declared:
        with s.open() as network:
            try:
                network.save()
            except (Unsupported, NotImplementedError, AttributeError):
                pass
            else:
                raise Broken("save() works, but SAVE is not declared")
    if Capability.PEEK not in declared:
        with s.open() as network:
            try:
                network.peek()
            except (Unsupported, NotImplementedError, AttributeError):
                pass
            else:
                raise Broken("peek() works, but PEEK is not declared")
    if Capability.CONGESTION not in declared:
        alone: dict[int, int] = {}
        for item in items[:6]:
            alone |= finish_times(simulate(s, item.reshape(1)))
        together = finish_times(reference)
        for number, time in alone.items():
            need(
                together[number] == time,
                f"CONGESTION is not declared, but transfer {number} ends at {together[number]} ps "
                f"among others and at {time} ps alone",
            )
    if Capability.LINK_FAULTS in declared:
        one = transfers([(4, 0, 1 << 20, 0, 1)])
        normal = finish_times(simulate(s, one))[4]
        with s.open() as network:
            for link in range(s.link_count):
                network.set_link(link, 0, 0.25)
            submit_all(network, one)
            slow = finish_times(drain(network, [4]))[4]
        need(slow > normal, f"at a quarter of the bandwidth {slow} ps, at full {normal} ps")
        with s.open() as network:
            count = s.link_count
            refused(lambda: network.set_link(count, 0, 1.0), f"link {count} of {count}")
            refused(lambda: network.set_link(0, 0, -1.0), "a negative bandwidth_scale")
    sent = reference[reference["kind"] == SENT]
    if Capability.SENT in declared:
        need(sorted(sent["id"].tolist()) == sorted(ids), "not every transfer has one SENT")
        done = finish_times(reference)
        for record in sent:
            need(record["time_ps"] <= done[int(record["id"])], "SENT comes after DELIVERED")
    else:
        need(not len(sent), "SENT is reported, but not declared")
    with s.open() as network:
        submit_all(network, items[:1])
        drain(network, ids[:1])
        stats = network.stats()
    for name, table in stats.get("tables", {}).items():
        lengths = {len(column) for column in table.values()}
        need(len(lengths) == 1, f"stats: the columns of table {name!r} differ in length")
    return ", ".join(c.name.lower() for c in Capability if c in declared and c.name) or "none"


def drain_some(network: Network, calls: int) -> NDArray[Any]:
    """Completions of the first few advances."""
    parts = [np.zeros(0, COMPLETION)]
    for _ in range(calls):
        network.advance(TIME_NEVER)
        parts.append(network.poll())
    return np.concatenate(parts)


RULES: dict[str, Callable[..., str]] = {
    "R1": versions,
    "R2": ownership,
    "R3": atomic_refusal,
    "R4": back_pressure,
    "R5": early_stop,
    "R6": no_half_instants,
    "R7": order,
    "R8": conservation,
    "R9": splitting,
    "R10": threads,
    "R11": callbacks,
    "R12": manners,
    "R13": stuck,
    "R14": numbers,
    "R15": exchange,
    "R16": saving,
    "R17": peeking,
    "R18": lending,
    "R19": reduction,
    "CAP": capabilities,
}
"""In the order in which they run; ``manners`` also takes the environment from before loading."""
