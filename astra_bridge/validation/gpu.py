# SPDX-License-Identifier: MIT
"""Kernels, layers and steps of one GPU: ``gpu/PREFIX_CLASS.csv`` in the layout of the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from astra_bridge.compute.gpu import DecoderLayer, Kernels, decoder_layer_us, train_step_us
from astra_bridge.errors import InputError
from astra_bridge.hardware import HARDWARE, Datasheet, Hardware, hardware
from astra_bridge.text import show
from astra_bridge.validation.table import SHIPPED, Row, identity, read_rows, value

__all__ = ["CLASSES", "Class", "Values", "gpu_rows", "hardware_of"]

Values = dict[str, float | str]


class Class(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    columns
        Numbers that a row has.
    measured
        Columns of measured times; a row may lack all but the first.
    predict
        Of the kernels, a row and a measured column: us.
    work
        Of a row and a measured column: precision, operations and bytes, for the naive model; the
        precision "host" is a copy over the host's link.
    texts
        Columns that are words.
    """

    columns: tuple[str, ...]
    measured: tuple[str, ...]
    predict: Callable[[Kernels, Values, str], float]
    work: Callable[[Values, str], tuple[str, float, float]]
    texts: tuple[str, ...] = ()


def _number(row: Values, name: str) -> int:
    return int(row[name])


def _gemm(kernels: Kernels, row: Values, _: str) -> float:
    dtype = _precision(row)
    m, n, k = (_number(row, name) for name in "mnk")
    body = float(kernels.gemm(m, n, k, dtype))
    return kernels.fitted.gemm[dtype].start_us + body


def _precision(row: Values) -> str:
    return str(row["dtype"]).partition("_")[0]


def _gemm_work(row: Values, _: str) -> tuple[str, float, float]:
    m, n, k = (_number(row, name) for name in "mnk")
    dtype = _precision(row)
    element = 1 if dtype == "fp8" else 2
    return dtype, 2.0 * m * n * k, element * (m * k + n * k) + 2.0 * m * n


_LAYER = ("hidden", "q_heads", "kv_heads", "ffn")
_ATTENTION = ("batch", "q_heads", "kv_heads", "q_len", "kv_len", "head_dim")


def _attention(kernels: Kernels, row: Values, column: str) -> float:
    batch, heads, kv_heads, q, kv, d = (_number(row, name) for name in _ATTENTION)
    fitted = kernels.fitted
    if row["kind"] not in ("causal", "decode"):
        raise InputError(f"{show(row['kind'])} is not allowed; allowed: causal, decode", key="kind")
    if row["kind"] == "decode":
        body = float(kernels.decode(batch, kv_heads, kv, d))
        return max(fitted.decode.start_us + body, fitted.decode.floor_us)
    direction = "backward" if column == "bwd_us" else "forward"
    one = fitted.attention[direction]
    body = float(kernels.attention(batch, heads, q, kv, d, direction=direction, kv_heads=kv_heads))
    # The host's work hides behind that of the processors, but not sharply: it varies.
    return float(((one.start_us + body) ** 4 + one.floor_us**4) ** 0.25)


def _attention_work(row: Values, column: str) -> tuple[str, float, float]:
    batch, heads, kv_heads, q, kv, d = (_number(row, name) for name in _ATTENTION)
    half, more = (1.0, 1.0) if row["kind"] == "decode" else (0.5, 2.5 if "bwd" in column else 1.0)
    data = 2.0 * batch * d * (2 * heads * q + 2 * kv_heads * kv) * (2 if "bwd" in column else 1)
    return "bf16", 4.0 * batch * heads * q * kv * d * half * more, data


def _operator(kernels: Kernels, row: Values, _: str) -> float:
    op = str(row["op"])
    shared = kernels.fitted.memory_bound
    if op not in kernels.fitted.operators:  # by its traffic alone
        return shared.start_us + float(kernels.stream(float(row["min_bytes"])))
    # Further kernels follow the first one as closely as in a graph.
    start = shared.start_us + kernels.fitted.host.graph_us * (kernels.launches(op) - 1)
    return start + float(kernels.operator(op, _number(row, "rows"), _number(row, "cols")))


