# SPDX-License-Identifier: MIT
"""Recordings with something wrong in them end in a result or in an error that says what it is.

``ASTRA_BRIDGE_FUZZ=1000 python -m pytest tests/faults/test_mutated_recordings.py`` tries more, and
the recordings of ../shared/reference/pytorch where they are.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import astra_bridge
from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.sources import json_list, kineto
from astra_bridge.sources.export import RecordedWorkload
from astra_bridge.sources.pytorch import recorded_job, unmeasured_job
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.inferences import Inferences
from tests.recordings import Recording

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "pytorch"
ROUNDS = int(os.environ.get("ASTRA_BRIDGE_FUZZ", "40"))

Files = list[dict[str, Any]]
"""Kineto's traces of all ranks, then their execution traces."""

ODD = (
    None, -1, 0, 1, 7, -5.5, 1e300, 2**63, -(2**70), "", "x", "7", "1.5", True, [], [1], {},
    {"a": 1}, "\u20ac\\",
)  # fmt: skip


def recorded(ranks: int, folder: Path) -> Files:
    """A step with kernels on two streams, two threads, collectives of two groups and messages."""
    halves = {"h0": list(range(ranks // 2)), "h1": list(range(ranks // 2, ranks))}
    kineto, execution = [], []
    for rank in range(ranks):
        one = Recording(rank, ranks, halves)
        mine = "h0" if rank < ranks // 2 else "h1"
        one.op(0, 400, "step")
        for i in range(3):
            at = 100.0 * i
            one.op(at + 1, 30)
            one.kernel(at + 5, at + 12, 20, f"gemm{i}")
            one.kernel(at + 9, at + 14, 15, "copy", stream=8)
            one.collective(at + 40, 20, "allreduce", 512, "0")
        one.collective(330, 10, "allgather", 256, mine, **{"Out msg nelems": 256 * ranks // 2})
        pair = {"Src Rank": rank ^ 1, "Dst Rank": rank ^ 1}
        args = one.described("send" if rank % 2 == 0 else "recv", 64, "0", **pair)
        one.op(360, 20, "c10d::send" if rank % 2 == 0 else "c10d::recv_")
        one.op(361, 18, "record_param_comms", **args)
        one.kernel(366, 375, 10, "ncclDevKernel_SendRecv(ncclComm*)", 20)
        one.op(90, 200, "backward", tid=2)
        one.kernel(150, 160, 30, "gemm_backward", tid=2)
        one.call("cudaDeviceSynchronize", 390, 30)
        path = one.write(folder / f"k{rank}.json")
        kineto.append(json.loads(path.read_text()))
        path = one.execution_trace(folder / f"e{rank}.json.gz", {})
        execution.append(json.loads(gzip.decompress(path.read_bytes())))
    return kineto + execution


def kernels(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in file["traceEvents"] if event.get("cat") == "kernel"]


# Each changes the files of a job in one way.


def a_value(files: Files, pick: random.Random) -> None:
    file = pick.choice(files[: len(files) // 2])
    event = pick.choice(file["traceEvents"])
    inner = event.get("args") if pick.random() < 0.6 else event
    inner = inner if isinstance(inner, dict) and inner else event
    inner[pick.choice(sorted(inner))] = pick.choice(ODD)


def a_key(files: Files, pick: random.Random) -> None:
    file = pick.choice(files[: len(files) // 2])
    for event in pick.choices(file["traceEvents"], k=pick.choice([1, 5, 50])):
        inner = event.get("args") if pick.random() < 0.6 else event
        if isinstance(inner, dict) and inner:
            inner.pop(pick.choice(sorted(inner)))


def no_such_key(files: Files, pick: random.Random) -> None:
    key = pick.choice(["correlation", "stream", "device", "External id", "Collective name",
                       "Process Group Name", "Process Group Ranks", "In msg nelems", "dtype",
                       "Group size", "Record function id"])  # fmt: skip
    for file in files[: pick.choice([1, len(files) // 2])]:
        for event in file["traceEvents"]:
            if isinstance(event.get("args"), dict):
                event["args"].pop(key, None)


def ids_twice(files: Files, pick: random.Random) -> None:
    for file in files[: len(files) // 2]:
        for event in file["traceEvents"]:
            args = event.get("args")
            if isinstance(args, dict) and "correlation" in args and pick.random() < 0.3:
                args["correlation"] = pick.choice([101, 102, 103, 0, -1])


def negative_durations(files: Files, pick: random.Random) -> None:
    file = pick.choice(files[: len(files) // 2])
    for event in pick.choices(file["traceEvents"], k=5):
        event["dur"] = -pick.choice([1, 5.25, 1e6, 1e12])


def times_far_off(files: Files, pick: random.Random) -> None:
    file = pick.choice(files[: len(files) // 2])
    for event in pick.choices(file["traceEvents"], k=3):
        event["ts"] = pick.choice([-1e6, 0, 1e9, 1e13, 1e15, 1e18, 1e22])


def without_a_stream(files: Files, pick: random.Random) -> None:
    for file in files[: pick.choice([1, len(files) // 2])]:
        stream = pick.choice([7, 8, 20])
        file["traceEvents"] = [
            event for event in file["traceEvents"] if event.get("args", {}).get("stream") != stream
        ]


def without_events(files: Files, pick: random.Random) -> None:
    for file in files[: pick.choice([1, len(files) // 2])]:
        share = pick.choice([0.02, 0.2, 0.9, 1])
        file["traceEvents"] = [event for event in file["traceEvents"] if pick.random() > share]


def in_another_order(files: Files, pick: random.Random) -> None:
    for file in files[: len(files) // 2]:
        pick.shuffle(file["traceEvents"])


def one_collective_less(files: Files, pick: random.Random) -> None:
    file = files[pick.randrange(len(files) // 2)]
    names = ("c10d::allreduce_", "record_param_comms", "c10d::allgather_")
    calls = [event for event in file["traceEvents"] if event.get("name") in names]
    for event in pick.choices(calls, k=pick.choice([1, 2, len(calls)])):
        if event in file["traceEvents"]:
            file["traceEvents"].remove(event)
    if pick.random() < 0.5:
        gone = [one for one in kernels(file) if "nccl" in one["name"]]
        for event in gone[:1]:
            file["traceEvents"].remove(event)


def groups_as_hashes(files: Files, pick: random.Random) -> None:
    """Names are hashes, and some ranks do not list them."""
    half = len(files) // 2
    every = pick.random() < 0.5
    for file in files[:half]:
        if not every and pick.random() < 0.5:
            continue
        for event in file["traceEvents"]:
            name = event.get("args", {}).get("Process Group Name")
            if name is not None:
                event["args"]["Process Group Name"] = f"d41d8cd98f00b204{name}"
        for group in file.get("distributedInfo", {}).get("pg_config", []):
            group["pg_name"] = f"d41d8cd98f00b204{group['pg_name']}"
    for file in pick.sample(files[:half], pick.randrange(half + 1)):
        config = file["distributedInfo"]
        config["pg_config"] = pick.choice([[], None, config["pg_config"][:1], "odd", [{}], [7]])
        if pick.random() < 0.5:
            for event in file["traceEvents"]:
                event.get("args", {}).pop("Process Group Ranks", None)


def another_head(files: Files, pick: random.Random) -> None:
    for file in files[: pick.choice([1, len(files) // 2])]:
        key = pick.choice(["rank", "world_size", "pg_config"])
        file["distributedInfo"][key] = pick.choice([*ODD, 3, 99])
        if pick.random() < 0.3:
            file["distributedInfo"] = pick.choice(ODD)
        if pick.random() < 0.1:
            file["traceEvents"] = pick.choice(ODD)


def an_execution_trace(files: Files, pick: random.Random) -> None:
    file = pick.choice(files[len(files) // 2 :])
    if pick.random() < 0.2:
        file[pick.choice(sorted(file))] = pick.choice(ODD)
        return
    for node in pick.choices(file["nodes"], k=pick.choice([1, 5, 50])):
        attributes = node.get("attrs")
        more = attributes if isinstance(attributes, list) else []
        where = pick.choice([node, node.get("inputs"), *more])
        if isinstance(where, dict) and where:
            key = pick.choice(sorted(where))
            if pick.random() < 0.5:
                where.pop(key)
            else:
                where[key] = pick.choice(ODD)


MUTATIONS: tuple[Callable[[Files, random.Random], None], ...] = (
    a_value, a_key, no_such_key, ids_twice, negative_durations, times_far_off, without_a_stream,
    without_events, in_another_order, one_collective_less, groups_as_hashes, another_head,
    an_execution_trace,
)  # fmt: skip


def cut(text: bytes, pick: random.Random) -> bytes:
    """The bytes of a file, rarely whole."""
    kind = pick.random()
    if kind < 0.7:
        return text
    if kind < 0.8:
        return text[: pick.randrange(len(text))]
    if kind < 0.9:
        return gzip.compress(text)[: pick.randrange(20, len(text) // 4)]
    at = pick.randrange(len(text))
    return text[:at] + pick.choice([b"\xff", b"{", b"]", b'"', b"\0", b"NaN"]) + text[at + 1 :]


def outcome(kineto: dict[int, Path], execution: dict[int, Path], ranks: int | None) -> str:
    """What becomes of a job: "runs", or the error; anything else is a failure of the test."""
    try:
        made = Inferences()
        job = (
            recorded_job(kineto, execution, ranks, made)
            if kineto
            else unmeasured_job(execution, ranks, made)
        )
        workload = RecordedWorkload(job).workload()
        made.lines()
        stops = [one for one in check_workload(workload) if one.stops]
        for semantics in ("astra-sim", "corrected"):
            astra_bridge.simulate(
                workload=workload,
                system={
                    "replay-only": int(bool(kineto)), "all-reduce-implementation": ["ring"],
                    "all-gather-implementation": ["ring"],
                },
                network={"topology": ["Switch"], "bandwidth": [400], "latency": [500],
                         "npus_count": [workload.ranks]},
                semantics=semantics,
            )  # fmt: skip
    except AstraBridgeError as error:
        return f"{type(error).__name__}: {error}"
    assert not stops, "what runs, a check must not find stuck"
    return "runs"


def written(files: Files, folder: Path, pick: random.Random) -> tuple[dict[int, Path], ...]:
    """The files of a job, which may be cut off."""
    half = len(files) // 2
    damaged = pick.randrange(len(files)) if pick.random() < 0.3 else -1
    paths = []
    for at, content in enumerate(files):
        text = json.dumps(content, indent=pick.choice([None, 2])).encode()
        path = folder / f"{'k' if at < half else 'e'}{at % half}.json"
        path.write_bytes(cut(text, pick) if at == damaged else text)
        paths.append(path)
    return dict(enumerate(paths[:half])), dict(enumerate(paths[half:]))


def test_without_mutations_it_runs(tmp_path: Path) -> None:
    kineto, execution = written(recorded(4, tmp_path), tmp_path, random.Random(5))
    assert outcome(kineto, execution, None) == outcome(kineto, {}, None) == "runs"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.__name__)
def test_a_mutated_recording_runs_or_says_why_not(
    mutation: Callable[[Files, random.Random], None], tmp_path: Path
) -> None:
    plain = json.dumps(recorded(4, tmp_path))
    ends = set()
    for seed in range(max(1, ROUNDS // len(MUTATIONS) * 2)):
        pick = random.Random(f"{mutation.__name__} {seed}")
        files = json.loads(plain)
        mutation(files, pick)
        kineto, execution = written(files, tmp_path, pick)
        way = pick.randrange(4)
        if way == 0:
            ends.add(outcome(kineto, execution, None))
        elif way == 1:
            ends.add(outcome({}, execution, None))
        elif way == 2:
            ends.add(outcome({0: kineto[0]}, {0: execution[0]}, 4))
        else:
            ends.add(outcome(kineto, {}, None))
    assert ends


@pytest.mark.skipif(ROUNDS <= 40 or not REFERENCE.exists(), reason="long; ASTRA_BRIDGE_FUZZ=100")
@pytest.mark.parametrize("name", ["ddp_gloo_4", "tp4_dp2_fake_8"])
def test_mutated_real_recordings(name: str, tmp_path: Path) -> None:
    def load(path: Path) -> Any:
        return json.loads(gzip.decompress(path.read_bytes()))

    folder = REFERENCE / name
    parts = [sorted(folder.glob(f"{kind}.*.json.gz")) for kind in ("kineto", "et")]
    plain = [json.dumps(load(path)) for paths in parts for path in paths]
    for seed in range(min(40, ROUNDS // 10)):
        pick = random.Random(f"{name} {seed}")
        files = [json.loads(text) for text in plain]
        pick.choice(MUTATIONS)(files, pick)
        kineto, execution = written(files, tmp_path, pick)
        outcome(kineto, execution, None if len(kineto) > 1 else 8)


def of_recording(recording: Any, *, ops: bool = True) -> list[Any]:
    """All that was read, but for the file; operators inside of others only where that is asked."""
    values = []
    for name in recording.__struct_fields__:
        value = getattr(recording, name)
        if name == "file" or (name.startswith("op_") and not ops):
            continue
        values.append((name, value.tolist() if hasattr(value, "tolist") else value))
    return values


def read(path: Path, monkeypatch: pytest.MonkeyPatch, native: bool) -> Any:
    """What a reader makes of a file: the recording, or the error."""
    with monkeypatch.context() as patch:
        if not native:
            patch.setattr(kineto, "_scanner", None)
        try:
            return kineto.read_kineto(path)
        except InputError as error:
            return str(error)


LAYOUTS: dict[str, Callable[[Any], str]] = {
    "dense": lambda content: json.dumps(content, separators=(",", ":")),
    "pretty": lambda content: json.dumps(content, indent=2),
    "wide": lambda content: json.dumps(content, indent=16).replace("\n", "\r\n\t \n"),
    "sorted": lambda content: json.dumps(content, sort_keys=True),
    "backwards": lambda content: json.dumps(backwards(content)),
}


def backwards(content: Any) -> Any:
    """The same with all keys the other way round, but for those of the file itself."""
    if isinstance(content, dict):
        turned = list(content.items()) if "traceEvents" in content else [*content.items()][::-1]
        return {key: backwards(value) for key, value in turned}
    return [backwards(one) for one in content] if isinstance(content, list) else content


@pytest.mark.skipif(kineto._scanner is None, reason="the native part is not built")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [997, 1 << 20])
def test_both_readers_read_every_layout_alike(
    layout: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list.blocks, "__defaults__", (size,))
    content = recorded(4, tmp_path)[1]
    for i, event in enumerate(content["traceEvents"]):
        event["args"]["text"] = 'odd }, {"ph": [' + "\\" * (i % 3) + '"' * (i % 2)
        event["args"]["nested"] = [{"name": "a", "ph": "X"}, [[{}]], -1.5e-3, True, None]
    content["traceEvents"][3]["name"] = 'a "\u20ac\u0001" \\'
    content["traceEvents"].append({"ph": "f", "id": 4, "bp": "e", "cat": "ac2g"})
    path = tmp_path / "k.json"
    path.write_text(LAYOUTS[layout](content))
    native, plain = (read(path, monkeypatch, one) for one in (True, False))
    assert of_recording(native) == of_recording(plain)
    assert len(native.gpu) == len(kernels(content)) > 9
    gzipped = tmp_path / "k.json.gz"
    gzipped.write_bytes(gzip.compress(path.read_bytes()))
    assert of_recording(read(gzipped, monkeypatch, True)) == of_recording(native)


@pytest.mark.skipif(kineto._scanner is None, reason="the native part is not built")
@pytest.mark.parametrize("mutation", MUTATIONS[:-1], ids=lambda one: one.__name__)
def test_both_readers_read_what_is_wrong_alike(
    mutation: Callable[[Files, random.Random], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plain = json.dumps(recorded(2, tmp_path))
    for seed in range(max(1, ROUNDS // len(MUTATIONS) * 2)):
        pick = random.Random(f"{mutation.__name__} {seed}")
        files = json.loads(plain)
        mutation(files, pick)
        path = tmp_path / "k.json"
        path.write_text(pick.choice(list(LAYOUTS.values()))(files[0]))
        native, python = (read(path, monkeypatch, one) for one in (True, False))
        if isinstance(native, str) or isinstance(python, str):
            assert native == python
        else:
            assert of_recording(native, ops=False) == of_recording(python, ops=False)


@pytest.mark.skipif(kineto._scanner is None, reason="the native part is not built")
@pytest.mark.parametrize("seed", range(30))
def test_the_scanner_bears_any_bytes(seed: int, tmp_path: Path) -> None:
    """Changed bytes end in a recording or an error; some damage inside of texts goes unseen."""
    pick = random.Random(seed)
    data = bytearray(json.dumps(recorded(2, tmp_path)[0], indent=pick.choice([None, 2])).encode())
    for _ in range(pick.choice([1, 3, 30])):
        data[pick.randrange(len(data))] = pick.choice(b'\0\xff{}[]":,\\ntf-.e0\x80')
    path = tmp_path / "k.json"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        kineto.read_kineto(path)


def test_the_message_names_file_and_repair(tmp_path: Path) -> None:
    """Ranks with different counts of collectives: both sides of the first difference."""
    files = recorded(4, tmp_path)
    events = files[2]["traceEvents"]
    gone = [event for event in events if event["name"] == "c10d::allreduce_"][-1]
    files[2]["traceEvents"] = [
        event for event in events
        if not (gone["ts"] <= event["ts"] <= gone["ts"] + 20 and event["tid"] in (1, 20))
    ]  # fmt: skip
    kineto, _ = written(files, tmp_path, random.Random(5))
    with pytest.raises(InputError, match=r"rank 2") as error:
        recorded_job(kineto, {}, None, Inferences())
    assert "rank 0" in str(error.value) or "rank 1" in str(error.value)
