# SPDX-License-Identifier: MIT
"""Profiles of accelerators, as files: those of the package, of plug-ins, and the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from astra_bridge.errors import InputError
from astra_bridge.hardware.parameters import Fitted, NcclParameters
from astra_bridge.inputs.common import load_json
from astra_bridge.registry import Registry, Spec
from astra_bridge.text import one_line

__all__ = ["HARDWARE", "Datasheet", "Hardware", "hardware", "read_hardware"]

_Above0 = Annotated[float, msgspec.Meta(gt=0, le=1e30)]


class Datasheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the maker says.

    Attributes
    ----------
    source
        Where.
    processors
        Streaming multiprocessors, compute units or cores.
    tensor_TFLOPS
        Dense peak by precision ("bf16", "fp8", ...), multiply and add counted as two.
    memory_GBps, memory_GB
        Bandwidth of the memory, decimal, and its size in what makers call a GB: 2**30 bytes.
    link_GBps
        To other accelerators, one direction, all links together.
    cache_MB
        Last level of cache; None where the maker does not say.
    host_GBps
        To the host, one direction; None where the maker does not say.
    compute_capability
        CUDA's, which NCCL chooses by; None where there is no CUDA.
    """

    source: str
    processors: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    tensor_TFLOPS: dict[str, _Above0]
    memory_GBps: _Above0
    memory_GB: _Above0
    link_GBps: _Above0
    cache_MB: _Above0 | None = None
    host_GBps: _Above0 | None = None
    compute_capability: _Above0 | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile's file, key by key."""

    name: str
    summary: str
    datasheet: Datasheet
    fitted: Fitted | None = None
    fitted_as: str | None = None
    nccl: NcclParameters | None = None
    nccl_as: str | None = None
    nccl_latency: _Above0 = 1.0


class Hardware(Spec, frozen=True, eq=False):
    """An accelerator.

    Attributes
    ----------
    datasheet
        What the maker says.
    own
        Parameters that were fitted to measurements of it; None where there are none.
    fitted_as
        Whose parameters stand in where it has none of its own: an accelerator of a like design.
    own_nccl, nccl_as
        The same of NCCL's parameters.
    nccl_latency
        NCCL's times over those of the accelerator that stands in: no datasheet says them.

    Examples
    --------
    >>> h200 = hardware("h200")
    >>> h200.datasheet.memory_GBps
    4800.0
    """

    datasheet: Datasheet
    own: Fitted | None = None
    fitted_as: str | None = None
    own_nccl: NcclParameters | None = None
    nccl_as: str | None = None
    nccl_latency: float = 1.0

    @property
    def fitted(self) -> Fitted:
        """Its own parameters, or those of the accelerator that stands in.

        Raises
        ------
        InputError
            It has neither.
        """
        if self.own is not None:
            return self.own
        if self.fitted_as is None:
            raise InputError(
                f"{self.name} has only its datasheet: it needs parameters in 'fitted', or the name "
                "of a like accelerator in 'fitted_as'",
                key="hardware",
            )
        return HARDWARE.find(self.fitted_as, key="fitted_as").fitted

    @property
    def nccl(self) -> NcclParameters:
        """NCCL's parameters: its own, or those of the accelerator that stands in.

        Raises
        ------
        InputError
            It has neither.
        """
        if self.own_nccl is not None:
            return self.own_nccl
        if self.nccl_as is None:
            raise InputError(
                f"{self.name} has no parameters of NCCL: it needs 'nccl', or in 'nccl_as' the name "
                "of a like accelerator",
                key="hardware",
            )
        return HARDWARE.find(self.nccl_as, key="nccl_as").nccl.scaled(self.nccl_latency)


def read_hardware(path: str | Path) -> Hardware:
    """Read a profile.

    Raises
    ------
    InputError
        The file cannot be read, or a key or value is not understood.
    """
    file = Path(path)
    try:
        read = msgspec.convert(load_json(file), _File, strict=True)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = where.rstrip("`") or None
        raise InputError(one_line(what), file=file, key=key) from None
    named = _note(read)
    return Hardware(
        read.name,
        read.summary,
        read.datasheet,
        read.fitted,
        read.fitted_as,
        read.nccl,
        read.nccl_as,
        read.nccl_latency,
        note=lambda: named,
    )


def _note(read: _File) -> str:
    if read.fitted is not None:
        return f"fitted to {read.fitted.to}"
    if read.fitted_as is not None:
        return f"not measured: parameters of {read.fitted_as}, this datasheet"
    return "datasheet only"


def hardware(given: object, *, key: str = "hardware", file: Path | None = None) -> Hardware:
    """The accelerator of a name, or of a profile's path, which ends in ``.json``.

    Parameters
    ----------
    given, key, file
        What the user wrote, and where, for the message.

    Raises
    ------
    InputError
        Nothing has this name, or the file is no profile.
    """
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(".json")):
        return read_hardware(given)
    return HARDWARE.find(given, key=key, file=file)


_SHIPPED = (
    "a100-40gb", "a100-80gb", "h100-sxm", "h100-pcie", "h200", "b200", "gb200", "mi300x",
    "tpu-v4", "tpu-v5e",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """``SHIPPED``: profiles of the package, read when the first one is asked for."""
    if name == "SHIPPED":
        folder = Path(__file__).with_name("profiles")
        return tuple(read_hardware(folder / f"{one}.json") for one in _SHIPPED)
    raise AttributeError(name)


HARDWARE = Registry(
    "accelerator",
    "astra_bridge.hardware",
    Hardware,
    dict.fromkeys(_SHIPPED, "astra_bridge.hardware.profile:SHIPPED"),
)
