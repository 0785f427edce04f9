# SPDX-License-Identifier: MIT
"""What the site takes from the repository: the nav, links that leave docs/, the reference.

docs/ reads on a forge as it is.  The site has the nav of docs/README.md, a copy below ``source/``
of every file of the repository that a page links to, a page made from the docstrings, and a figure
where a page has the line ``<!-- figure NAME: what it shows -->``: what is made from the sources is
not committed.  Notebooks run while the site is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import astra_bridge
from astra_bridge.network.native import library_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import pages, rooms  # noqa: E402 - found by way of the line above

FIGURE = re.compile(r"^<!-- figure ([\w.]+): (.+) -->$", re.MULTILINE)
NOTEBOOKS = "examples/notebooks"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def _of_page(page: str, file: str) -> Callable[[], str | bytes | None]:
    """What the blocks of a page leave in a file; a page of HTML as a browser shows it."""

    def draw() -> str | bytes | None:
        if not library_path("flow").exists() or (file.endswith(".html") and CHROMIUM is None):
            return None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "examples").symlink_to(ROOT / "examples")
            text = (ROOT / page).read_text(encoding="utf-8")
            for block in pages.blocks(text):
                if (folder / file).exists():
                    break
                if block.language == "sh" and "ns3" not in block.text:
                    pages.run(block._replace(shown=()), folder)
            return _shot(folder / file) if file.endswith(".html") else (folder / file).read_text()

    return draw


def _shot(file: Path) -> bytes:
    """The first screens of a page, as wide as a desk's."""
    picture = file.with_suffix(".png")
    assert CHROMIUM is not None
    # Its sockets need short paths, whatever TMPDIR is.
    with tempfile.TemporaryDirectory(dir="/tmp") as own:
        subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--hide-scrollbars", "--window-size=1200,1500", "--virtual-time-budget=20000",
             f"--user-data-dir={own}", f"--screenshot={picture}", file.as_uri()],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
    return picture.read_bytes()


FIGURES: dict[str, Callable[[], str | bytes | None]] = {
    "rooms.svg": rooms.svg,
    "report.png": _of_page("docs/report.md", "report.html"),
    "architect.png": _of_page("docs/tutorial_architect.md", "out/report.html"),
    "network.svg": _of_page("docs/tutorial_network.md", "out/flow/tiers.svg"),
    "astra_sim.svg": _of_page("docs/coming_from_astra_sim.md", "out/hgx/ranks.svg"),
}
_drawn: dict[str, bool] = {}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
REFERENCE = "reference.md"
KEYS = "keys.md"


def _target(page: str, link: str) -> str:
    """The path in the repository of what a page links to."""
    return os.path.normpath(PurePosixPath(page).parent / link)


def _place(path: str) -> str:
    """Where a file of the repository is on the site; the home page has what is in a folder."""
    if (ROOT / path).is_dir():
        return "README.md"
    if path.startswith(NOTEBOOKS):
        return f"notebooks/{PurePosixPath(path).stem}.md"
    inside = PurePosixPath(path)
    return str(inside.relative_to("docs")) if inside.parts[0] == "docs" else f"source/{path}"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The nav: every page that docs/README.md links to, once, below its heading."""
    nav: list[Any] = [{"Home": "README.md"}]
    seen = {"README.md"}
    for part in re.split(r"^(?=\*\*\w+\*\*$)", (ROOT / "docs/README.md").read_text(), flags=re.M)[
        1:
    ]:
        found = re.findall(r"^\*\*(\w+)", part)[0]
        links = [_place(_target("docs/README.md", link)) for link in LINK.findall(part)]
        pages = [page for page in dict.fromkeys(links) if page.endswith(".md") and page not in seen]
        seen.update(pages)
        nav.append({found: pages})
    nav.append({"Reference": [REFERENCE, KEYS]})
    config.nav = nav
    return config


def _reference() -> str:
    """A heading and the docstrings of each public name."""
    names = [name for name in astra_bridge.__all__ if not name.startswith("_")]
    return "# Reference\n\n" + "\n\n".join(f"::: astra_bridge.{name}" for name in names) + "\n"


def _type(one: dict[str, Any]) -> str:
    """A JSON Schema's type, in words."""
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(map(_type, one["anyOf"])))
    if "enum" in one:
        return ", ".join(f"`{json.dumps(value)}`" for value in one["enum"])
    if one.get("type") == "array":
        return f"list of {_type(one.get('items') or {})}"
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    said = [f"{word} {one[key]:g}" for key, word in bounds.items() if key in one]
    return " ".join([str(one.get("type", "anything")), *said])