def _min_bytes(row: Values, _: str) -> tuple[str, float, float]:
    return "bf16", 0.0, float(row["min_bytes"])


def _optimizer(kernels: Kernels, row: Values, _: str) -> float:
    one = kernels.fitted.optimizer
    body = float(kernels.optimizer(float(row["min_bytes"])))
    return float(((one.start_us + body) ** 4 + one.floor_us**4) ** 0.25)


def _copy(kernels: Kernels, row: Values, _: str) -> float:
    size = float(row["bytes"])
    if row["kind"] == "d2d":
        return kernels.fitted.memory_bound.start_us + float(kernels.stream(2 * size))
    return float(kernels.copy(str(row["host_memory"]), str(row["kind"]), size))


def _copy_work(row: Values, _: str) -> tuple[str, float, float]:
    size = float(row["bytes"])
    return ("bf16", 0.0, 2 * size) if row["kind"] == "d2d" else ("host", 0.0, size)


def _layer(row: Values) -> DecoderLayer:
    hidden, q_heads, kv_heads, ffn = (_number(row, name) for name in _LAYER)
    gated = bool(_number(row, "gated")) if "gated" in row else True
    return DecoderLayer(hidden, q_heads, kv_heads, ffn, gated)


def _decoder(kernels: Kernels, row: Values, column: str) -> float:
    return decoder_layer_us(
        kernels,
        _layer(row),
        _number(row, "micro_batch"),
        _number(row, "seq"),
        backward=column == "fwd_bwd_us",
    )


def _layer_work(layer: DecoderLayer, batch: int, q: int, kv: int) -> tuple[float, float]:
    tokens = batch * q
    weights = sum(n * k for n, k in layer.products())
    half = 1.0 if q == 1 else 0.5
    flops = 2.0 * tokens * weights + half * 4 * batch * layer.q_heads * q * kv * layer.head_dim
    data = 2.0 * weights + 4.0 * batch * layer.kv_heads * kv * layer.head_dim
    return flops, data + 2.0 * tokens * (2 * layer.hidden)


def _decoder_work(row: Values, column: str) -> tuple[str, float, float]:
    seq = _number(row, "seq")
    flops, data = _layer_work(_layer(row), _number(row, "micro_batch"), seq, seq)
    times = 3 if column == "fwd_bwd_us" else 1
    return "bf16", times * flops, times * data


def _serving(kernels: Kernels, row: Values, _: str) -> float:
    batch, q, kv = (_number(row, name) for name in ("batch", "q_len", "kv_len"))
    return decoder_layer_us(kernels, _layer(row), batch, q, kv, graph=True)


def _serving_work(row: Values, _: str) -> tuple[str, float, float]:
    batch, q, kv = (_number(row, name) for name in ("batch", "q_len", "kv_len"))
    return "bf16", *_layer_work(_layer(row), batch, q, kv)


def _step(kernels: Kernels, row: Values, _: str) -> float:
    names = ("layers", "vocab", "seq", "micro_batch", "params")
    return train_step_us(kernels, _layer(row), *(_number(row, name) for name in names))


def _step_work(row: Values, _: str) -> tuple[str, float, float]:
    layers, vocabulary, seq, batch, parameters = (
        _number(row, name) for name in ("layers", "vocab", "seq", "micro_batch", "params")
    )
    layer = _layer(row)
    flops, data = _layer_work(layer, batch, seq, seq)
    head = 2.0 * batch * seq * vocabulary * layer.hidden
    return "bf16", 3 * (layers * flops + head), 3 * layers * data + 14.0 * parameters


