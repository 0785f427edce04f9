# SPDX-License-Identifier: MIT
"""Times of the kernels of a GPU, from shapes and a profile of few parameters."""

from astra_bridge.compute.gpu.kernels import Kernels
from astra_bridge.compute.gpu.layers import DecoderLayer, decoder_layer_us, train_step_us

__all__ = ["DecoderLayer", "Kernels", "decoder_layer_us", "train_step_us"]
