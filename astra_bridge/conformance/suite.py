# SPDX-License-Identifier: MIT
"""Runs the rules and collects verdicts, in this process or in a supervised child."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from astra_bridge.conformance.drive import Broken
from astra_bridge.conformance.quirks import Quirks
from astra_bridge.conformance.rules import RULES, NotTested, environment, manners
from astra_bridge.conformance.subject import DEFAULT_NETWORK, Subject, named_backend, subject
from astra_bridge.errors import AstraBridgeError, BackendError, InputError
from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.network.native import watch_calls
from astra_bridge.network.spec import BackendSpec
from astra_bridge.supervision import NONSENSE, Child, ChildEnded, Message, Parent, received

__all__ = ["Outcome", "Verdict", "rule_titles", "run", "run_supervised"]

_LONGEST_DETAIL = 10_000

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
    largest_bytes: int | None = None,
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
    largest_bytes : int, optional
        As `Quirks` has it, of a backend that the known quirks do not name.
    limit_s : float
        Time for one rule, and for each call while the backend is opened [s]; a rule that takes
        longer has failed.

    Raises
    ------
    InputError, BackendError
        The backend cannot be opened at all.
    """
    left = _chosen(rules)
    verdicts: list[Verdict] = []
    # Compiled here, where it can say so, not in the child.
    spec = named_backend(target)
    if spec.unavailable() is None:
        spec.make_ready()
    while left:
        request = {
            "target": target,
            "network": network,
            "options": dict(options or {}),
            "skip": dict(skip or {}),
            "largest_bytes": largest_bytes,
            "rules": list(left),
        }
        try:
            verdicts += _from_child(target, request, left, limit_s)
        except NONSENSE as error:
            if isinstance(error, AstraBridgeError):
                raise
            raise BackendError(f"{target}: the process that runs it sent nonsense") from error
    return verdicts


def _from_child(
    target: str, request: Mapping[str, object], left: list[str], limit_s: float
) -> Iterator[Verdict]:
    """Verdicts of one worker, which may end early; what it judged is taken from ``left``."""
    current, call = "load", "load"
    for message in _messages(request, limit_s):
        if message.kind == "begin":
            current = str(message.head["rule"])
        elif message.kind == "verdict":
            verdict = _verdict(message.head)
            left.remove(verdict.rule)
            current = ""
            yield verdict
        elif message.kind == "call":
            call = str(message.head["call"])
        elif message.kind == "error":
            raise received(message.head, target, call)
        elif message.kind == "ended":
            how = str(message.head["how"])
            if current == "load":
                raise BackendError(f"{target}: {call}: the process that runs it {how}")
            if current:
                left.remove(current)
                detail = f"the process {how} (and so breaks R12)"
                yield Verdict(current, rule_titles()[current], "fail", detail)


def _verdict(head: Mapping[str, Any]) -> Verdict:
    rule, outcome = str(head["rule"]), head["outcome"]
    if outcome not in ("pass", "fail", "skip"):
        raise ValueError(outcome)
    return Verdict(rule, rule_titles()[rule], outcome, str(head["detail"]))


def _messages(request: Mapping[str, object], limit_s: float) -> Iterator[Message]:
    """Messages of a worker; the last is "done", or "ended" with how."""
    with Child("astra_bridge.conformance.suite:serve", request) as child:
        while True:
            try:
                message = child.receive(limit_s)
            except ChildEnded as ended:
                yield Message("ended", {"how": str(ended)}, b"")
                return
            if message is None:
                yield Message("ended", {"how": f"gave no answer within {limit_s:g} s"}, b"")
                return
            child.progressed()
            yield message
            if message.kind == "done":
                return


def serve(parent: Parent) -> None:
    """The worker: tests what was asked, and says what came of each rule."""
    request = parent.request
    before = environment()
    network = request["network"] or DEFAULT_NETWORK
    watch_calls(parent.call)
    s = subject(request["target"], network=network, options=request["options"])
    watch_calls(None)
    quirks = replace(s.quirks, skip={**s.quirks.skip, **request["skip"]})
    if request["largest_bytes"] is not None:
        quirks = replace(quirks, largest_bytes=request["largest_bytes"])
    s = replace(s, quirks=quirks)
    for rule in request["rules"]:
        parent.send("begin", rule=rule)
        for verdict in _verdicts(s, [rule], before):
            detail = verdict.detail[:_LONGEST_DETAIL]
            parent.send("verdict", rule=rule, outcome=verdict.outcome, detail=detail)
    parent.send("done")
