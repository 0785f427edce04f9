# SPDX-License-Identifier: MIT
"""From a model's configuration to the traces of its training or inference."""

from astra_bridge.workload.models.config import model_names, named_model, read_model
from astra_bridge.workload.models.formulas import (
    active_parameters,
    checkpoint_parameters,
    flops_per_token,
    parameters,
)
from astra_bridge.workload.models.memory import check_memory, memory, memory_text
from astra_bridge.workload.models.parallelism import Parallelism
from astra_bridge.workload.models.schedules import SCHEDULES, pipeline
from astra_bridge.workload.models.serving import inference
from astra_bridge.workload.models.shape import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Model,
    SelectiveScan,
    StateSpace,
)
from astra_bridge.workload.models.step import Inference, TrainingStep
from astra_bridge.workload.models.training import training_step

__all__ = [
    "SCHEDULES",
    "Attention",
    "Experts",
    "Inference",
    "LatentAttention",
    "Layer",
    "Mlp",
    "Model",
    "Parallelism",
    "SelectiveScan",
    "StateSpace",
    "TrainingStep",
    "active_parameters",
    "check_memory",
    "checkpoint_parameters",
    "flops_per_token",
    "inference",
    "memory",
    "memory_text",
    "model_names",
    "named_model",
    "parameters",
    "pipeline",
    "read_model",
    "training_step",
]
