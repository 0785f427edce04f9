# SPDX-License-Identifier: MIT
"""Time and memory of whole commands, beside ASTRA-sim's: ``python benchmarks/speed.py [--quick]``.

``--scale`` runs the rows of many ranks alone.

``--against PYTHON`` runs the same commands with another installation, in turn with ours, and prints
the ratios.

A row is one command in a process of its own: CPU seconds (user + system, start of Python included)
and peak resident memory, the least of several runs.  The answer of every simulation is checked.
The inputs are made by the benchmark.  "ASTRA-sim" is the same work on ASTRA-sim 2.0 (C++, stock
build), measured once on the same kind of machine.
"""

from __future__ import annotations

# Only small modules here: a child's peak memory starts with its parent's size.
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_FINISH = re.compile(rb"sys\[0\] finished, (\d+) cycles")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    work : str
    inputs : str
        A name of `make_inputs`, or nothing.
    arguments : tuple of str
        What follows ``python``; FOLDER stands for the folder of the inputs.
    astra_sim, target : str
        As printed.
    finish_ns : int, optional
        The right answer of rank 0.
    long : bool
        Left out by ``--quick``.
    scale : bool
        One of those that ``--scale`` chooses.
    needs : str
        A package without which it is left out.
    """

    work: str
    inputs: str
    arguments: tuple[str, ...]
    astra_sim: str = ""
    target: str = ""
    finish_ns: int | None = None
    long: bool = False
    scale: bool = False
    needs: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether this Python has what it needs."""
        return not self.needs or find_spec(self.needs) is not None


def run(*flags: str) -> tuple[str, ...]:
    """``astra-bridge run`` with these flags."""
    return (
        *("-m", "astra_bridge", "run"),
        "--workload-configuration=FOLDER/trace",
        "--system-configuration=FOLDER/system.json",
        "--network-configuration=FOLDER/network.yml",
        "--remote-memory-configuration=FOLDER/memory.json",
        *flags,
    )


_READ = "from astra_bridge.trace import read_workload; read_workload('FOLDER/trace', 1)"
_MODEL = (
    "import subprocess, sys\n"
    "def run(*what): subprocess.run([sys.executable, '-m', 'astra_bridge', *what], check=True)\n"
    "run('workload', 'model', 'llama-3.1-405b', '--gpu=h100-sxm', '--tp=8', '--pp=16',"
    " '--dp=128', '--global-batch-size=2048', '--sequence-length=8192', '-o', 'FOLDER/trace')\n"
    f"run(*{run('--backend=analytical-aware', '--semantics=corrected')[2:]!r})"
)
"""Two commands in a process: it takes what both take."""
_GROUPS = "--comm-group-configuration=FOLDER/trace.comm_group.json"

