# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: the native build.

``pip install .`` compiles the native parts when it finds a C++ compiler and installs without
them when it does not.  For development, ``python setup.py build_native`` builds them in place,
into ``astra_bridge/_native/``; CONTRIBUTING.md shows its options.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = "astra_bridge"
# Sources that the installed package needs: the header (the loader parses it) and the backends
# that are compiled on first use, because they link against a simulator that the user installs.
SHIPPED_SOURCES = ("csrc/include", "csrc/mock", "backends")


def compiler_missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if os.environ.get("ASTRA_BRIDGE_NATIVE") == "0":
        return "ASTRA_BRIDGE_NATIVE=0"
    # CXX may have flags, or a launcher in front.
    wanted = shlex.split(os.environ.get("CXX", ""))
    for name, *more in [wanted] if wanted else [["c++"], ["g++"], ["clang++"]]:
        path = shutil.which(name)
        if path is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(
                "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"
            )
            command = [path, *more, "-std=c++17", str(source), "-o", str(Path(folder, "probe"))]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return None
    return f"no working C++17 compiler ({' '.join(wanted) or 'c++, g++ or clang++'})"


def tool(name: str) -> str:
    """Path of cmake or ninja: the one that stands beside this interpreter, else the system's."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} not found; run: {sys.executable} -m pip install {name}")
    return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two builds in one folder would corrupt each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with Path(folder, "lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # not on every system
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep_header(folder: Path) -> None:
    """Write what cffi makes of the header beside the libraries, so that no run parses it again."""
    sys.path.insert(0, str(ROOT))
    try:
        from astra_bridge.network.header import keep
    finally:
        sys.path.remove(str(ROOT))
    keep(folder)


def kept_pybind11(folder: Path) -> Path:
    """Copy pybind11 into the build folder; where its CMake files are.

    pip has it in another temporary folder each time, and headers elsewhere are headers that
    changed: all that includes them would be compiled again.
    """
    import pybind11

    package, cmake_files = Path(pybind11.__file__).parent, Path(pybind11.get_cmake_dir())
    if not cmake_files.is_relative_to(package):  # a package of the system, which stays
        return cmake_files
    kept = folder / f"pybind11-{pybind11.__version__}"
    if not kept.exists():
        partial = folder / "pybind11.partial"
        shutil.copytree(package, partial, dirs_exist_ok=True)
        partial.replace(kept)
    return kept / cmake_files.relative_to(package)


def compile_into(target: Path, build_folder: Path, parts: str, sanitize: str) -> list[Path]:
    """Run CMake and copy the libraries that it made to ``target``; return their paths."""
    made = build_folder / "out"
    with locked(build_folder):
        cmake_files = kept_pybind11(build_folder)
        # A part that is gone or was renamed must not leave its old library behind.
        shutil.rmtree(made, ignore_errors=True)
        configure = [
            tool("cmake"), "--no-warn-unused-cli",
            "-S", str(ROOT), "-B", str(build_folder), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPYTHON_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={cmake_files}",
            f"-DASTRA_PARTS={parts.replace(',', ';')}",
            f"-DASTRA_SANITIZE={sanitize}",
            f"-DASTRA_WERROR={'ON' if os.environ.get('ASTRA_BRIDGE_STRICT') == '1' else 'OFF'}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run([tool("cmake"), "--build", str(build_folder), "-j", "2"], check=True)
        keep_header(made)
        target.mkdir(parents=True, exist_ok=True)
        copies = []
        for library in sorted(made.iterdir()):
            # Replace in one step: a process that has the old file mapped keeps it.
            temporary = target / f".{library.name}.{os.getpid()}"
            shutil.copy2(library, temporary)
            copies.append(temporary.replace(target / library.name))
    return copies


class BuildNative(Command):
    """Compile the native parts, in place unless run by ``build``."""

    description = "compile the native parts into astra_bridge/_native"
    user_options: ClassVar = [
        ("parts=", None, "comma-separated folders, such as mock,analytical (default: all)"),
        ("sanitize=", None, "sanitizers, such as address,undefined"),
        ("output=", None, "folder for the libraries (default: astra_bridge/_native)"),
    ]

    def initialize_options(self) -> None:
        self.parts = ""
        self.sanitize = ""
        self.output: str | None = None
        self.editable_mode = False  # set by setuptools
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        if self.distribution.get_command_obj("build", create=False):
            self.build_lib = self.get_finalized_command("build").build_lib

    def run(self) -> None:
        reason = compiler_missing()
        if reason and self.build_lib is None:
            raise SystemExit(f"cannot build the native parts: {reason}")
        if reason:
            print(
                f"\nNOTICE: installing astra-bridge without its native parts: {reason}.\n"
                "        The pure-Python engine and networks work, slower.  With a C++ compiler\n"
                "        (Debian: apt install g++) install again to get the native ones.\n",
                file=sys.stderr,
            )
        elif self.build_lib is None or self.editable_mode:
            name = "-".join(["native", *filter(None, [self.parts, self.sanitize])])
            target = Path(self.output) if self.output else ROOT / PACKAGE / "_native"
            build_folder = ROOT / "build" / name.replace(",", "+")
            for library in compile_into(target, build_folder, self.parts, self.sanitize):
                print(library)
        else:
            # A fresh folder: pip's temporary cmake and ninja are gone by the next build.
            with tempfile.TemporaryDirectory() as folder:
                compile_into(Path(self.build_lib, PACKAGE, "_native"), Path(folder), "", "")

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildPy(build_py):
    """Python modules, and the sources that the installed package needs."""

    def run(self) -> None:
        if not self.editable_mode:
            # setuptools never empties its build folder: a module deleted since the last build
            # would be shipped.
            shutil.rmtree(Path(self.build_lib, PACKAGE), ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        for folder in SHIPPED_SOURCES:
            if (ROOT / folder).is_dir():
                shutil.copytree(
                    ROOT / folder,
                    Path(self.build_lib, PACKAGE, "_sources", folder),
                    ignore=shutil.ignore_patterns("build", "__pycache__", "*.so", "*.o"),
                )


class NativeDistribution(Distribution):
    """Marks the wheel as made for this platform exactly when it holds compiled code."""

    def has_ext_modules(self) -> bool:
        if not hasattr(self, "_native"):
            self._native = compiler_missing() is None
        return self._native


class Build(build):
    sub_commands: ClassVar = [*build.sub_commands, ("build_native", None)]


if __name__ == "__main__":
    setup(
        cmdclass={"build": Build, "build_native": BuildNative, "build_py": BuildPy},
        distclass=NativeDistribution,
    )
