# SPDX-License-Identifier: MIT
"""A backend library exports astra_net_backend_init and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from astra_bridge.network.native import library_path

LIBRARIES = sorted(library_path("mock").parent.glob("libastra_net_*.so"))


def test_there_are_libraries(missing: Callable[[str, str], None]) -> None:
    if not LIBRARIES:
        missing("native", "no native part is built; run: python setup.py build_native")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.stem)
def test_one_symbol(library: object, missing: Callable[[str, str], None]) -> None:
    if shutil.which("nm") is None:
        missing("native", "no nm (binutils)")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["astra_net_backend_init"]