CLASSES = {
    "gemm_bf16": Class(("m", "n", "k"), ("us",), _gemm, _gemm_work, ("dtype",)),
    "gemm_fp8": Class(("m", "n", "k"), ("us",), _gemm, _gemm_work, ("dtype",)),
    "attention": Class(_ATTENTION, ("fwd_us", "bwd_us"), _attention, _attention_work, ("kind",)),
    "memory_bound": Class(("rows", "cols", "min_bytes"), ("us",), _operator, _min_bytes, ("op",)),
    "optimizer": Class(("params", "min_bytes"), ("us",), _optimizer, _min_bytes, ("op",)),
    "memcpy": Class(("bytes",), ("us",), _copy, _copy_work, ("kind", "host_memory")),
    "decoder_layers": Class(
        (*_LAYER, "gated", "seq", "micro_batch"), ("fwd_us", "fwd_bwd_us"), _decoder,
        _decoder_work, ("model",),
    ),
    "serving_layers": Class(
        (*_LAYER, "batch", "q_len", "kv_len"), ("us",), _serving, _serving_work, ("phase", "model")
    ),
    "train_step": Class(
        (*_LAYER, "params", "layers", "vocab", "seq", "micro_batch"), ("step_us",), _step,
        _step_work, ("model",),
    ),
}  # fmt: skip
"""Class, as in the name of a file -> what it has."""

_MAY_BE_0 = ("gated",)


def hardware_of(prefix: str, file: Path) -> str:
    """Name of the profile that a file's prefix means: its own, or the first that begins with it.

    Raises
    ------
    InputError
        There is none.
    """
    names = HARDWARE.names()
    # Those that were measured first: "a100" is the one of 80 GB.
    order = sorted(names, key=lambda name: (name != prefix, "sxm" not in name, "80gb" not in name))
    for name in order:
        if name == prefix or name.startswith(f"{prefix}-"):
            return name
    raise HARDWARE.refusal(prefix, key="prefix of the file's name", file=file)


def _naive_us(sheet: Datasheet, work: tuple[str, float, float]) -> float:
    """The roofline with the datasheet's peaks."""
    dtype, flops, data = work
    if dtype == "host":
        return data / ((sheet.host_GBps or 64) * 1e3)
    return max(flops / (sheet.tensor_TFLOPS[dtype] * 1e6), data / (sheet.memory_GBps * 1e3))


def read_values(file: Path, kind: Class) -> Iterator[tuple[dict[str, str], Values]]:
    """Rows of a file: as written, and as numbers."""
    for row in read_rows(file, (*kind.texts, *kind.columns, kind.measured[0])):
        values: Values = {name: row[name] for name in kind.texts}
        for name in kind.columns:
            zero = name in _MAY_BE_0 and row[name] == "0"
            values[name] = 0.0 if zero else value(row, name, file)
        yield row, values


def gpu_rows(
    data: Path, *, stand_in: str | None = None, only: str = "", card: Hardware | None = None
) -> list[Row]:
    """All measurements of a folder ``gpu``, with their predictions.

    Parameters
    ----------
    data
        The folder above it.
    stand_in
        Name of an accelerator whose fitted parameters are taken instead of the own ones.
    only
        Prefix of the files.
    card
        The accelerator, in place of the one that a file's prefix means.

    Raises
    ------
    InputError
        A file cannot be read, or is of no known class or accelerator.
    """
    found = []
    for file in sorted((data / "gpu").glob(f"{only}*.csv")):
        prefix, _, name = file.stem.partition("_")
        if name not in CLASSES:
            raise InputError(
                f"no class of measurements is called {name}; there are {', '.join(CLASSES)}",
                file=file,
            )
        kind = CLASSES[name]
        found_hardware = hardware(hardware_of(prefix, file)) if card is None else card
        fitted = hardware(stand_in).fitted if stand_in is not None else None
        kernels = Kernels(found_hardware, fitted)
        known = _known(file.name, kind) if stand_in is None and card is None else set()
        for row, values in read_values(file, kind):
            for column in kind.measured:
                if not row.get(column):
                    continue
                what = {key: item for key, item in row.items() if key not in kind.measured}
                if len(kind.measured) > 1:
                    what["time"] = column
                found.append(
                    Row(
                        "gpu" if stand_in is None else "transfer",
                        file.stem,
                        what,
                        value(row, column, file),
                        kind.predict(kernels, values, column),
                        _naive_us(found_hardware.datasheet, kind.work(values, column)),
                        identity(row, kind.measured) in known,
                    )
                )
    return found


def _known(name: str, kind: Class) -> set[tuple[tuple[str, str], ...]]:
    """Rows of the package's own copy, which is what parameters are fitted to."""
    file = SHIPPED / "gpu" / name
    if not file.is_file():
        return set()
    return {identity(row, kind.measured) for row in read_rows(file, kind.columns)}
