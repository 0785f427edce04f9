# SPDX-License-Identifier: MIT
"""Runs the rules and collects verdicts, in this process or in a supervised child."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from astra_bridge import errors
from astra_bridge.conformance.drive import Broken
from astra_bridge.conformance.quirks import Quirks
from astra_bridge.conformance.rules import RULES, NotTested, environment, manners
from astra_bridge.conformance.subject import DEFAULT_NETWORK, Subject, subject
from astra_bridge.errors import AstraBridgeError, BackendError, InputError
from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.network.registry import BackendSpec

__all__ = ["Outcome", "Verdict", "rule_titles", "run", "run_supervised"]

LOAD_LIMIT_S = 600.0

Outcome = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Verdict:
    """What the suite says about one rule.

    Attributes
    ----------
    rule, title : str
        "R5", and the rule in one sentence.
    outcome : "pass", "fail" or "skip"
    detail : str
        How it was broken, why it was skipped, or a remark.
    """

    rule: str
    title: str
    outcome: Outcome
    detail: str = ""


def rule_titles() -> dict[str, str]:
    """Rule to its sentence, in the order in which they are tested."""
    return {rule: _title(function) for rule, function in RULES.items()}


def _title(function: Callable[..., str]) -> str:
    sentence = (function.__doc__ or "").strip().splitlines()[0]
    return sentence.split(": ", 1)[1]


def _chosen(rules: Iterable[str] | None) -> list[str]:
    wanted = list(RULES if rules is None else rules)
    for rule in wanted:
        if rule not in RULES:
            raise InputError(f"unknown rule {rule!r}; known: {', '.join(RULES)}", key="--rule")
    return [rule for rule in RULES if rule in wanted]


def run(
    target: str | Path | BackendSpec | Callable[[NetworkConfig], Network],
    *,
    network: object = DEFAULT_NETWORK,
    options: Mapping[str, str] | None = None,
    quirks: Quirks | None = None,
    rules: Iterable[str] | None = None,
) -> list[Verdict]:
    """Test a backend in this process; see :func:`run_supervised` for one that may crash.

    Parameters
    ----------
    target
        Name of a backend, path of a library, a spec, or a callable that makes a ``Network`` of a
        ``NetworkConfig``.
    network
        Path or parsed object of the network that it simulates, with at least three endpoints.
    options
        The backend's own options.
    quirks
        Known differences; default: what ``quirks.py`` has under the backend's name.
    rules
        Which ones; default: all.

    Raises
    ------
    InputError, BackendError
        The backend cannot be opened at all.
    """
    before = environment()
    s = subject(target, network=network, options=options, quirks=quirks)
    if s.config.endpoints < 3:
        raise InputError(f"{s.config.endpoints} endpoints, but the suite needs at least 3")
    return list(_verdicts(s, _chosen(rules), before))


def _verdicts(s: Subject, rules: Iterable[str], before: dict[str, object]) -> Iterator[Verdict]:
    for rule in rules:
        function = RULES[rule]
        title = _title(function)
        if rule in s.quirks.skip:
            yield Verdict(rule, title, "skip", s.quirks.skip[rule])
            continue
        try:
            detail = function(s, before) if function is manners else function(s)
            yield Verdict(rule, title, "pass", detail)
        except NotTested as reason:
            yield Verdict(rule, title, "skip", str(reason))
        except Broken as broken:
            yield Verdict(rule, title, "fail", str(broken))
        except Exception as error:  # a pure Python backend can raise anything
            yield Verdict(rule, title, "fail", f"{type(error).__name__}: {error}")


def run_supervised(
    target: str,
    *,
    network: str | None = None,
    options: Mapping[str, str] | None = None,
    skip: Mapping[str, str] | None = None,
    rules: Iterable[str] | None = None,
    limit_s: float = 120.0,
) -> list[Verdict]:
    """Test a backend in a child process, which may crash or hang.

    Parameters
    ----------
    target, network, options, rules
        As for :func:`run`, but names and paths only.
    skip
        Rules to leave out, each with its reason; added to the known quirks.
    limit_s : float
        Time for one rule [s]; a rule that takes longer has failed.

    Raises
    ------
    InputError, BackendError
        The backend cannot be opened at all.
    """
    left = _chosen(rules)
    verdicts: list[Verdict] = []
    while left:
        request = {
            "target": target,
            "network": network,
            "options": dict(options or {}),
            "skip": dict(skip or {}),
            "rules": left,
        }
        current = "load"
        ended = ""
        for message in _child(request, limit_s):
            if "begin" in message:
                current = str(message["begin"])
            elif "verdict" in message:
                verdict = Verdict(**message["verdict"])  # type: ignore[arg-type]
                verdicts.append(verdict)
                left.remove(verdict.rule)
            elif "error" in message:
                # The same class as in the child: it decides the exit code.
                kind: type[AstraBridgeError] = getattr(errors, str(message["error"]))
                raise kind(str(message["text"]))
            else:
                ended = str(message["ended"])
        if not ended:
            break
        if current == "load":
            raise BackendError(f"{target}: {ended} while it was loaded and opened")
        title = rule_titles()[current]
        verdicts.append(Verdict(current, title, "fail", f"{ended} (and so breaks R12)"))
        left.remove(current)
    return verdicts


def _child(request: Mapping[str, object], limit_s: float) -> Iterator[dict[str, object]]:
    """Messages of a worker; the last is {"ended": why} unless it finished its work."""
    readable, writable = os.pipe()
    command = [sys.executable, "-m", "astra_bridge.conformance", str(writable)]
    environment_ = dict(os.environ)
    root = str(Path(__file__).parents[2])
    environment_["PYTHONPATH"] = os.pathsep.join(
        filter(None, [root, environment_.get("PYTHONPATH")])
    )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=[writable], env=environment_
    ) as child:
        os.close(writable)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
        try:
            buffer = b""
            # Loading may compile the backend first.
            limit_s, usual_s = max(limit_s, LOAD_LIMIT_S), limit_s
            deadline = time.monotonic() + limit_s
            finished = False
            while True:
                ready, _, _ = select.select([readable], [], [], max(0, deadline - time.monotonic()))
                if not ready:
                    child.kill()
                    yield {"ended": f"no answer within {limit_s:g} s"}
                    return
                block = os.read(readable, 65536)
                if not block:
                    break
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    limit_s = usual_s
                    deadline = time.monotonic() + limit_s
                    message = json.loads(line)
                    finished = finished or "done" in message
                    if "done" not in message:
                        yield message
            code = child.wait()
            if not finished:
                yield {"ended": _how(code)}
        finally:
            os.close(readable)
            child.kill()


def _how(code: int) -> str:
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def serve(descriptor: int) -> None:
    """The worker: reads a request from stdin, writes messages to ``descriptor``."""
    request = json.loads(sys.stdin.read())
    with os.fdopen(descriptor, "w") as out:

        def say(message: Mapping[str, object]) -> None:
            out.write(json.dumps(message) + "\n")
            out.flush()

        try:
            before = environment()
            network = request["network"] or DEFAULT_NETWORK
            s = subject(request["target"], network=network, options=request["options"])
            skip = {**s.quirks.skip, **request["skip"]}
            s = replace(s, quirks=replace(s.quirks, skip=skip))
            for rule in request["rules"]:
                say({"begin": rule})
                for verdict in _verdicts(s, [rule], before):
                    say({"verdict": asdict(verdict)})
        except AstraBridgeError as error:
            say({"error": type(error).__name__, "text": str(error)})
        say({"done": True})
