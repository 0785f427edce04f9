# SPDX-License-Identifier: MIT
"""Long fuzzing of the trace readers: ``python -m tests.fuzz_trace --minutes 10``.

Half of the time the native decoder alone, under AddressSanitizer and
UndefinedBehaviorSanitizer; the other half both decoders, which must agree on every input.
Ends with "ok" and status 0, or with the input that failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from astra_bridge.trace.columns import NodeType
from astra_bridge.trace.decode import decode
from astra_bridge.trace.raw import RawError, RawTrace
from astra_bridge.trace.writer import TraceNode, encode_trace
from tests.trace_twins import differences, native_decoder

SOURCES = Path(__file__).parents[1] / "csrc" / "trace"


def _seeds() -> list[bytes]:
    attributes: dict[str, Any] = {
        "is_cpu_op": False,
        "comm_type": 0,
        "comm_size": ("uint64_val", 65536),
        "comm_priority": ("sint32_val", -5),
        "pg_name": "1",
        "involved_dim": [True, False, True],
        "num_ops": ("fixed64_val", 7),
        "tensor_size": ("sfixed32_val", 7),
        "root_rank": ("sint64_val", 9),
        "comm_root": ("uint32_val", 9),
        "comm_tag": ("fixed32_val", 2**32 - 1),
        "comm_src": 3,
        "comm_dst": 1,
        "inputs": ["a", "1"],
        "float": ("float_val", 1.5),
        "doubles": [1.5],
        "raw": b"q",
    }
    items = list(attributes.items())
    return [
        encode_trace(
            TraceNode(
                id=i,
                type=NodeType(i % 8),
                name=f"node{i}",
                duration_micros=i * 200,
                data_deps=list(range(i))[:3],
                ctrl_deps=list(range(i))[-2:],
                attributes=dict(items[i : i + 9]),
            )
            for i in range(count)
        )
        for count in (1, 3, 9)
    ]


SEEDS = _seeds()


def mutation(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed with up to four random edits, or, rarely, random bytes."""
    if random.random() < 0.02:
        return random.randbytes(random.randrange(40))
    data = bytearray(random.choice(seeds))
    for _ in range(random.randrange(5)):
        if not data:
            break
        at = random.randrange(len(data))
        how = random.randrange(5)
        if how == 0:
            data[at] = random.randrange(256)
        elif how == 1:
            data[at] ^= 1 << random.randrange(8)
        elif how == 2 and random.random() < 0.3:
            del data[at:]
        elif how == 3:
            data.insert(at, random.randrange(256))
        else:
            del data[at : at + random.randrange(4)]
    return bytes(data)


def outcome(run: Callable[[bytes], RawTrace], data: bytes) -> RawTrace | tuple[str, str]:
    """Return the trace, or place and problem of the error."""
    try:
        return run(data)
    except RawError as error:
        return error.place, error.problem


def disagreement(native: Callable[[bytes], RawTrace], data: bytes) -> str | None:
    """Say how the two decoders differ on this input, or None."""
    ours, theirs = outcome(native, data), outcome(decode, data)
    if isinstance(ours, tuple) or isinstance(theirs, tuple):
        same = ours == theirs
        return None if same else f"native: {str(ours)[:200]}, Python: {str(theirs)[:200]}"
    return ", ".join(differences(ours, theirs)) or None


def build_sanitized(folder: Path) -> Path | None:
    """Compile the native decoder with sanitizers; None where that is not possible."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    program = folder / "trace_fuzz"
    flags = ["-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
    sources = [str(SOURCES / name) for name in ("decode.cpp", "fuzz.cpp")]
    probe = subprocess.run(
        [compiler, *flags, "-x", "c++", "-", "-o", str(folder / "probe")],
        input=b"int main() {}",
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        return None
    subprocess.run([compiler, *flags, *sources, "-o", str(program)], check=True)
    return program


def run_sanitized(program: Path, seeds: Sequence[bytes], *, inputs: int, seed: int) -> None:
    """Let the sanitized decoder mutate the seeds; raises AssertionError with its report."""
    files = []
    for index, data in enumerate(seeds):
        files.append(program.parent / f"seed{index}.et")
        files[-1].write_bytes(data)
    done = subprocess.run(
        [str(program), str(inputs), str(seed), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert done.stdout.startswith(f"ok: {inputs} inputs"), done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    seed: int = arguments.seed
    half_s = arguments.minutes * 30
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        program = build_sanitized(Path(folder))
        if program is None:
            print("no compiler with sanitizers: only the comparison of both decoders runs")
        inputs = 0
        end = time.monotonic() + half_s
        while program is not None and time.monotonic() < end:
            run_sanitized(program, SEEDS, inputs=100_000, seed=seed + inputs)
            inputs += 100_000
        print(f"sanitizers: {inputs} inputs")
    native = native_decoder()
    random = Random(seed)
    inputs = accepted = 0
    end = time.monotonic() + half_s
    while time.monotonic() < end:
        data = mutation(random, SEEDS)
        found = disagreement(native, data)
        if found is not None:
            print(f"the decoders disagree ({found}) on:\n{data.hex()}")
            return 1
        inputs += 1
        accepted += isinstance(outcome(native, data), RawTrace)
    print(f"both decoders: {inputs} inputs, {accepted} accepted\nok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
