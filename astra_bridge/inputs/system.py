# SPDX-License-Identifier: MIT
"""The system configuration (JSON): how collectives are cut, scheduled and run on each rank.

Every key of ASTRA-sim, under its own name; docs/formats/system.md explains each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from astra_bridge.arguments import (
    check_fields,
    choice,
    flag,
    instance,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    path,
    positive,
    source_file,
    text,
)
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import (
    MAX_TIME_NS,
    check_keys,
    convert,
    load_json,
    nearest,
    path_or_name,
    resolve,
    show,
    whole,
)
from astra_bridge.inputs.custom import read_per_node_custom
from astra_bridge.inputs.nccl import NcclSettings, read_nccl
from astra_bridge.records import Record, Sourced, field, replace
from astra_bridge.semantics import Semantics

__all__ = [
    "COLLECTIVES",
    "FLAGS",
    "SystemConfig",
    "SystolicArray",
    "read_system",
]

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all")
"""Collectives that have an implementation key."""

FLAGS = ("roofline-enabled", "replay-only", "trace-enabled", "track-local-mem")
"""Flags that ASTRA-sim tests with ``!= 0``."""

CollectiveOptimization = Literal["baseline", "localBWAware"]
Dataflow = Literal["ws", "os", "is"]


def check_output_name(name: str, key: str, file: Path | None = None) -> None:
    """Refuse a name of files to be written that leads out of the folder of outputs.

    Raises
    ------
    InputError
        It is empty, absolute, has a ".." or a NUL.
    """
    path = PurePath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(
            f"{show(name)} is not allowed; allowed: a name, or a relative path without '..': "
            "files stay in the folder of outputs",
            file=file,
            key=key,
        )


_IGNORED = {
    "boost-mode": "ASTRA-sim 2.0 reads no such key",
    "intra-dimension-scheduling": "ASTRA-sim 2.0 reads no such key; chunks of a dimension are FIFO",
}


class SystolicArray(Record, frozen=True):
    """A systolic array of multiply-accumulate units, for ``compute_model`` systolic or scalesim.

    Attributes
    ----------
    rows, columns
        Size of the array.
    dataflow
        What stays in the array: "ws" weights, "os" outputs, "is" inputs.
    frequency_GHz
        Clock; one cycle is 1 / frequency_GHz ns.
    """

    rows: int = 128
    columns: int = 128
    dataflow: Dataflow = "ws"
    frequency_GHz: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, _SYSTOLIC_FIELDS)


class SystemConfig(Sourced, frozen=True, eq=False):
    """The system configuration.

    Attributes
    ----------
    scheduling_policy
        Order of waiting collectives: "LIFO", "FIFO", "EXPLICIT", or a plug-in's.
    collective_optimization
        How an all-reduce over several dimensions is cut into phases.
    preferred_dataset_splits
        Chunks per collective.
    active_chunks_per_dimension
        Chunks that run at the same time in a dimension.
    endpoint_delay_ns
        Cost of one message at an endpoint, before sending and after receiving.
        ``injection_scale`` multiplies it only where the key is present (:attr:`present`).
    local_mem_bw_GBps
        Bandwidth of the local memory, decimal GB/s; 0 makes reductions free.
    local_reduction_delay_ns, model_shared_bus, L_ns, o_ns, g_ns, G_ns_per_byte
        The LogGP model of the shared bus.
    peak_perf_TFLOPS
        Peak of the roofline.
    roofline_enabled, replay_only, trace_enabled, track_local_mem
        What the file says; :meth:`enabled` says what ASTRA-sim makes of it.
    flags_raw
        The four flags as written, by their name in the file; absent where the file has none.
    local_mem_trace_filename
        Prefix of the files of ``track-local-mem``.
    implementations
        Collective ("all-reduce", ...) -> name of an algorithm per network dimension.
    custom
        Collective -> prefix of the trace files of a custom algorithm.
    per_node_custom
        Workload node id -> prefix of the trace files of a custom algorithm.
    compute_model
        How GPU compute nodes are timed: "trace", "roofline", "systolic", "scalesim", "gpu",
        "measured", or a plug-in's name; None follows ``roofline-enabled``.
    hardware
        Accelerator of the model gpu: a name, or the path of a profile.
    measured_kernels
        CSV file of the model measured.
    systolic_array
        Parameters of the systolic models.
    inter_dimension_scheduling
        "baseline", "themis" (each chunk chooses the order of dimensions greedily), or a plug-in's.
    nccl
        What is forced on collectives of the algorithm "nccl".
    present
        Keys that the file has; None in memory, where every field is meant.
    source
        The file.
    warnings
        Sentences for the user.
    """

    scheduling_policy: str = "LIFO"
    collective_optimization: CollectiveOptimization = "baseline"
    preferred_dataset_splits: int = 1
    active_chunks_per_dimension: int = 1
    endpoint_delay_ns: int = 10
    local_mem_bw_GBps: float = 0.0
    local_reduction_delay_ns: int = 1
    model_shared_bus: bool = False
    L_ns: float = 0.0
    o_ns: float = 0.0
    g_ns: float = 0.0
    G_ns_per_byte: float = 0.0
    peak_perf_TFLOPS: float = 0.0
    roofline_enabled: bool = False
    replay_only: bool = False
    trace_enabled: bool = False
    track_local_mem: bool = False
    flags_raw: Mapping[str, bool | int | float] = field(default_factory=dict)
    local_mem_trace_filename: str = "local_mem_trace"
    implementations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    custom: Mapping[str, str] = field(default_factory=dict)
    per_node_custom: Mapping[int, str] = field(default_factory=dict)
    compute_model: str | None = None
    hardware: str | None = None
    measured_kernels: str | None = None
    systolic_array: SystolicArray = field(default_factory=SystolicArray)
    inter_dimension_scheduling: str = "baseline"
    nccl: NcclSettings = field(default_factory=NcclSettings)
    present: frozenset[str] | None = None
    source: Path | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _FIELDS)
        check_output_name(self.local_mem_trace_filename, "SystemConfig.local_mem_trace_filename")

    def enabled(self, flag: str, semantics: Semantics | str = "astra-sim") -> bool:
        """Whether one of :data:`FLAGS` is on.

        ASTRA-sim compares the JSON value with the number 0, from which ``false`` differs: there,
        ``false`` switches a flag on.  Without this quirk, ``false`` is what it says.
        """
        if self.flags_raw.get(flag) is False and "false-is-on" in Semantics.of(semantics):
            return True
        return bool(getattr(self, flag.replace("-", "_")))

    def timed_by(self, semantics: Semantics | str = "astra-sim") -> str:
        """Name of the compute model."""
        if self.compute_model is not None:
            return self.compute_model
        return "roofline" if self.enabled("roofline-enabled", semantics) else "trace"


_MOST = 2**31 - 1
_TIME = integer(0, MAX_TIME_NS)
_QUANTITY = number(0, 1e30)
_SYSTOLIC_FIELDS = {
    "rows": integer(1, _MOST),
    "columns": integer(1, _MOST),
    "dataflow": choice(*get_args(Dataflow)),
    "frequency_GHz": positive(1e30),
}
_FIELDS = {
    "scheduling_policy": text,
    "collective_optimization": choice(*get_args(CollectiveOptimization)),
    "preferred_dataset_splits": integer(1, _MOST),
    "active_chunks_per_dimension": integer(1, _MOST),
    "endpoint_delay_ns": _TIME,
    "local_mem_bw_GBps": _QUANTITY,
    "local_reduction_delay_ns": _TIME,
    "model_shared_bus": flag,
    "L_ns": _QUANTITY,
    "o_ns": _QUANTITY,
    "g_ns": _QUANTITY,
    "G_ns_per_byte": _QUANTITY,
    "peak_perf_TFLOPS": _QUANTITY,
    "roofline_enabled": flag,
    "replay_only": flag,
    "trace_enabled": flag,
    "track_local_mem": flag,
    "flags_raw": mapping_of(choice(*FLAGS), instance(bool, int, float)),
    "local_mem_trace_filename": text,
    "implementations": mapping_of(choice(*COLLECTIVES), list_of(text)),
    "custom": mapping_of(choice(*COLLECTIVES), text),
    "per_node_custom": mapping_of(integer(0, 2**63 - 1), text),
    "compute_model": optional(text),
    "hardware": optional(text),
    "measured_kernels": optional(text),
    "systolic_array": instance(SystolicArray),
    "inter_dimension_scheduling": text,
    "nccl": instance(NcclSettings),
    "present": optional(instance(frozenset, set)),
    "source": optional(path),
    "warnings": list_of(text),
}


_Count = (
    Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    | Annotated[float, msgspec.Meta(ge=1, le=2**31 - 1)]
)
_TimeNs = (
    Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_NS)]
    | Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_NS)]
)
_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]
_NonNegative = Annotated[float, msgspec.Meta(ge=0, le=1e30)]
_BusTimeNs = Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_NS)]
_Flag = bool | int | float
_Names = str | list[str]


class _SystolicFile(msgspec.Struct, rename={"frequency_GHz": "frequency-GHz"}):
    rows: _Count = 128
    columns: _Count = 128
    dataflow: Dataflow = "ws"
    frequency_GHz: _Positive = 1.0


class _SystemFile(msgspec.Struct, rename="kebab"):
    """The file, key by key."""

    scheduling_policy: str = "LIFO"
    collective_optimization: CollectiveOptimization = "baseline"
    preferred_dataset_splits: _Count = 1
    active_chunks_per_dimension: _Count = 1
    endpoint_delay: _TimeNs = 10
    local_mem_bw: _NonNegative = 0.0
    local_reduction_delay: _TimeNs = 1
    model_shared_bus: _Flag = 0
    L: _BusTimeNs = msgspec.field(default=0.0, name="L")
    o: _BusTimeNs = msgspec.field(default=0.0, name="o")
    g: _BusTimeNs = msgspec.field(default=0.0, name="g")
    G: _NonNegative = msgspec.field(default=0.0, name="G")
    peak_perf: _NonNegative = 0.0
    roofline_enabled: _Flag = 0
    replay_only: _Flag = 0
    trace_enabled: _Flag = 0
    track_local_mem: _Flag = 0
    local_mem_trace_filename: str = "local_mem_trace"
    all_reduce_implementation: _Names | None = None
    reduce_scatter_implementation: _Names | None = None
    all_gather_implementation: _Names | None = None
    all_to_all_implementation: _Names | None = None
    all_reduce_implementation_custom: _Names | None = None
    reduce_scatter_implementation_custom: _Names | None = None
    all_gather_implementation_custom: _Names | None = None
    all_to_all_implementation_custom: _Names | None = None
    per_node_custom_implementation: str | None = None
    compute_model: str | None = None
    hardware: str | None = None
    measured_kernels: str | None = None
    systolic_array: _SystolicFile | None = None
    inter_dimension_scheduling: str = "baseline"
    nccl: dict[str, Any] | None = None


_KEYS = tuple(item.encode_name for item in msgspec.structs.fields(_SystemFile))
_SYSTOLIC_KEYS = tuple(item.encode_name for item in msgspec.structs.fields(_SystolicFile))


def read_system(source: str | Path | Mapping[str, Any] | SystemConfig) -> SystemConfig:
    """Read a system configuration.

    Parameters
    ----------
    source
        Path of the JSON file, its content, or an already read configuration.

    Raises
    ------
    InputError
        The file cannot be read, or a key or value is not understood.
    """
    if isinstance(source, SystemConfig):
        return source
    file = source_file(source, "system")
    raw = load_json(file) if file is not None else source
    warnings = check_keys(raw, _KEYS, file=file, ignored=_IGNORED)
    # null is as good as absent; ASTRA-sim ends with a type error.
    raw = {key: value for key, value in cast("dict[str, Any]", raw).items() if value is not None}
    _check_names(raw, file)
    if "systolic-array" in raw:
        warnings += check_keys(
            raw["systolic-array"], _SYSTOLIC_KEYS, file=file, where="systolic-array"
        )
    read = convert(raw, _SystemFile, file=file)
    check_output_name(read.local_mem_trace_filename, "local-mem-trace-filename", file)

    def count(key: str, value: float | int) -> int:
        return whole(value, key=key, file=file, warnings=warnings)

    flags_raw: dict[str, bool | int | float] = {key: raw[key] for key in FLAGS if key in raw}
    systolic = read.systolic_array or _SystolicFile()
    config = SystemConfig(
        scheduling_policy=read.scheduling_policy,
        collective_optimization=read.collective_optimization,
        preferred_dataset_splits=count("preferred-dataset-splits", read.preferred_dataset_splits),
        active_chunks_per_dimension=count(
            "active-chunks-per-dimension", read.active_chunks_per_dimension
        ),
        endpoint_delay_ns=count("endpoint-delay", read.endpoint_delay),
        local_mem_bw_GBps=float(read.local_mem_bw),
        local_reduction_delay_ns=count("local-reduction-delay", read.local_reduction_delay),
        # Exactly 1, after ASTRA-sim's conversion to int, switches the bus on.
        model_shared_bus=math.trunc(read.model_shared_bus) == 1,
        L_ns=float(read.L),
        o_ns=float(read.o),
        g_ns=float(read.g),
        G_ns_per_byte=float(read.G),
        peak_perf_TFLOPS=float(read.peak_perf),
        roofline_enabled=bool(read.roofline_enabled),
        replay_only=bool(read.replay_only),
        trace_enabled=bool(read.trace_enabled),
        track_local_mem=bool(read.track_local_mem),
        flags_raw=flags_raw,
        local_mem_trace_filename=read.local_mem_trace_filename,
        implementations=_implementations(raw, file),
        custom=_custom(raw, file),
        compute_model=read.compute_model,
        hardware=path_or_name(read.hardware, file),
        measured_kernels=None
        if read.measured_kernels is None
        else resolve(read.measured_kernels, file),
        systolic_array=SystolicArray(
            count("systolic-array.rows", systolic.rows),
            count("systolic-array.columns", systolic.columns),
            systolic.dataflow,
            float(systolic.frequency_GHz),
        ),
        inter_dimension_scheduling=read.inter_dimension_scheduling,
        nccl=read_nccl(read.nccl, file),
        present=frozenset(raw),
        source=file,
        warnings=tuple(warnings),
    )
    if read.per_node_custom_implementation is not None:
        path = resolve(read.per_node_custom_implementation, file)
        config = replace(config, per_node_custom=read_per_node_custom(path))
    return config


def _check_names(raw: Mapping[str, Any], file: Path | None) -> None:
    """Enumerated values, before msgspec, whose message does not say what is allowed."""
    key, names = "collective-optimization", get_args(CollectiveOptimization)
    value = raw.get(key)
    if value is not None and value not in names:
        hint = nearest(value, names) if isinstance(value, str) else ""
        raise InputError(
            f"{show(value)} is not allowed; allowed: {', '.join(names)}{hint}", file=file, key=key
        )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _implementations(raw: Mapping[str, Any], file: Path | None) -> dict[str, tuple[str, ...]]:
    result = {}
    for collective in COLLECTIVES:
        key = f"{collective}-implementation"
        if key not in raw:
            continue
        names = _list(raw[key])
        if not names:
            raise InputError("the list is empty; one algorithm per dimension", file=file, key=key)
        try:
            result[collective] = list_of(text)(names, key)
        except InputError as error:
            raise InputError(error.reason, file=file, key=error.key) from None
    return result


def _custom(raw: Mapping[str, Any], file: Path | None) -> dict[str, str]:
    result = {}
    for collective in COLLECTIVES:
        key = f"{collective}-implementation-custom"
        if key not in raw:
            continue
        prefixes = _list(raw[key])
        if len(prefixes) != 1 or not prefixes[0]:
            raise InputError(
                f"expected a list of exactly one prefix of trace files, found {show(prefixes)}; "
                "one set of files covers all dimensions",
                file=file,
                key=key,
            )
        result[collective] = resolve(prefixes[0], file)
    return result
