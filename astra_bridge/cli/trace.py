# SPDX-License-Identifier: MIT
"""``astra-bridge trace``: look at traces, check, convert and merge them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from astra_bridge.arguments import path, whole_text
from astra_bridge.cli.command import PER_RANK, Argument, Command, group_of
from astra_bridge.errors import InputError
from astra_bridge.inputs.groups import GroupKey, read_comm_groups
from astra_bridge.simulation.jobs import read_ranks
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import NodeType, TraceColumns, Workload
from astra_bridge.trace.formats import TRACE_FORMATS, Conversion, count_ranks, read_workload
from astra_bridge.trace.kinds import HEAD_BYTES, kind_of_file, what_takes_it
from astra_bridge.trace.reader import groups_path, kind_of_path, read_bytes, read_trace
from astra_bridge.units import parse_size_bytes

__all__ = ["COMMAND"]

_ANY = 2**63 - 1


def _summary(trace: TraceColumns) -> Iterator[str]:
    counts = np.bincount(trace.type, minlength=len(NodeType))
    yield (
        f"{one_line(str(trace.file))}: schema {one_line(trace.version) or 'without version'}, "
        f"{len(trace)} nodes, {len(trace.dep)} dependencies"
    )
    for node_type, count in zip(NodeType, counts, strict=True):
        if count:
            yield f"  {node_type.name:<9} {count}"
    for group in trace.process_groups:
        yield f"  process group {one_line(group.name)}: {list(group.ranks) or 'all ranks'}"


def _node(trace: TraceColumns, i: int) -> str:
    details = trace.read_details(i)
    parents = trace.node_id[trace.dep[trace.dep_start[i] : trace.dep_start[i + 1]]]
    parts = [
        f"{trace.node_id[i]:>6} {NodeType(int(trace.type[i])).name:<9} {one_line(details.name)}"
    ]
    if trace.duration_micros[i]:
        parts.append(f"duration_micros={trace.duration_micros[i]}")
    parts += [f"{one_line(name)}={show(value)}" for name, value in details.attributes.items()]
    if len(parents):
        parts.append(f"after {', '.join(map(str, parents))}")
    return "  ".join(parts)


def _dump(file: Path, first: int, json: bool) -> None:
    if json:
        from astra_bridge.trace.json import et_to_json

        for text in et_to_json(read_bytes(file), file=file):
            print(text)
        return
    trace = read_trace(file)
    for line in _summary(trace):
        print(line)
    shown = min(first or len(trace), len(trace))
    for i in range(shown):
        print(_node(trace, i))
    if shown < len(trace):
        print(f"... {len(trace) - shown} more (--first 0 prints all)")


def _convert(
    inputs: list[Path],
    out: Path,
    et: str | None,
    kineto: str | None,
    ranks: int | None,
    passes: int,
    strict: bool,
    size: int | None,
    manifest: bool,
    **more: str | None,
) -> None:
    if kineto:
        inputs = [*inputs, Path(kineto)]
    elif et:
        inputs, et = [*inputs, Path(et)], None
    if not inputs:
        raise InputError("nothing to convert: give a file, or --kineto and --et", key="INPUTS")
    forced = more["from"] or ("pytorch" if kineto or et else "")
    name = forced or _kind(_first_of(inputs[0]))
    how = Conversion(ranks, passes, et or "", size)
    convert = TRACE_FORMATS.find(name, key="--from").convert
    if convert is None:
        raise InputError(f"traces of format {name} are read, but not converted", key="--from")
    # Millions of small objects that live until they are written: searching them is a tenth.
    gc.disable()
    try:
        workload = convert(inputs, how)
    except InputError as error:
        kind = kind_of_path(_first_of(inputs[0])) if forced else None
        if kind is None or kind.name == forced:
            raise
        file = _first_of(inputs[0])
        raise InputError(f"{error.reason}; {what_takes_it(kind, file)}", file=file) from None
    if strict:
        how.made.refuse()
    if manifest:
        from astra_bridge.cli.workload import write
        from astra_bridge.workload.builder import GeneratedWorkload

        if not isinstance(workload, GeneratedWorkload):
            raise InputError(f"a trace of format {name} has no kinds of ranks", key="--manifest")
        write(workload, out, False)
        written = []
    else:
        written = workload.write(out)
    usage = getattr(workload, "usage", None)
    if not written:
        pass
    elif usage is not None:
        print(f"wrote {written[0]} and the other ranks' ({len(written)} files)\n  {usage(out)}")
    else:
        _say_how_to_run(written, out)
    if lines := how.made.lines():
        print("inferred (--strict refuses):")
        for line in lines:
            print(f"  {line}")


def _size(text: str, name: str) -> int:
    try:
        return parse_size_bytes(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise InputError(str(error), key=name) from None


def _first_of(pattern: Path) -> Path:
    """The first file of a pattern."""
    if "{rank}" not in pattern.name:
        return pattern
    from astra_bridge.sources.pytorch import files_of

    return next(iter(files_of(pattern, "INPUTS").values()))


def _kind(file: Path) -> str:
    """The format of a file, by its content."""
    from astra_bridge.sources.json_list import peek

    kind = kind_of_file(peek(file, HEAD_BYTES))
    if kind is not None and not kind.name:
        raise InputError(what_takes_it(kind, file), file=file)
    return "chakra" if kind is None else kind.name


def _workload(
    prefix: Path, ranks: int | None, groups: Path | None
) -> tuple[Workload, dict[GroupKey, tuple[int, ...]]]:
    """Traces of all ranks that have a file, and the groups of a file beside them."""
    ranks = ranks or max(count_ranks(prefix), 1)
    beside = groups_path(prefix)
    if groups is None and beside.exists():
        groups = beside
    return read_workload(prefix, ranks), read_comm_groups(groups)


def _check(prefix: Path, ranks: int | None, comm_group_configuration: Path | None) -> int:
    from astra_bridge.trace.checking import check_workload

    workload, groups = _workload(prefix, ranks, comm_group_configuration)
    found = check_workload(workload, groups)
    for one in found:
        print(f"{'error' if one.stops else 'warning'}: {one.what}")
        if one.repair:
            print(f"  repair: {one.repair}")
    errors = sum(one.stops for one in found)
    nodes = sum(len(workload.of_rank(rank)) for rank in range(workload.ranks))
    print(
        f"{workload.ranks} ranks, {nodes:,} nodes: {errors} kinds of errors, "
        f"{len(found) - errors} of warnings"
    )
    return 2 if errors else 0


def _show(
    prefix: Path, ranks: int | None, comm_group_configuration: Path | None, first: int
) -> None:
    from astra_bridge.cli.summary import text_table
    from astra_bridge.trace.overview import overview

    found = overview(*_workload(prefix, ranks, comm_group_configuration))
    print(f"{found.ranks} ranks, {found.traces} different traces, {found.nodes:,} nodes\n")
    rows = [
        [name, f"{us.min():,.0f}", f"{us.mean():,.0f}", f"{us.max():,.0f}", f"{us.argmax()}"]
        for name, us in (
            ("GPU compute", found.gpu_ns / 1000), ("CPU", found.cpu_ns / 1000),
        )
    ]  # fmt: skip
    print(text_table(["recorded time [us]", "min", "mean", "max", "max at rank"], rows))
    total = max(int(found.gpu_ns.sum()), 1)
    rows = [
        [
            one.name[:60],
            f"{one.count:,}",
            f"{one.time_ns / 1000:,.0f}",
            f"{one.time_ns / total:.1%}",
        ]
        for one in found.work[: first or None]
    ]
    if rows:
        print(f"\n{text_table(['GPU compute', 'nodes', 'us', 'share'], rows)}")
    if len(found.work) > len(rows):
        print(f"... {len(found.work) - len(rows)} more names (--first 0 shows all)")
    rows = [
        [one.kind, f"{one.members or '?'}", f"{one.count:,}", f"{one.bytes:,}",
         f"{one.time_ns / 1000:,.0f}"]
        for one in found.communication
    ]  # fmt: skip
    if rows:
        header = ["communication", "members", "nodes", "bytes", "recorded us"]
        print(f"\n{text_table(header, rows)}")


def _merge(inputs: list[Path], out: Path, place: list[tuple[int, ...]], per_rank: bool) -> None:
    from astra_bridge.cli.workload import write
    from astra_bridge.workload.merging import Part, merge

    if not inputs:
        raise InputError("nothing to merge: give two prefixes or more", key="INPUTS")
    if place and len(place) != len(inputs):
        raise InputError(
            f"{len(place)} are given for {len(inputs)} inputs: give one for each, in their order",
            key="--place",
        )
    parts = []
    for index, prefix in enumerate(inputs):
        ranks = place[index] if place else None
        count = count_ranks(prefix) or len(ranks or ())
        if not count:
            # The reader says what there is in place of a workload.
            read_workload(prefix, 1)
            raise InputError(
                "the files do not say how many ranks they are of: give their places",
                file=prefix, key="--place",
            )  # fmt: skip
        parts.append(Part(*_workload(prefix, count, None), ranks, str(prefix)))
    write(merge(parts), out, per_rank)


def _say_how_to_run(written: list[Path], prefix: Path) -> None:
    traces = [
        file for file in written if str(file).startswith(f"{prefix}.") and file.suffix == ".et"
    ]
    if not traces:
        print(f"wrote {', '.join(map(str, written))}")
        return
    print(f"wrote {traces[0]} and the other ranks' ({len(traces)} files); to run them:")
    print(f"  --workload-configuration={prefix}")
    for file in written:
        if file not in traces:
            print(f"  --comm-group-configuration={file}")


_SET = (
    Argument("PREFIX", "", "Traces PREFIX.0.et, PREFIX.1.et, ..., or what else `run` takes.", path),
)
_SET_OPTIONS = (
    Argument("--ranks", "COUNT", "Number of ranks.", whole_text(1, _ANY),
             otherwise="those with a file"),
    Argument("--comm-group-configuration", "FILE", "Communicator groups (JSON).", path,
             otherwise="PREFIX.comm_group.json, if it is there"),
)  # fmt: skip

COMMAND = group_of(
    "Look at traces, check and convert them.",
    {
        "check": Command(
            "Say what is wrong with the traces of all ranks, and which repair would help.",
            {"arguments": _SET, "options": _SET_OPTIONS},
            _check,
            "trace check out/step",
            "Exit code 2 where something would stop a simulation.",
            work="checking the traces",
        ),
        "show": Command(
            "Show where the time and the bytes of the traces of all ranks are.",
            {
                "arguments": _SET,
                "options": (
                    *_SET_OPTIONS,
                    Argument("--first", "COUNT", "So many names of compute nodes; 0 shows all.",
                             whole_text(0, _ANY), default=10),
                ),
            },
            _show,
            "trace show out/step",
            work="reading the traces",
        ),
        "merge": Command(
            "Join the workloads of several jobs to one.",
            {
                "arguments": (
                    Argument("[INPUTS]", "", "Prefixes, or what else `run` takes; groups are those "
                             "of PREFIX.comm_group.json.", path, repeated=True),
                    Argument("OUT", "", "Prefix of the files: OUT.manifest.json, OUT.kind0.et, "
                             "...", path),
                ),
                "options": (
                    Argument("--place", "RANKS", "The ranks that those of an input become, as in "
                             "0-3,8; once for each input, in their order.", read_ranks,
                             otherwise="one input behind another", repeated=True),
                    PER_RANK,
                ),
            },
            _merge,
            "trace merge out/train out/serve out/both --place 0-7 --place 8-15",
            work="merging the traces",
        ),
        "dump": Command(
            "Print a summary of a trace and its nodes.",
            {
                "arguments": (
                    Argument("FILE", "", "Trace: .et (gzip-compressed or not) or Chakra JSON.",
                             path),
                ),
                "options": (
                    Argument("--first", "COUNT", "Print that many nodes; 0 prints all.",
                             whole_text(0, _ANY), default=20),
                    Argument("--json", "", "Print everything as Chakra JSON.", default=False),
                ),
            },
            _dump,
            "trace dump out/ring.0.et --first 0",
        ),
        "convert": Command(
            "Convert what other tools record or write to Chakra traces of all ranks; a Chakra "
            "trace to JSON and back.",
            {
                "arguments": (
                    Argument("[INPUTS]", "", "Files, or a pattern with {rank}; the format is found "
                             "by the content.", path, repeated=True),
                    Argument("OUT", "", "Prefix of the traces; for a Chakra trace an .et or .json "
                             "file.", path),
                ),
                "options, for recordings of PyTorch": (
                    Argument("--kineto", "PATTERN", "Kineto's traces: kineto.{rank}.json.gz."),
                    Argument("--et", "PATTERN", "Execution traces of the same step: "
                             "et.{rank}.json.gz."),
                    Argument("--strict", "", "Refuse what had to be inferred.", default=False),
                ),
                "options": (
                    Argument("--from", "FORMAT", "Format of the input.",
                             otherwise="by its content"),
                    Argument("--ranks", "COUNT", "Number of ranks, where one file stands for all.",
                             whole_text(1, _ANY)),
                    Argument("--size", "SIZE", "Size of the buffer of an MSCCL algorithm.",
                             _size),
                    Argument("--passes", "COUNT", "Training steps, of a text workload.",
                             whole_text(1, _ANY), default=1),
                    Argument("--manifest", "", "Write one trace for each kind of rank, and "
                             "OUT.manifest.json; of text workloads and schedules.", default=False),
                ),
            },
            _convert,
            "trace convert --kineto 'kineto.{rank}.json.gz' \\\n"
            "      --et 'et.{rank}.json.gz' out/step",
            work="converting the traces",
        ),
    },
)  # fmt: skip