def _table(schema: dict[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        f"| `{key}` | {_type(one)} | {'required' if key in needed else _default(one)} | "
        f"{one.get('description', '')} |"
        for key, one in schema["properties"].items()
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _default(one: dict[str, Any]) -> str:
    return f"`{json.dumps(one['default'])}`" if "default" in one else ""


def _keys() -> str:
    """A table of the keys of each input file, from the schemas that read them."""
    import msgspec

    from astra_bridge.hardware import profile
    from astra_bridge.inputs import memory, system
    from astra_bridge.simulation.file import experiment_schema
    from astra_bridge.sweeping import specification

    own = {
        "Sweep": (specification._File, "sweeps.md"),
        "System": (system._SystemFile, "formats/system.md"),
        "Remote memory": (memory._MemoryFile, "formats/remote_memory.md"),
        "Hardware profile": (profile._File, "hardware.md"),
    }
    parts = ["# Keys of input files", "Made from the schemas that the files are read by."]
    definitions: dict[str, Any] = {}
    experiment = experiment_schema()
    definitions |= experiment.get("$defs", {})
    parts += ["## Experiment", "[What it is](cli.md#an-experiment-as-a-file).", _table(experiment)]
    for title, (read, page) in own.items():
        (top,), found = msgspec.json.schema_components([read])
        name = top["$ref"].rpartition("/")[2]
        parts += [f"## {title}", f"[What it is]({page}).", _table(found.pop(name))]
        definitions |= found
    for name, one in definitions.items():
        if "properties" in one:
            parts += [f"## {name}", one.get("description", "").partition("\n")[0], _table(one)]
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the figures, and what pages link to outside docs/."""
    files.append(File.generated(config, REFERENCE, content=_reference()))
    files.append(File.generated(config, KEYS, content=_keys()))
    for name, draw in FIGURES.items():
        content = draw()
        _drawn[name] = content is not None
        if content is not None:
            files.append(File.generated(config, f"figures/{name}", content=content))
    for notebook in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        for name, content in _executed(notebook).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    waiting = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    while waiting:
        page = waiting.pop()
        if not (ROOT / page).is_file():
            continue  # the reference, notebooks
        for link in LINK.findall((ROOT / page).read_text()):
            path = _target(page, link)
            if path.startswith(NOTEBOOKS):
                continue  # executed above
            if files.get_file_from_path(_place(path)) is None and (ROOT / path).is_file():
                files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
                if path.endswith(".md"):
                    waiting.append(path)
    return files


def _executed(notebook: Path) -> dict[str, str | bytes]:
    """A notebook with what its cells show, as a page and its pictures."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    read = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(read, timeout=120, resources={"metadata": {"path": folder}}).execute()
    text, more = MarkdownExporter().from_notebook_node(read)
    pictures = {f"{notebook.stem}_{name}": data for name, data in more["outputs"].items()}
    for name in more["outputs"]:
        text = text.replace(f"({name})", f"({notebook.stem}_{name})")
    return {f"{notebook.stem}.md": text, **pictures}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links and figures as the site has them."""
    here = page.file.src_uri
    if here in (REFERENCE, KEYS) or here.startswith("notebooks/"):
        return markdown
    source = here.removeprefix("source/") if here.startswith("source/") else f"docs/{here}"

    def moved(link: re.Match[str]) -> str:
        return os.path.relpath(_place(_target(source, link[1])), PurePosixPath(here).parent)

    def figure(line: re.Match[str]) -> str:
        name, shows = line.groups()
        if name not in FIGURES:
            raise PluginError(f"{source}: no figure {name}; there are {', '.join(FIGURES)}")
        if not _drawn[name]:
            return f"*No figure here ({shows}): it takes the native parts, and Chromium.*"
        return f"![{shows}]({os.path.relpath(f'figures/{name}', PurePosixPath(here).parent)})"

    return FIGURE.sub(figure, LINK.sub(moved, markdown))
