# SPDX-License-Identifier: MIT
"""How a package compiles a backend in C or C++; its ``setup.py`` calls `extension`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from setuptools import Extension

from astra_bridge.network.header import header_path

__all__ = ["extension"]

_STANDARDS = {".c": "c99", ".cc": "c++17", ".cpp": "c++17", ".cxx": "c++17"}


def extension(name: str, sources: Sequence[str]) -> Extension:
    """A shared library that keeps the build rules of the contract.

    It sees ``astra_net.h`` and ``astra_net.hpp``, is C99 or C++17, and exports
    ``astra_net_backend_init`` alone.

    Parameters
    ----------
    name : str
        ``package.module``: the library stands in the package as ``module`` with
        ``sysconfig.get_config_var("EXT_SUFFIX")``.
    sources : sequence of str
        Files of one language, relative to ``setup.py``.

    Raises
    ------
    ValueError
        There are no sources, or they are of several languages, or of another one.

    Examples
    --------
    >>> extension("ports.backend", ["src/ports/backend.cpp"]).extra_compile_args[0]
    '-std=c++17'
    """
    standards = {_STANDARDS.get(Path(source).suffix) for source in sources}
    (standard,) = standards if len(standards) == 1 else (None,)
    if standard is None:
        raise ValueError(f"{list(sources)} must be files of one language, C or C++")
    headers = header_path().parent
    # Hidden visibility is not enough: instantiations of the C++ standard library are exported
    # whatever the flags, and one that another library has too may be bound to that one.
    exports = (
        "-Wl,-exported_symbol,_astra_net_backend_init"
        if sys.platform == "darwin"
        else f"-Wl,--version-script={headers / 'astra_net.map'}"
    )
    return Extension(
        name,
        list(sources),
        include_dirs=[str(headers)],
        depends=[str(path) for path in sorted(headers.glob("astra_*.h*"))],
        extra_compile_args=[f"-std={standard}", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
        extra_link_args=[exports],
        language="c" if standard == "c99" else "c++",
    )
