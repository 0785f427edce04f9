# SPDX-License-Identifier: MIT
"""A process of this package that may crash, hang or write nonsense, and its supervisor.

Code that we did not write runs in a child process.  The parent believes nothing of what comes back:
a message is framed, bounded and checked, and carries JSON and plain bytes, never objects.  The
child's modules come from where the parent's come from, never from the working directory.  It dies
with its parent, whatever ends that.

A child is a copy of the parent where that has run nothing but a command of ours (`process.copy`),
else a new Python.  Either has a session of its own, no descriptor of the parent but the three pipes
between them, default handlers of signals, and ends without anybody's cleaning up.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import astra_bridge
from astra_bridge import errors, process
from astra_bridge.errors import AstraBridgeError, BackendError, InputError, NetworkError
from astra_bridge.signals import deferred
from astra_bridge.text import one_line

if TYPE_CHECKING:
    import logging
    import subprocess

__all__ = [
    "NONSENSE",
    "NO_PROGRESS_TIMEOUT_S",
    "Child",
    "ChildEnded",
    "Message",
    "Parent",
    "ask",
    "contained",
    "die_with",
    "logger",
    "received",
    "safe_path",
]

NO_PROGRESS_TIMEOUT_S = 300.0
"""Default of how long a backend may go without progress [s]."""

NONSENSE = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError
)  # fmt: skip
"""What reading a message can raise that is not what it should be."""

# Every message starts with the token of its child, so that what a library writes into the pipe on
# its own is no message; then the lengths of head (JSON) and body (bytes), and a checksum of both.
_FRAME = struct.Struct("<8sIQI")
_MOST_HEAD = 1 << 20
_BLOCK = 1 << 20
_TICK_S = 0.25
_GRACE_S = 1.0
_LAST_WORDS = 2000
_SAFE_DESCRIPTOR = 200  # above what careless code closes
_LOST = 113  # exit code of a child whose pipe is gone

_BOOT = """
import os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
path = {path!r}
sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("astra_bridge", {init!r}, submodule_search_locations=[{folder!r}])
sys.modules["astra_bridge"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["astra_bridge"])
from astra_bridge.supervision import serve
serve({entry!r}, {answers}, bytes.fromhex({token!r}), {parent}, {cleans_up}, {level})
"""


class Message(NamedTuple):
    """What a child said: what kind, more of it (JSON, not checked), and bytes."""

    kind: str
    head: Mapping[str, Any]
    body: bytes


class _Start(NamedTuple):
    """What a child is told besides its request."""

    entry: str
    token: bytes
    parent: int
    cleans_up: bool
    level: int


class _Ends(NamedTuple):
    """The child's ends of the three pipes."""

    orders: int
    answers: int
    said: int


class ChildEnded(Exception):
    """A child ended or broke the protocol: how, and the last that it printed."""

    def __init__(self, how: str, words: str) -> None:
        super().__init__(how)
        self.how, self.words = how, words

    def __str__(self) -> str:
        return f"{self.how}; its last words: {self.words}" if self.words else self.how


# ---- the parent's side ----


def _here() -> set[Path]:
    try:
        return {Path.cwd().resolve()}
    except OSError:  # the folder is gone
        return set()


_STARTED_IN = _here()


def _unsafe() -> set[Path]:
    """The working directory, and the script's folder."""
    unsafe = _STARTED_IN | _here()
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        unsafe.add(Path(script).resolve().parent)
    return unsafe


def safe_path() -> list[str]:
    """``sys.path`` without the working directory, the script's folder, and relative entries.

    A child searches there first, then where its interpreter does by itself, without regard to the
    working directory (what is installed, also in place).
    """
    unsafe = _unsafe()
    entries = [entry for entry in sys.path if isinstance(entry, str) and Path(entry).is_absolute()]
    return [entry for entry in entries if Path(entry).resolve() not in unsafe]


