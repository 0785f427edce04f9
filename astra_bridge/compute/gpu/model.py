# SPDX-License-Identifier: MIT
"""The compute model ``gpu``: kernels by shape where a node has them, else by totals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.gpu.kernels import Kernels
from astra_bridge.compute.gpu.text import body_us, kernels_of, launches
from astra_bridge.compute.model import ComputeModel, ComputeNodes
from astra_bridge.compute.systolic import gemm_of
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.units import PS_PER_US

__all__ = ["MODEL", "text_us", "texts_of", "totals_us"]

_LEAST_INTENSITY = 8
"""Operations per byte below which an operator is no product of matrices worth the name: element by
element, one or a few operations for each number that is read or written."""


def text_us(kernels: Kernels, text: str) -> float:
    """Time of the kernels of a text in a stream that the host keeps full [us].

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> kernels = Kernels(hardware("h100-sxm"))
    >>> one, two = text_us(kernels, "gemm 512 512 512"), text_us(kernels, "2*gemm 512 512 512")
    >>> abs(two - 2 * one) < 1e-9
    True
    """
    gap_us = kernels.fitted.host.stream_us
    return sum(
        one.times * (body_us(kernels, one) + launches(kernels, one) * gap_us)
        for one in kernels_of(text)
    )


def totals_us(kernels: Kernels, num_ops: int, moved_bytes: int) -> float:
    """Time of an operator of which only operations and bytes are known [us].

    With many operations per byte it is the square-ish product of matrices that has these totals,
    else a stream of so many bytes.
    """
    if num_ops == 0 and moved_bytes == 0:
        return 0.0
    gap_us = kernels.fitted.host.stream_us
    if num_ops >= _LEAST_INTENSITY * moved_bytes:
        return float(kernels.gemm(*gemm_of(num_ops, moved_bytes))) + gap_us
    return float(kernels.stream(moved_bytes)) + gap_us


def texts_of(nodes: ComputeNodes) -> Iterator[str | None]:
    """The attribute ``kernels`` of each node; None where it has none.

    Raises
    ------
    InputError
        It is no text.
    """
    wanted = set(nodes.position.tolist())
    every = enumerate(nodes.trace.all_details())
    texts = {at: one.attributes.get("kernels") for at, one in every if at in wanted}
    for position in nodes.position.tolist():
        found = texts[position]
        if found is not None and not isinstance(found, str):
            raise InputError("is no text", file=nodes.trace.file, key="kernels")
        yield found


def _duration_ps(nodes: ComputeNodes, system: SystemConfig) -> NDArray[np.float64]:
    if system.hardware is None:
        raise InputError(
            "missing: the name of an accelerator, or the path of its profile",
            file=system.source,
            key="hardware",
        )
    kernels = Kernels(hardware(system.hardware, key="hardware", file=system.source))
    known: dict[object, float] = {}
    found = np.zeros(len(nodes), np.float64)
    rows = zip(nodes.num_ops.tolist(), nodes.tensor_bytes.tolist(), texts_of(nodes), strict=True)
    for at, (ops, moved, text) in enumerate(rows):
        key = (ops, moved) if text is None else text
        if key not in known:
            try:
                known[key] = (
                    totals_us(kernels, ops, moved) if text is None else text_us(kernels, text)
                )
            except InputError as error:
                raise InputError(error.reason, file=nodes.trace.file, key=error.key) from None
        found[at] = known[key]
    return found * PS_PER_US


MODEL = ComputeModel(
    "gpu", "Kernels by class, from shapes and a profile of the accelerator.", _duration_ps
)
