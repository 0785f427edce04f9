# SPDX-License-Identifier: MIT
"""Compiles the network in C: a shared library that needs the header of astra_bridge only."""

from setuptools import Extension, setup

from astra_bridge.network.header import header_path

setup(
    ext_modules=[
        Extension(
            "example_plugin.wires",
            ["src/example_plugin/wires.c"],
            include_dirs=[str(header_path().parent)],
            extra_compile_args=["-std=c99", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"],
        )
    ]
)
