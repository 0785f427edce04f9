# SPDX-License-Identifier: MIT
"""What the names in the inputs stand for."""

from __future__ import annotations

from collections.abc import Mapping

from astra_bridge.collectives import Chosen, algorithm
from astra_bridge.compute import COMPUTE_MODELS, ComputeModel
from astra_bridge.errors import InputError
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.lowering.orders import DIMENSION_ORDERS, DimensionOrder
from astra_bridge.lowering.policies import QUEUE_POLICIES, QueuePolicy
from astra_bridge.memory import MEMORY_MODELS, MemoryModel
from astra_bridge.records import Record
from astra_bridge.registry import Spec
from astra_bridge.semantics import CORRECTED, Semantics
from astra_bridge.text import show

__all__ = ["Choices", "choices"]

_NEEDED = {
    "remote-mem-bw": ("bandwidth_GBps", " GB/s (fractions are cut off, as ASTRA-sim does)"),
    "num-nodes": ("num_nodes", ""),
    "num-npus-per-node": ("num_npus_per_node", ""),
}
"""Keys that a memory model may need: field, and the unit."""


class Choices(Record, frozen=True):
    """The things that a system and a memory configuration name.

    Attributes
    ----------
    implementations : mapping of str to tuple of Chosen
        Collective ("all-reduce", ...) -> algorithm per network dimension.
    compute, memory, policy, order
        The models and rules.
    warnings : tuple of str
    """

    implementations: Mapping[str, tuple[Chosen, ...]]
    compute: ComputeModel
    memory: MemoryModel
    policy: QueuePolicy
    order: DimensionOrder
    warnings: tuple[str, ...] = ()

    def used(self) -> list[Spec]:
        """All of them, in a fixed order."""
        algorithms = [
            one.algorithm for _, chosen in sorted(self.implementations.items()) for one in chosen
        ]
        return [*algorithms, self.compute, self.memory, self.policy, self.order]


def choices(
    system: SystemConfig, memory: RemoteMemoryConfig, semantics: Semantics | str = "astra-sim"
) -> Choices:
    """Look up all names.

    Raises
    ------
    InputError
        A name is unknown (says file, key, which names there are, and the nearest), or the memory
        configuration lacks what its model needs.
    MissingDependency, PluginError
        What a name stands for cannot be used here.
    """
    file, semantics = system.source, Semantics.of(semantics)
    order, warnings = _order(system)
    return Choices(
        implementations={
            collective: tuple(
                _configured(
                    algorithm(name, key=f"{collective}-implementation[{at}]", file=file), system
                )
                for at, name in enumerate(names)
            )
            for collective, names in system.implementations.items()
        },
        compute=COMPUTE_MODELS.find(system.timed_by(semantics), key="compute-model", file=file),
        memory=_memory(memory),
        policy=QUEUE_POLICIES.find(system.scheduling_policy, key="scheduling-policy", file=file),
        order=order,
        warnings=warnings + _taken_as_on(system, semantics),
    )


def _configured(chosen: Chosen, system: SystemConfig) -> Chosen:
    found = chosen.algorithm
    if found.configured is None:
        return chosen
    return chosen._replace(algorithm=found.configured(system))


def _taken_as_on(system: SystemConfig, semantics: Semantics) -> tuple[str, ...]:
    where = f"{system.source}: " if system.source else ""
    keys = [
        f"{where}{flag} is false and taken as on; write 0"
        for flag in system.flags_raw
        if system.enabled(flag, semantics) and not system.enabled(flag, CORRECTED)
        # A model that is named decides by itself.
        if flag != "roofline-enabled" or system.compute_model is None
    ]
    return (f"quirk false-is-on: {', '.join(keys)}",) if keys else ()


def _memory(memory: RemoteMemoryConfig) -> MemoryModel:
    model = MEMORY_MODELS.find(memory.kind, key="memory-type", file=memory.source)
    for key in model.needs:
        field, unit = _NEEDED[key]
        value = getattr(memory, field)
        if value < 1:
            raise InputError(
                f"{model.name} needs at least 1{unit}, found {value or 'none'}",
                file=memory.source,
                key=key,
            )
    return model


def _order(system: SystemConfig) -> tuple[DimensionOrder, tuple[str, ...]]:
    name, key, file = system.inter_dimension_scheduling, "inter-dimension-scheduling", system.source
    order = DIMENSION_ORDERS.get(name)
    if order is not None:
        return order, ()
    # ASTRA-sim reads whatever there is as baseline.
    known = ", ".join(DIMENSION_ORDERS.names())
    where = f"{file}: {key}" if file else key
    return (
        DIMENSION_ORDERS.find("baseline", key=key),
        (f"{where}: {show(name)} is ignored; known: {known}",),
    )
