# SPDX-License-Identifier: MIT
"""Writes a package with a complete small backend, of the templates beside this module."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template

from astra_bridge.errors import InputError
from astra_bridge.files import NewFiles
from astra_bridge.network.registry import BACKENDS
from astra_bridge.text import nearest, show

__all__ = ["LANGUAGES", "new_backend"]

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 32  # lines with a longer one would be laid out in another way

_COMMON = {
    ".github/workflows/test.yml": "workflow.yml",
    ".gitignore": "gitignore",
    "README.md": "README.md",
    "all_reduce.yaml": "all_reduce.yaml",
    "pyproject.toml": "pyproject.toml",
    "tests/test_backend.py": "test_backend.py",
}
_NATIVE = {**_COMMON, "setup.py": "setup.py", "src/{package}/__init__.py": "init_native.py"}
_PYTHON = {**_COMMON, "src/{package}/__init__.py": "init_python.py"}

LANGUAGES = {
    "c++": ("backend.cpp", _NATIVE),
    "c": ("backend.c", _NATIVE),
    "python": ("network.py", _PYTHON),
}
"""Language -> the source of the backend, and the other files with the template of each."""


def new_backend(name: str, language: str = "c++", folder: str | Path | None = None) -> list[Path]:
    """Write a package with a complete small backend.

    Parameters
    ----------
    name : str
        Of the backend and of the package: small letters, digits, and ``-`` between them.
    language : "c++", "c" or "python"
    folder : path, optional
        Where it goes; it must not exist, or be empty.  A folder of the backend's name, if left out.

    Returns
    -------
    list of Path
        The files, in the order of their names.

    Raises
    ------
    InputError
        The name cannot be one, or is taken; the language is unknown; there is something in the
        folder, or it cannot be written.  Nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> files = new_backend("ports", "python", Path(tempfile.mkdtemp()) / "ports")
    >>> [file.name for file in files if file.parent.name == "ports"]
    ['.gitignore', 'README.md', 'all_reduce.yaml', 'pyproject.toml', '__init__.py', 'network.py']
    """
    _check_name(name)
    if language not in LANGUAGES:
        raise InputError(
            f"{show(language)} is not allowed; allowed: {', '.join(LANGUAGES)}"
            f"{nearest(str(language), LANGUAGES)}",
            key="--language",
        )
    folder = Path(name if folder is None else folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError("is there already; a new folder is needed", file=folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError("is not empty; nothing in it is overwritten", file=folder)
    package = name.replace("-", "_")
    source, templates = LANGUAGES[language]
    words = {"name": name, "package": package, "source": source, "language": language.capitalize()}
    written = []
    with NewFiles() as files:
        for path, template in {**templates, f"src/{package}/{source}": source}.items():
            target = folder / path.format(package=package)
            text = (_TEMPLATES / f"{template}.in").read_text(encoding="utf-8")
            with files.open(target) as out:
                out.write(Template(text).substitute(words).encode())
            written.append(target)
    return sorted(written)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise InputError(
            f"{show(name)} is not allowed; allowed: small letters, digits, and - between them, "
            "such as my-net",
            key="NAME",
        )
    if len(name) > _LONGEST:
        raise InputError(f"{show(name)} is too long; at most {_LONGEST} characters", key="NAME")
    if name in BACKENDS.names():
        raise InputError(f"there is a backend {show(name)} already", key="NAME")
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in {*sys.stdlib_module_names, *_installed()}:
        raise InputError(f"there is a module {show(package)} already", key="NAME")


def _installed() -> set[str]:
    from importlib.metadata import packages_distributions  # slow, and only this needs it

    return set(packages_distributions())