def _is_safe() -> bool:
    """Whether all modules are from the safe path, on which nothing is missing.

    It is where only the first entry, which Python puts there for the script or the working
    directory, is left out, and nothing came from it but this package.
    """
    if safe_path() not in (sys.path, sys.path[1:]):
        return False
    places = set()
    for name, module in list(sys.modules.items()):
        if (
            "." in name
            or name in ("__main__", "astra_bridge")
            or not isinstance(module, ModuleType)
        ):
            continue
        file = vars(module).get("__file__")
        if isinstance(file, str):
            folder, base = os.path.split(file)
            places.add(os.path.dirname(folder) if base.startswith("__init__.") else folder)  # noqa: PTH120
    unsafe = {str(folder) for folder in _unsafe()}
    return not any(place in unsafe or os.path.realpath(place) in unsafe for place in places)


class Child:
    """A child process that runs one function of this package.

    Leaving the ``with`` block ends it, and all processes of its group.

    Parameters
    ----------
    entry : str
        "module:function"; the function gets a :class:`Parent`.
    request : object
        What the function is asked; can be pickled.
    most_body : int
        Bound of the bytes of one message; a longer one is a broken protocol.
    cleans_up : bool
        The function cleans up when its parent is gone (``Parent.on_end``), else the child just
        dies.
    afresh : bool
        Never a copy of this process: what it takes in all is to be measured.

    Attributes
    ----------
    silent_s : float
        How long :meth:`receive` has waited since the last :meth:`progressed` [s].  Time in which
        this process was stopped does not count.
    """

    def __init__(
        self,
        entry: str,
        request: object,
        *,
        most_body: int = 0,
        cleans_up: bool = False,
        afresh: bool = False,
    ) -> None:
        # Imported here: most runs have no child.
        import selectors

        self.silent_s = 0.0
        self._most_body, self._cleans_up = most_body, cleans_up
        self._token = os.urandom(8)
        self._outgoing = memoryview(b"")
        self._answers, self._words = bytearray(), bytearray()
        self._open = {"answers", "words"}
        self._number, self._python = 0, None
        orders, self._orders = os.pipe()
        readable, writable = os.pipe()
        words, said = os.pipe()
        ours, theirs = (self._orders, readable, words), _Ends(orders, writable, said)
        child = _Start(entry, self._token, os.getpid(), cleans_up, _level())
        try:
            if not afresh and process.is_ours() and _is_safe():
                with deferred():  # or nobody knew the number of the copy
                    self._number = process.copy(partial(_become, child, request, theirs)) or 0
            if not self._number:
                self._python = self._new_python(child, request, theirs)
                self._number = self._python.pid
        except BaseException:
            self._end_all()
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._descriptors = {"answers": readable, "words": words}
        self._selector = selectors.DefaultSelector()
        for name, descriptor in self._descriptors.items():
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, name)
        os.set_blocking(self._orders, False)
        if self._outgoing:
            self._selector.register(self._orders, selectors.EVENT_WRITE, "request")

    def _new_python(self, child: _Start, request: object, theirs: _Ends) -> subprocess.Popen[bytes]:
        """Start another interpreter, to which the request has to be sent."""
        import pickle
        import subprocess

        self._outgoing = memoryview(pickle.dumps(request))
        package = Path(astra_bridge.__file__).resolve()
        code = _BOOT.format(
            path=safe_path(),
            init=str(package),
            folder=str(package.parent),
            answers=theirs.answers,
            **child._asdict() | {"token": child.token.hex()},
        )
        flags = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
        # A session of its own: the terminal's signals are for the parent, which passes them on.
        return subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            stdin=theirs.orders,
            stdout=theirs.said,
            stderr=theirs.said,
            pass_fds=(theirs.answers,),
            start_new_session=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._orders)
        if self._cleans_up:
            self._wait(10.0)
        self._end_all()
        self._selector.close()
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _end_all(self) -> None:
        """End the child, if there is one, and all that it has started."""
        if not self._number:
            return
        # Not yet waited for, so the number is still the child's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._number, signal.SIGKILL)
        if self._python is not None:
            self._python.wait()
        else:
            # A copy makes its session itself, and may not have come so far.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._number, 0)

    def progressed(self) -> None:
        """Count silence from now on."""
        self.silent_s = 0.0

    def receive(self, limit_s: float) -> Message | None:
        """The next message, or None once the child has been silent for so long [s].

        Raises
        ------
        ChildEnded
            It is dead or has broken the protocol.
        """
        last_s = time.monotonic()
        while True:
            message = self._message()
            if message is not None:
                return message
            if "answers" not in self._open:
                self._wait(_GRACE_S)
                self._end(self._how())
            if self.silent_s >= limit_s:
                return None
            ready = self._selector.select(min(_TICK_S, max(limit_s - self.silent_s, 0.0)))
            for key, _ in ready:
                self._transfer(key.data)
            if not ready and self._is_dead():
                # Somebody else holds its pipes open: read what is there, and no more.
                self._transfer("answers")
                self._open.discard("answers")
            now_s = time.monotonic()
            self.silent_s += min(now_s - last_s, 2 * _TICK_S)
            last_s = now_s

    def interrupt(self, grace_s: float = _GRACE_S) -> None:
        """Ask it to stop, and wait a little until it has."""
        with contextlib.suppress(OSError):
            os.write(self._orders, b"i")
        end_s = time.monotonic() + grace_s
        with contextlib.suppress(ChildEnded):
            while (left_s := end_s - time.monotonic()) > 0:
                self.silent_s = 0.0
                self.receive(left_s)

    def _transfer(self, name: str) -> None:
        """Move what can be moved through one of the three pipes."""
        if name == "request":
            self._send()
            return
        buffer = self._answers if name == "answers" else self._words
        try:
            block = os.read(self._descriptors[name], _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if not block:
            self._open.discard(name)
            self._selector.unregister(self._descriptors[name])
        buffer += block
        if name == "words":
            del buffer[:-_LAST_WORDS]
        elif len(block) == _BLOCK:
            self.progressed()  # a long message is on its way

    def _send(self) -> None:
        try:
            sent = os.write(self._orders, self._outgoing[:_BLOCK])
        except BlockingIOError:
            return
        except OSError:  # it died early; its end says more
            sent = len(self._outgoing)
        self.progressed()
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._selector.unregister(self._orders)

    def _message(self) -> Message | None:
        buffer = self._answers
        if len(buffer) < _FRAME.size:
            return None
        token, head_size, body_size, checksum = _FRAME.unpack_from(buffer)
        if token != self._token or head_size > _MOST_HEAD or body_size > self._most_body:
            self._broken()
        end = _FRAME.size + head_size + body_size
        if len(buffer) < end:
            return None
        with memoryview(buffer) as view:
            content = bytes(view[_FRAME.size : end])
        del buffer[:end]
        if zlib.crc32(content) != checksum:
            self._broken()
        try:
            head = json.loads(content[:head_size])
            kind = head.pop("kind")
        except NONSENSE:
            self._broken()
        if not isinstance(kind, str):
            self._broken()
        return Message(kind, head, content[head_size:])

    def _broken(self) -> NoReturn:
        self._end("wrote into the pipe that belongs to astra_bridge")

    def _end(self, how: str) -> NoReturn:
        if "words" in self._open:
            self._transfer("words")
        words = self._words.decode("utf-8", "replace").strip()
        if "Traceback (most recent call last)" in words:
            words = words.splitlines()[-1]
        raise ChildEnded(how, one_line(words))

    def _is_dead(self) -> bool:
        return self._status() is not None

    def _status(self) -> tuple[bool, int] | None:
        """None while it lives, else whether it exited by itself, and the code or signal."""
        if not hasattr(os, "waitid"):
            assert self._python is not None
            code = self._python.poll()
            return None if code is None else (code >= 0, abs(code))
        # Without collecting it: see __exit__.
        end = os.waitid(os.P_PID, self._number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if end is None else (end.si_code == os.CLD_EXITED, end.si_status)

    def _wait(self, limit_s: float) -> None:
        end_s = time.monotonic() + limit_s
        while not self._is_dead() and time.monotonic() < end_s:
            if self._cleans_up and "answers" in self._open:
                self._transfer("answers")  # it may wait for somebody to listen
            time.sleep(0.005)

    def _how(self) -> str:
        status = self._status()
        if status is None or status == (True, _LOST):
            return "closed the pipe that belongs to astra_bridge"
        exited, number = status
        return (
            f"ended with exit code {number}" if exited else f"was ended by {_signal_name(number)}"
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals have no names
        return f"signal {number}"


def ask(
    entry: str,
    request: object,
    *,
    backend: str,
    timeout_s: float = NO_PROGRESS_TIMEOUT_S,
    advice: str = "",
    most_body: int = 0,
    afresh: bool = False,
    progress: Callable[[tuple[int, ...]], None] | None = None,
) -> Message:
    """Ask a child that runs a backend; return its result.

    Parameters
    ----------
    entry, request, most_body, afresh
        As for :class:`Child`.
    backend : str
        Its name, for messages.
    timeout_s : float
        How long it may go without progress [s]; 0 is without limit.
    advice : str
        What to do about that, for the message.
    progress : callable, optional
        Called with what the child reports.

    Raises
    ------
    AstraBridgeError
        What the child raised.
    BackendError
        The child died, fell silent or broke the protocol; says in which call.
    """
    call = "start"
    reached: tuple[int, ...] = ()

    def failed(what: str) -> BackendError:
        return BackendError(f"{backend}: {call}: {what}", backend=backend, call=call)

    with Child(entry, request, most_body=most_body, afresh=afresh) as child:
        while True:
            try:
                message = child.receive(timeout_s or math.inf)
            except ChildEnded as ended:
                raise failed(f"the process that runs it {ended}") from None
            if message is None:
                child.interrupt()
                raise failed(f"no progress for {timeout_s:g} s, so it was ended{advice}")
            if message.kind == "result":
                return message
            error = None
            try:
                if message.kind == "call":
                    call = one_line(message.head["call"], 100)
                    child.progressed()
                elif message.kind == "progress":
                    now = tuple(int(value) for value in message.head["progress"])
                    if now != reached:
                        child.progressed()
                    reached = now
                elif message.kind == "log":
                    _log(message.head)
                else:
                    error = received(message.head, backend, call)
            except NONSENSE:
                raise failed("the process that runs it sent an answer of a wrong form") from None
            if error is not None:
                raise error
            if message.kind == "progress" and progress is not None:
                progress(reached)


def _level() -> int:
    """From which level on somebody here wants to hear what is logged."""
    logging = sys.modules.get("logging")
    return 30 if logging is None else logging.getLogger("astra_bridge").getEffectiveLevel()


def _log(head: Mapping[str, Any]) -> None:
    import logging

    level = int(head["level"])
    name = str(head["logger"])
    if name.startswith("astra_bridge."):
        logging.getLogger(name).log(level, "%s", one_line(str(head["text"])))


def received(head: Mapping[str, Any], backend: str, call: str) -> BaseException:
    """The exception that a child described; of our own classes only."""
    text = str(head["text"])
    kind = getattr(errors, str(head["error"]), None)
    if not (isinstance(kind, type) and issubclass(kind, AstraBridgeError)):
        if head["error"] == "MemoryError":
            return MemoryError()
        return BackendError(f"{backend}: {call}: {text}", backend=backend, call=call)
    if issubclass(kind, InputError):
        return kind(text, file=head.get("file"), key=head.get("key"))
    if issubclass(kind, NetworkError):
        numbers = {name: int(head[name]) for name in ("status", "native_code", "item")}
        return kind(text, backend=str(head["backend"]), call=str(head["call"]), **numbers)
    return kind(text)


# ---- the child's side ----


class Parent:
    """What a child's function sees of its parent.

    Attributes
    ----------
    request : object
        What was asked.
    interrupted : bool
        The parent has asked to stop.
    on_interrupt : callable
        Called on another thread when it asks.
    on_end : callable or None
        Called on another thread when the parent is gone or needs nothing more; the child ends
        after it.
    """

    def __init__(self, answers: int, token: bytes, request: Any) -> None:
        self.request = request
        self.interrupted = False
        self.on_interrupt: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] | None = None
        self._answers, self._token = answers, token
        self._lock = threading.Lock()

    def send(self, kind: str, body: bytes = b"", **head: Any) -> None:
        """Send a message."""
        text = json.dumps({"kind": kind, **head}).encode()
        frame = _FRAME.pack(self._token, len(text), len(body), zlib.crc32(body, zlib.crc32(text)))
        with self._lock:
            for part in (frame + text, body):
                self._write(memoryview(part))

    def _write(self, part: memoryview) -> None:
        try:
            while part:
                part = part[os.write(self._answers, part) :]
        except OSError:  # the parent has gone, or a library closed what is not its own
            if self.on_end is not None:
                threading.Event().wait()  # the thread that hears of it cleans up and ends us
            os._exit(_LOST)

    def call(self, name: str) -> None:
        """Say which call of the backend comes next."""
        self.send("call", call=name)

    def fail(self, error: BaseException) -> None:
        """Send an exception."""
        self.send("error", **describe(error))


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as JSON; one that is not ours by its name and text."""
    name = type(error).__name__
    if isinstance(error, InputError):
        return {"error": name, "text": error.reason, "file": error.file, "key": error.key}
    if isinstance(error, NetworkError):
        return {
            "error": name, "text": str(error), "backend": error.backend, "call": error.call,
            "status": error.status, "native_code": error.native_code, "item": error.item,
        }  # fmt: skip
    if isinstance(error, AstraBridgeError):
        return {"error": name, "text": str(error)}
    return {"error": name, "text": one_line(f"{name}: {error}")}


def logger(name: str) -> logging.Logger:
    """Of a part of this package; what a child's says goes to its parent."""
    import logging  # 2 ms that a run in which nobody logs need not pay

    _before_logs()
    return logging.getLogger(f"astra_bridge.{name}")


_before_logs: Callable[[], object] = bool  # in a child: see _serve


def _forward_logs(parent: Parent, level: int) -> None:
    """Send what is logged to the parent."""
    global _before_logs
    _before_logs = bool
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = one_line(record.getMessage())
            parent.send("log", logger=record.name, level=record.levelno, text=text)

    logger = logging.getLogger("astra_bridge")
    logger.handlers[:] = [Forward()]  # those of a parent that this is a copy of are its own
    logger.propagate = False
    logger.setLevel(level)


_contained = False


def contained() -> bool:
    """Whether this process is a supervised child: a crash harms nobody."""
    return _contained


def serve(
    entry: str, answers: int, token: bytes, parent_id: int, cleans_up: bool, log_level: int
) -> NoReturn:
    """The child that is a new Python: read the request, and do it."""
    import pickle

    start = _Start(entry, token, parent_id, cleans_up, log_level)
    _guard(start)
    request = pickle.load(sys.stdin.buffer)
    orders = _out_of_reach(sys.stdin.fileno())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _serve(start, request, orders, _out_of_reach(answers))


def _become(start: _Start, request: object, ends: _Ends) -> NoReturn:
    """The child that is a copy of its parent: have what a new process would have, and do it."""
    _guard(start)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(ends.said, number)
    # What the parent has not written yet stays in its streams.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    kept = orders, answers = _out_of_reach(ends.orders), _out_of_reach(ends.answers)
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(descriptor)
    sys.path[:] = safe_path()
    _serve(start, request, orders, answers)


def _guard(start: _Start) -> None:
    global _contained
    _contained = True
    if not start.cleans_up:
        die_with(start.parent)


def _serve(start: _Start, request: object, orders: int, answers: int) -> NoReturn:
    """Run the function, and send what it raises."""
    global _before_logs
    parent = Parent(answers, start.token, request)
    threading.Thread(target=_listen, args=(parent, orders), daemon=True).start()
    _before_logs = partial(_forward_logs, parent, start.level)
    if "logging" in sys.modules or not process.is_ours():  # others do not ask for our `logger`
        _before_logs()
    try:
        module, _, function = start.entry.partition(":")
        getattr(import_module(module), function)(parent)
    except BaseException as error:
        parent.fail(error)
    # A simulator that is process-wide may not survive its own clean-up.
    os._exit(0)


def die_with(parent_id: int) -> None:
    """Have the system end this process when its parent ends; the lifeline is for other systems."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent_id:  # it ended before
        os._exit(_LOST)


def _out_of_reach(descriptor: int) -> int:
    """Move a descriptor to where code that closes what is not its own does not come by."""
    with contextlib.suppress(OSError, ValueError, ImportError):
        import fcntl

        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _SAFE_DESCRIPTOR)
        if descriptor > 2:
            os.close(descriptor)
        return moved
    return os.dup(descriptor)


def _listen(parent: Parent, orders: int) -> None:
    """Hear the parent's orders, and its end, whatever the main thread does."""
    with contextlib.suppress(OSError):
        while os.read(orders, 1) == b"i":
            parent.interrupted = True
            parent.on_interrupt()
    if parent.on_end is not None:
        parent.on_end()
    os._exit(_LOST)
