# SPDX-License-Identifier: MIT
"""Compiles the network in C: a shared library that needs the header of astra_bridge only."""

from setuptools import setup

from astra_bridge.kit.build import extension

setup(ext_modules=[extension("example_plugin.wires", ["src/example_plugin/wires.c"])])
