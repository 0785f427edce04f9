# SPDX-License-Identifier: MIT
"""What a file is, by its first bytes: so that the wrong kind is named, with what takes it."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "ASTRA_SIM_1",
    "EXECUTION_TRACE",
    "HEAD_BYTES",
    "GOAL",
    "KINDS",
    "KINETO",
    "MSCCL",
    "SIMAI",
    "Kind",
    "kind_of_file",
    "what_takes_it",
]

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""


class Kind(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    name : str
        The format in ``TRACE_FORMATS`` that converts it; "" of what is only named.
    title : str
        What it is, for messages.
    pattern : bytes
        A regular expression for the first bytes; compiled when a file is looked at, as a run
        without one need not pay for it.
    command : str
        What takes such a file.
    readable : bool
        It is a Chakra trace, if not an ``.et`` file.
    """

    name: str
    title: str
    pattern: bytes
    command: str
    readable: bool = False


_CONVERT = "astra-bridge trace convert {file} OUT"
_ANY = rb"(?s)\s*(?:\xef\xbb\xbf)?\s*"

KINETO = Kind(
    "pytorch",
    "a Kineto trace (torch.profiler's JSON)",
    _ANY + rb"\{.*\"(?:traceEvents|deviceProperties|distributedInfo)\"\s*:",
    _CONVERT,
)
EXECUTION_TRACE = Kind(
    "pytorch",
    "a PyTorch execution trace (ExecutionTraceObserver's JSON)",
    _ANY + rb"\{(?=.{0,2000}\"schema\"\s*:).*\"nodes\"\s*:",
    _CONVERT,
)

MSCCL = Kind(
    "msccl",
    "an MSCCL algorithm (XML)",
    _ANY + rb"(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<algo\b",
    _CONVERT + " --size SIZE",
)
GOAL = Kind(
    "goal",
    "a GOAL schedule (LogGOPSim, ATLAHS)",
    rb"(?s)\s*(?:(?:/\*.*?\*/|//[^\n]*|#[^\n]*)\s*)*num_ranks\s+\d+",
    _CONVERT,
)

SIMAI = Kind(
    "simai-workload",
    "a text workload of SimAI or AICB",
    rb"\s*HYBRID_TRANSFORMER\w*\b",
    _CONVERT,
)

ASTRA_SIM_1 = Kind(
    "astra-sim-1",
    "a text workload of ASTRA-sim 1.0",
    rb"\s*(?:MICRO|DATA|DATA_REORDER|MODEL|HYBRID_[A-Z_]+|DISTRIBUTED_INFERENCE)\b[^\n]*\n\s*\d+\s*\n",
    _CONVERT + " --ranks COUNT",
)

KINDS = (
    KINETO,
    EXECUTION_TRACE,
    Kind(
        "chakra",
        "a Chakra trace as JSON",
        _ANY + rb"\{\s*(?:\"workload_graph\"|\"version\"|\}\s*\{\s*\"(?:id|name)\")",
        "astra-bridge trace convert {file} OUT.et",
        readable=True,
    ),
    MSCCL,
    GOAL,
    SIMAI,
    ASTRA_SIM_1,
    Kind(
        "",
        "a system configuration",
        _ANY + rb"\{.*\"(?:scheduling-policy|(?:all-reduce|all-gather)-implementation)\"\s*:",
        "--system-configuration={file}",
    ),
    Kind(
        "",
        "a network configuration",
        rb"(?s)(?:\s*#[^\n]*\n|\s*[a-z_]+:[^\n]*\n)*\s*(?:topology|npus_count)\s*:",
        "--network-configuration={file}",
    ),
    Kind(
        "",
        "a model's configuration (Hugging Face's config.json)",
        _ANY + rb"\{.*\"(?:model_type|architectures)\"\s*:",
        "astra-bridge workload model {file} OUT",
    ),
    Kind(
        "",
        "an InfraGraph description of a fabric",
        rb"(?ms)(?=.*^\s*(?:components|instances):\s*$).*^\s*(?:edges|connections|links):\s*$",
        "astra-bridge topology convert {file} -o NETWORK.yml",
    ),
    Kind(
        "",
        "an execution plan of MSCCL++; algorithms of MSCCL (XML) are taken",
        _ANY + rb"\{(?=.{,2000}\"collective\"\s*:).{,2000}\"gpus\"\s*:\s*\[",
        "",
    ),
    Kind(
        "",
        "a topology or graph of NCCL or RCCL (NCCL_TOPO_DUMP_FILE), and no workload",
        _ANY + rb"(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<(?:system|graphs|cpu)\b",
        "",
    ),
    Kind(
        "",
        "a profile of rocprofv3; that of torch.profiler is taken",
        _ANY + rb"\{\s*\"rocprofiler-sdk",
        "",
    ),
    Kind("", "a profile of JAX (xplane.pb)", rb"(?s)\n.{1,5}\x12./(?:host|device):", ""),
    Kind("", "a database (Nsight Systems, rocprof)", rb"SQLite format 3\0", ""),
    Kind("", "a Parquet file", rb"PAR1", ""),
    Kind("", "a zip archive: unpack it first", rb"PK\x03\x04", ""),
    Kind("", "a tar archive: unpack it first", rb"(?s).{257}ustar", ""),
    Kind("", "a web page", rb"(?i)\s*<(?:!doctype html|html)", ""),
    Kind("", "XML, but no algorithm of MSCCL", _ANY + rb"<(?:\?xml|!--|[a-zA-Z])", ""),
    Kind(
        "",
        "a pointer of Git LFS: fetch the file itself",
        rb"version https://git-lfs",
        "",
    ),
)
"""In the order in which they are looked for."""


def kind_of_file(head: bytes) -> Kind | None:
    """The kind of a file, by its first bytes; None of a Chakra trace, and of what is unknown.

    Parameters
    ----------
    head : bytes
        The first bytes, not compressed.

    Examples
    --------
    >>> kind_of_file(b"num_ranks 2\\nrank 0 {").name
    'goal'
    """
    return next((kind for kind in KINDS if re.match(kind.pattern, head)), None)


def what_takes_it(kind: Kind, file: object) -> str:
    """What a file is, and the command for it, as a sentence of an error."""
    said = f"this is {kind.title}"
    return f"{said}; `{kind.command.format(file=file)}` takes it" if kind.command else said