ROWS = (
    Row(
        "ring all-reduce 1 GiB, 4 chunks, Ring 1024, unaware",
        "ring1024",
        run("--backend=analytical-unaware"),
        "9.8 s, 365 MB",
        "0.6 s, 120 MB",
        108_478_960,
    ),
    Row(
        "the same, aware",
        "ring1024",
        run("--backend=analytical-aware"),
        "13.5 s, 365 MB",
        "0.8 s, 120 MB",
        108_478_960,
    ),
    Row(
        "the same, aware, `--fold=off`: all ranks run",
        "ring1024",
        run("--backend=analytical-aware", "--fold=off"),
        "13.5 s, 365 MB",
        "0.25 s",
        108_478_960,
    ),
    Row(
        "the same, and `--wavefront=off`: message by message",
        "ring1024",
        run("--backend=analytical-aware", "--fold=off", "--wavefront=off"),
        "13.5 s, 365 MB",
        "0.8 s, 120 MB",
        108_478_960,
    ),
    Row(
        "ring all-reduce 1 GiB, 16 chunks, [Ring 16, Ring 16, Switch 16], unaware",
        "ring4096",
        run("--backend=analytical-unaware"),
        "38.7 s, 293 MB",
        "2.5 s, 150 MB",
        49_071_520,
    ),
    Row(
        "the same, `--fold=off`",
        "ring4096",
        run("--backend=analytical-unaware", "--fold=off"),
        "38.7 s, 293 MB",
        "2.5 s, 150 MB",
        49_071_520,
    ),
    Row(
        "ring all-reduce 1 GiB, 4 chunks, Ring 16,384, aware",
        "ring16384",
        run("--backend=analytical-aware"),
        "",
        "1 s",
        171_104_092,
        scale=True,
    ),
    Row(
        "the same, Ring 65,536",
        "ring65536",
        run("--backend=analytical-aware"),
        "",
        "5 s",
        370_928_140,
        scale=True,
    ),
    *(
        Row(
            f"ring all-reduce 1 GiB, 4 chunks, Ring {ranks:,}, aware, `--fold=off`",
            f"ring{ranks}",
            run("--backend=analytical-aware", "--fold=off"),
            "",
            target,
            finish_ns,
        )
        for ranks, target, finish_ns in ((16_384, "1 s", 171_104_092), (65_536, "5 s", 370_928_140))
    ),
    *(
        Row(
            "ring all-reduce 1 GiB, 16 chunks, 1,048,576 ranks [Ring 8, Switch 512, Switch 256], "
            + name,
            "hierarchy",
            run(f"--backend={name}"),
            "",
            target,
            finish_ns,
            scale=True,
        )
        for name, target, finish_ns in (
            ("analytical-unaware", "5 s, 1 GB", 19_309_834),
            ("analytical-aware", "5 s, 1 GB", 22_006_225),
        )
    ),
    Row(
        "direct all-to-all 1 GiB, Switch 4,096, aware",
        "direct4096",
        run("--backend=analytical-aware"),
        "",
        "5 s, 0.7 GB",
        19_997_692,
        scale=True,
    ),
    Row(
        "the same, `--fold=off`",
        "direct4096",
        run("--backend=analytical-aware", "--fold=off"),
        "",
        "5 s, 0.7 GB",
        19_997_692,
        long=True,
        scale=True,
    ),
    Row(
        "the same, Switch 16,384",
        "direct16384",
        run("--backend=analytical-aware"),
        "",
        "",
        19_989_500,
        scale=True,
    ),
    Row(
        "Llama-3.1-405B, a step of 16,384 ranks: tensor 8, pipeline 16, data 128; traces from its "
        "configuration, and their run, aware",
        "llama",
        ("-c", _MODEL),
        "",
        "20 s, 2 GB",
        scale=True,
    ),
    Row(
        "training step, 128 layers, 16,384 ranks: tensor 8, pipeline 16, data 128, aware",
        "training",
        run("--backend=analytical-aware"),
        "",
        "20 s, 2 GB",
        scale=True,
    ),
    Row(
        "direct all-to-all 256 MiB, 4 chunks, Switch 256, aware",
        "direct256",
        run("--backend=analytical-aware"),
        "2.1 s",
        "0.2 s",
        5_003_248,
    ),
    Row(
        "64 ranks x 20,000 nodes, Ring 64, unaware",
        "train64",
        run("--backend=analytical-unaware"),
        "> 500 s, 1.4 GB",
        "10 s, 200 MB",
        704_445_000,  # the first compute, then 10,000 all-reduces of 70,444 ns
        long=True,
    ),
    Row(
        "the same, `--fold=off`",
        "train64",
        run("--backend=analytical-unaware", "--fold=off"),
        "> 500 s, 1.4 GB",
        "10 s, 200 MB",
        704_445_000,
        long=True,
    ),
    Row(
        "ring all-reduce 1 MiB, 4 chunks, Ring 8, aware",
        "ring8",
        run("--backend=analytical-aware"),
        "0.01 s",
        "0.4 s",
        117_780,
    ),
    Row(
        "ns-3: ring all-reduce 64 MiB, 8 hosts, `fast_forward=exact`",
        "ns3",
        (
            *("-m", "astra_bridge", "run", "--backend=ns3", "--network-option=fast_forward=exact"),
            "--workload-configuration=FOLDER/trace",
            "--system-configuration=FOLDER/system.json",
            "--network-configuration=FOLDER/config.txt",
            "--physical-topology=FOLDER/topology.txt",
        ),
        "3.4 s, 63 MB",
        "0.2 s",
        2_805_024,
        scale=True,
        needs="ns3",
    ),
    Row("`import astra_bridge`", "", ("-c", "import astra_bridge"), "", "0.15 s"),
    Row("read a trace of 1,000,000 nodes", "million", ("-c", _READ), "", "5 s, 500 MB", long=True),
    Row(
        "ring all-reduce 1 GiB, 4 chunks, Ring 64, aware: engine and network in pure Python",
        "ring64",
        run("--backend=analytical-aware-python", "--engine=python"),
        "",
        "3 s",
        103_049_896,
    ),
    *(
        Row(
            f"2048 pairs of ranks x 320 all-reduces, sizes: {times:,}",
            f"pairs{times}",
            run("--backend=analytical-unaware", _GROUPS),
            long=True,
        )
        for times in (1, 32, 2048)
    ),
)


