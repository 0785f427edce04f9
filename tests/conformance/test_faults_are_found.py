# SPDX-License-Identifier: MIT
"""Each rule of the suite can fail: the mock breaks it, and the suite says so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from astra_bridge.cli import main
from astra_bridge.conformance import Quirks, rule_titles, run, run_supervised
from astra_bridge.errors import BackendError, ContractError, InputError
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.api import TIME_NEVER, Capability
from astra_bridge.network.native import library_backend
from tests.waiting import HANGS_S

SAVE = Capability.SAVE

# Fault of csrc/mock/fault.c -> the rule that it breaks, and words of the verdict.
IN_PROCESS = {
    "scribble": ("R2", "submit wrote into the caller's array"),
    "partial": ("R3", "names item 0, not item 1"),
    "swallow": ("R4", "already in flight"),
    "overshoot": ("R5", "went to"),
    "half": ("R6", "came after advance had returned at"),
    "late": ("R6", "but now is"),
    "submission": ("R7", "another order of submission changes"),
    "unordered": ("R7", "ascending times"),
    "drain": ("R7", "advance with undrained completions was accepted"),
    "drift": ("R7", "a second run changes"),
    "early": ("R8", "bytes / bandwidth + latency is"),
    "duplicate": ("R8", "not in flight"),
    "lost": ("R8", "but poll gave 0 completions"),
    "split": ("R9", "splitting advance changes"),
    "thread": ("R10", "called from another thread"),
    "log-thread": ("R11", "log was called on another thread"),
    "stuck": ("R13", "said IDLE, which is neither an error nor a loss"),
    "narrow": ("R14", "2**40 bytes"),
    "double": ("R14", "4096 bytes take"),
    "place": ("R15", "more places"),
    "haste": ("R15", "ran on after a completion"),
    "commit": ("R15", "exchange() was refused, and submit() after it is, too (R3)"),
    "garbage": ("R5", "status 99, which the contract does not know"),
    "status:6": ("R5", "injected status 6"),
}


def spoilt(fault: str, **more: str) -> dict[str, str]:
    return {"contention": "true", "fault": fault, **more}


@pytest.mark.parametrize("contention", ["true", "false"])
def test_the_honest_mock_passes_every_rule(mock_library: Path, contention: str) -> None:
    verdicts = run(library_backend(mock_library), options={"contention": contention})
    outcomes = {v.rule: v.outcome for v in verdicts}
    # SAVE, PEEK and REDUCTION are not declared, and parts came later than it.
    late = ("R16", "R17", "R18", "R19")
    assert [outcomes.pop(rule) for rule in late] == ["skip"] * 4
    assert outcomes == dict.fromkeys([r for r in rule_titles() if r not in late], "pass"), verdicts


@pytest.mark.parametrize("fault", IN_PROCESS)
def test_a_fault_breaks_its_rule(mock_library: Path, fault: str) -> None:
    rule, words = IN_PROCESS[fault]
    (verdict,) = run(library_backend(mock_library), options=spoilt(fault), rules=[rule])
    assert verdict.outcome == "fail"
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("abort", "was ended by SIGABRT"),
        ("segv", "was ended by SIGSEGV"),
        ("exit", "exit code 0"),
        ("hang", "gave no answer within 2 s"),
        ("stdout", "writes to stdout: b'a backend that talks"),
        ("chdir", "changed the working directory"),
        ("rounding", "changed the rounding mode"),
    ],
)
def test_bad_manners_end_in_a_verdict(mock_library: Path, fault: str, words: str) -> None:
    limit_s = 2 if fault == "hang" else HANGS_S
    verdicts = run_supervised(
        str(mock_library), options=spoilt(fault), rules=["R12", "R11"], limit_s=limit_s
    )
    by_rule = {v.rule: v for v in verdicts}
    # A rule after the one that ended the process is still judged.
    assert set(by_rule) == {"R11", "R12"}
    assert by_rule["R12"].outcome == "fail"
    assert words in by_rule["R12"].detail


def test_large_transfers_are_not_waited_for_where_a_size_is_given(
    mock_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["conformance", str(mock_library), "--rule=R14"]
    for more, said in (([], "at most"), (["--largest=8192"], "waited for at most 8192 bytes")):
        assert main([*words, *more]) == 0
        assert (said in capsys.readouterr().out) is bool(more)


def test_a_version_that_nobody_knows_must_be_refused(
    mock_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_NET_MOCK", "any-version")
    (verdict,) = run_supervised(str(mock_library), rules=["R1"])
    assert verdict.outcome == "fail"
    assert "an unknown version is UNSUPPORTED" in verdict.detail


def test_a_declared_capability_must_have_its_entry(
    mock_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_NET_MOCK", "missing,snapshot")
    (verdict,) = run_supervised(str(mock_library), rules=["CAP"])
    assert verdict.outcome == "fail"
    assert "SNAPSHOT is declared, but snapshot is NULL" in verdict.detail


def test_what_cannot_be_opened_is_an_error_of_its_own_class(
    mock_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such library"):
        run_supervised("./nothing.so")
    with pytest.raises(InputError, match="unknown rule 'R99'; known: R1"):
        run_supervised(str(mock_library), rules=["R99"])
    monkeypatch.setenv("ASTRA_NET_MOCK", "abort,init")
    with pytest.raises(BackendError, match="init: the process that runs it was ended by SIGABRT"):
        run_supervised(str(mock_library))


def test_a_quirk_skips_with_its_reason(mock_library: Path) -> None:
    quirks = Quirks(skip={"R9": "known to be wrong"})
    (verdict,) = run(
        library_backend(mock_library), options=spoilt("split"), quirks=quirks, rules=["R9"]
    )
    assert (verdict.outcome, verdict.detail) == ("skip", "known to be wrong")


class Forgetful(UnawareNetwork):
    """What has not started is lost on the way to the file."""

    def save(self) -> bytes:
        copy = self.snapshot()
        copy._starts.clear()
        return super(Forgetful, copy).save()


class Gullible(UnawareNetwork):
    """Any bytes will do."""

    def restore(self, data: bytes) -> None:
        with suppress(ContractError):
            super().restore(data)


class Secretive(UnawareNetwork):
    """Saves without a word about it."""

    info = replace(UnawareNetwork.info, capabilities=UnawareNetwork.info.capabilities & ~SAVE)


class Hopeful(UnawareNetwork):
    """Says that something comes later than it does."""

    def peek(self) -> int:
        return min(super().peek() + 1_000_000, TIME_NEVER)


class Timid(UnawareNetwork):
    """Says that the next event is now, for ever."""

    def peek(self) -> int:
        return min(super().peek(), self._now_ps)


class Silent(UnawareNetwork):
    """Can be peeked into without a word about it."""

    info = replace(
        UnawareNetwork.info, capabilities=UnawareNetwork.info.capabilities & ~Capability.PEEK
    )


class Hasty(UnawareNetwork):
    """Gives the result of a reduction to each member as soon as that one has started."""

    def _reduce(
        self, transfer_id: int, size: int, src: int, dst: int, now_ps: int, members: int, which: int
    ) -> None:
        self._start(transfer_id, size, src, dst, now_ps)


class Lossy(UnawareNetwork):
    """Forgets the last member of a reduction."""

    def _reduce(
        self, transfer_id: int, size: int, src: int, dst: int, now_ps: int, members: int, which: int
    ) -> None:
        super()._reduce(transfer_id, size, src, dst, now_ps, members + 1, which)


@pytest.mark.parametrize(
    ("network", "rule", "said"),
    [
        (Hasty, "R19", "whose last member starts at"),
        (Lossy, "R19", "no event is left"),
        (Hopeful, "R17", "peek() had said"),
        (Timid, "R17", "nothing is in flight, but peek() gives a time"),
        (Silent, "CAP", "PEEK is not declared"),
        (Forgetful, "R16", "no event is left"),
        (Gullible, "R16", "bytes that are cut off was accepted"),
        (Secretive, "CAP", "SAVE is not declared"),
    ],
)
def test_a_fault_of_what_came_later_is_found(
    network: type[UnawareNetwork], rule: str, said: str
) -> None:
    (verdict,) = run(network, rules=[rule])
    assert verdict.outcome == "fail"
    assert said in verdict.detail
