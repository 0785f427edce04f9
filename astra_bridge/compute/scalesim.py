# SPDX-License-Identifier: MIT
"""SCALE-sim itself as a compute model (extra ``scalesim``): cycles with memory stalls.

It simulates every cycle of the array, which takes minutes for matrices of a thousand, so results
are kept on disk, one file per question.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.util import find_spec

from astra_bridge.compute.model import ComputeModel
from astra_bridge.compute.systolic import array_ps
from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.files import user_cache, write_file
from astra_bridge.inputs.system import SystolicArray

__all__ = ["MODEL", "scalesim_cycles"]

_SRAM_KB = 64
_BANDWIDTH_WORDS = 10


def scalesim_cycles(m: int, n: int, k: int, array: SystolicArray) -> int:
    """Cycles of an (m, k) by (k, n) product, stalls and first prefetch included.

    Raises
    ------
    MissingDependency
        SCALE-sim is not installed.
    """
    question = [m, n, k, array.rows, array.columns, array.dataflow]
    name = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:24]
    file = user_cache() / "scalesim" / f"{name}.json"
    try:
        return int(json.loads(file.read_text())["cycles"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known yet, or not readable: ask again
    cycles = _run(m, n, k, array)
    with suppress(InputError):  # a cache that cannot be written costs time, not the answer
        write_file(file, json.dumps({"question": question, "cycles": cycles}).encode())
    return cycles


def _run(m: int, n: int, k: int, array: SystolicArray) -> int:
    try:
        from scalesim.layout_utils import layouts
        from scalesim.scale_config import scale_config
        from scalesim.single_layer_sim import single_layer_sim
        from scalesim.topology_utils import topologies
    except ImportError as error:
        raise MissingDependency(
            f"compute-model: scalesim needs the package of that name ({error}): pip install "
            "'astra-bridge[scalesim]'; or use systolic, which has the same compute cycles"
        ) from error
    config = scale_config()
    sram = [_SRAM_KB, _SRAM_KB, _SRAM_KB]
    offsets = [0, 10_000_000, 20_000_000]
    rows, columns = array.rows, array.columns
    config.update_from_list(
        ["gemm", rows, columns, *sram, *offsets, array.dataflow, "CALC", [_BANDWIDTH_WORDS]]
    )
    config.force_valid()
    topology = topologies()
    topology.load_layer_params_from_list("gemm", ["gemm", m, k, 1, k, 1, n, 1, 1, 1, 1])
    layer = single_layer_sim()
    layer.set_params(
        layer_id=0, config_obj=config, topology_obj=topology, layout_obj=layouts(), verbose=False
    )
    layer.run()
    return int(layer.get_compute_report_items()[0])


def _unavailable() -> str | None:
    if find_spec("scalesim") is not None:
        return None
    return "the package scalesim is not installed: pip install 'astra-bridge[scalesim]'"


MODEL = ComputeModel(
    "scalesim",
    "Matrix products in SCALE-sim, cycle by cycle, with memory stalls.",
    lambda nodes, system: array_ps(nodes, system, scalesim_cycles),
    unavailable=_unavailable,
)