def make_inputs(name: str, folder: Path) -> None:
    """Write the inputs of a row (in a process of its own: it takes memory)."""
    from astra_bridge.trace import CommType
    from astra_bridge.workload import GeneratedWorkload, TraceBuilder
    from astra_bridge.workload import collective as alike

    sys.path.insert(0, str(Path(__file__).parents[1]))  # where a script does not look

    def write(
        workload: GeneratedWorkload,
        topology: list[str],
        counts: list[int],
        algorithm: str = "ring",
        **system: object,
    ) -> None:
        # A file per rank, as ASTRA-sim has them, but where these would be a million.
        many = workload.ranks > 4096
        workload.write_kinds(folder / "trace") if many else workload.write(folder / "trace")
        dims = len(counts)
        kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
        text: dict[str, object] = {
            "scheduling-policy": "LIFO",
            "endpoint-delay": 10,
            "active-chunks-per-dimension": 1,
            "preferred-dataset-splits": 4,
            "collective-optimization": "localBWAware",
            "local-mem-bw": 50,
            **{f"{kind}-implementation": [algorithm] * dims for kind in kinds},
            **{key.replace("_", "-"): value for key, value in system.items()},
        }
        (folder / "system.json").write_text(json.dumps(text, indent=1))
        (folder / "memory.json").write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
        (folder / "network.yml").write_text(
            f"topology: [ {', '.join(topology)} ]\n"
            f"npus_count: {counts}\n"
            f"bandwidth: {[50.0] * dims}\n"
            f"latency: {[500.0] * dims}\n"
        )

    def collective(size_bytes: int, ranks: int, kind: CommType) -> GeneratedWorkload:
        trace = TraceBuilder()
        trace.coll(kind, size_bytes)
        return GeneratedWorkload((trace,) * ranks)

    def overlapping(nodes: int, ranks: int) -> GeneratedWorkload:
        """Compute, then an all-reduce that overlaps with the next compute, and so on."""
        trace = TraceBuilder()
        compute: list[int] = []
        for _ in range(nodes // 2):
            compute = [trace.comp(duration_us=5, deps=compute)]
            trace.coll(CommType.ALL_REDUCE, 65536, deps=compute)
        return GeneratedWorkload((trace,) * ranks)

    def pairs(times: int) -> GeneratedWorkload:
        """Neighbours all-reduce; the size of their data tells one pair's times from another's."""
        traces: list[TraceBuilder] = []
        for pair in range(2048):
            trace = TraceBuilder()
            for _ in range(20):
                # 2048 bytes are 64 per message, which is more than a ns.
                size_bytes = 2**20 + 2048 * (pair % times)
                trace.coll(CommType.ALL_REDUCE, size_bytes, group=pair + 1)
            traces += [trace, trace]
        groups: dict[int, tuple[int, ...]] = {
            pair + 1: (2 * pair, 2 * pair + 1) for pair in range(2048)
        }
        return GeneratedWorkload(tuple(traces), groups)

    if name == "ns3":
        from benchmarks import bench_ns3

        folder.mkdir(exist_ok=True)
        bench_ns3.write_inputs("allreduce8", folder)
    elif name.startswith("pairs"):
        times = int(name.removeprefix("pairs"))
        write(pairs(times), ["Ring"], [4096], preferred_dataset_splits=16)
    elif name == "ring4096":
        write(
            collective(2**30, 4096, CommType.ALL_REDUCE),
            ["Ring", "Ring", "Switch"],
            [16, 16, 16],
            preferred_dataset_splits=16,
            active_chunks_per_dimension=2,
        )
    elif name == "hierarchy":
        write(
            alike("all-reduce", 2**30, 8 * 512 * 256),
            ["Ring", "Switch", "Switch"],
            [8, 512, 256],
            preferred_dataset_splits=16,
            active_chunks_per_dimension=2,
            local_mem_bw=3350,
        )
        (folder / "network.yml").write_text(
            "topology: [ Ring, Switch, Switch ]\nnpus_count: [ 8, 512, 256 ]\n"
            "bandwidth: [ 400.0, 50.0, 50.0 ]\nlatency: [ 500.0, 1000.0, 2000.0 ]\n"
        )
    elif name == "llama":
        # The traces are made by the row's own commands.
        write(collective(1, 1, CommType.ALL_REDUCE), ["Switch", "Switch"], [8, 2048])
        (folder / "network.yml").write_text(
            "topology: [ Switch, Switch ]\nnpus_count: [ 8, 2048 ]\n"
            "bandwidth: [ 419.0, 46.0 ]\nlatency: [ 500.0, 2000.0 ]\n"
        )
    elif name == "training":
        from benchmarks.transformer import Transformer, transformer

        model = Transformer(
            layers=128, hidden=16384, sequence=8192, micro_batches=16, data=128, tensor=8,
            pipeline=16,
        )  # fmt: skip
        roofline = {"roofline_enabled": 1, "peak_perf": 900, "local_mem_bw": 3350}
        write(transformer(model), ["Switch", "Switch"], [8, 2048], **roofline)
    elif name == "direct256":
        write(collective(2**28, 256, CommType.ALL_TO_ALL), ["Switch"], [256], "direct")
    elif name.startswith("direct"):
        ranks = int(name.removeprefix("direct"))
        work = alike("all-to-all", 2**30, ranks)
        write(work, ["Switch"], [ranks], "direct", preferred_dataset_splits=1)
    elif name == "train64":
        write(overlapping(20_000, 64), ["Ring"], [64], preferred_dataset_splits=1)
    elif name == "million":
        overlapping(1_000_000, 1).write(folder / "trace")
    else:
        ranks = int(name.removeprefix("ring"))
        size_bytes = 2**20 if ranks == 8 else 2**30
        write(collective(size_bytes, ranks, CommType.ALL_REDUCE), ["Ring"], [ranks])


def measure(
    python: str, arguments: list[str], finish_ns: int | None, environment: dict[str, str]
) -> tuple[float, float]:
    """CPU seconds and peak resident MB (10**6) of ``python arguments``; checks the answer."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [python, *arguments], stdout=output, env=environment, cwd=tempfile.gettempdir()
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"exit code {child.returncode}: python {' '.join(arguments)}")
        if finish_ns is not None:
            output.seek(0)
            found = _FINISH.search(output.read(1 << 26))  # a million ranks say more
            if found is None or int(found[1]) != finish_ns:
                answer = found[1].decode() if found else "nothing"
                raise SystemExit(f"{answer} instead of {finish_ns}: python {' '.join(arguments)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two runs each, no long rows")
    parser.add_argument("--scale", action="store_true", help="the rows of many ranks alone")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the least counts")
    parser.add_argument("--against", metavar="PYTHON", help="another installation's")
    parser.add_argument("--rows", default="", help="only rows whose work has this in it")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_inputs(options.make[0], Path(options.make[1]))
        return
    runs = 2 if options.quick else options.runs
    pythons = [sys.executable, *([options.against] if options.against else [])]
    more = " the other's CPU s | ratio |" if options.against else ""
    rule = "---|" * (7 if more else 5)
    print(f"| work | ASTRA-sim C++ | target | CPU s | peak MB |{more}\n|{rule}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        # Modules are compiled once, as after an installation, also where the tree is read-only.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(name, "pycache"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for row in ROWS:
            left_out = (options.quick and row.long) or (options.scale and not row.scale)
            if left_out or options.rows not in row.work or not row.is_possible:
                continue
            folder = str(Path(name, row.inputs))
            if row.inputs and not Path(folder).exists():
                subprocess.run([sys.executable, __file__, "--make", row.inputs, folder], check=True)
            arguments = [argument.replace("FOLDER", folder) for argument in row.arguments]
            measured: list[list[tuple[float, float]]] = [[] for _ in pythons]
            for _ in range(runs):
                for python, done in zip(pythons, measured, strict=True):
                    done.append(measure(python, arguments, row.finish_ns, environment))
            cpu_s, peak_MB = (min(column) for column in zip(*measured[0], strict=True))
            line = f"| {row.work} | {row.astra_sim} | {row.target} | {cpu_s:.2f} | {peak_MB:.0f} |"
            if options.against:
                other_s = min(cpu for cpu, _ in measured[1])
                line += f" {other_s:.2f} | {cpu_s / other_s:.2f} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
