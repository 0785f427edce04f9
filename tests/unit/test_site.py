# SPDX-License-Identifier: MIT
"""The site of the documentation, and the tutorials on it."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import astra_bridge
from astra_bridge.network.native import library_path
from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.network.ns3.build import is_rdma_fork

ROOT = Path(__file__).parents[2]
# Blocks of commands, and how many of them have their output below.
TUTORIALS = {"network": (6, 5), "architect": (6, 5)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    needed = ("material", "mkdocstrings_handlers", "nbclient", "nbconvert", "ipykernel")
    if not all(map(find_spec, needed)):
        missing("docs", "the extra docs is not installed")
    if not library_path("flow").exists():
        missing("native", "flow is not built")
    for needed_too in ("plotly", "matplotlib"):  # what pages run has figures
        pytest.importorskip(needed_too)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_another_host(site: Path) -> None:
    """Links that a reader follows may lead out; what a browser loads by itself may not."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    loads = (
        r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    )
    for path in pages:
        assert not re.findall(loads, path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", text), path


def test_every_page_of_the_docs_is_in_the_nav(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    nav = re.findall(r"<a href=\"?([^\s\">]+)\"? class=\"?md-nav__link", home)
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert name == "README.html" or name in nav, name
    assert {"reference.html", "keys.html", "source/CONTRIBUTING.html"} <= set(nav)


def test_every_link_leads_somewhere(site: Path) -> None:
    count = 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links start at the root of a host
            continue
        for quoted, bare in re.findall(
            r"(?:href|src)=(?:\"([^\"]*)\"|([^\s>\"]+))", page.read_text(encoding="utf-8")
        ):
            link = html.unescape(quoted or bare)
            if re.match("[a-z]+:|#|//", link):
                continue
            target = page.parent / re.split("[?#]", link)[0]
            assert target.is_file() or (target / "index.html").is_file(), (page, link)
            count += 1
    assert count > 1000


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    for name in astra_bridge.__all__:
        assert name.startswith("_") or f'id="astra_bridge.{name}"' in text, name
    assert "Simulate a workload" in text


def test_the_keys_of_input_files(site: Path) -> None:
    """From the schemas: no key is written by hand."""
    text = (site / "keys.html").read_text(encoding="utf-8")
    for key in (
        "remote_memory",
        "constraints",
        "preferred-dataset-splits",
        "host-memory",
        "nccl_as",
    ):
        assert f"<code>{key}</code>" in text, key
    assert "$ref" not in text


def test_notebooks_have_run(site: Path) -> None:
    for path in (ROOT / "examples/notebooks").glob("*.ipynb"):
        text = (site / f"notebooks/{path.stem}.html").read_text(encoding="utf-8")
        assert "<th>backend</th>" in text or "busiest of" in text
        assert "Traceback" not in text


def test_every_figure_is_drawn(site: Path) -> None:
    """A page names it; nothing that is made from the sources is committed."""
    pages = (ROOT / "docs").rglob("*.md")
    figures = [(p, n) for p in pages for n in re.findall(r"<!-- figure (\S+):", p.read_text())]
    assert figures
    for page, name in figures:
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        text = built.read_text(encoding="utf-8")
        drawn = re.search(rf"<img [^>]*src=\"?\S*figures/{re.escape(name)}\b", text)
        assert drawn or (name.endswith(".png") and "No figure here" in text), page


@pytest.mark.parametrize("reader", list(TUTORIALS))
def test_every_command_of_a_tutorial(
    reader: str, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    """Bash runs the blocks as they stand; every indented line below is in what they print."""
    if not library_path("flow").exists():
        missing("native", "flow is not built")
    if reader == "architect":
        pytest.importorskip("plotly")
    page = (ROOT / f"docs/tutorial_{reader}.md").read_text(encoding="utf-8")
    parts = re.split(r"^```sh\n", page, flags=re.MULTILINE)[1:]
    names = 'astra-bridge() { "$PYTHON" -m astra_bridge "$@"; }\n'
    has_ns3 = not is_rdma_fork() and BACKENDS[0].unavailable() is None
    shown = 0
    for part in parts:
        script, text = part.split("```\n", 1)
        lines = re.findall("^    (.*)$", text, re.MULTILINE)
        shown += bool(lines)
        if "ns3" in script and not has_ns3:
            continue
        done = subprocess.run(
            ["bash", "-euc", names + script],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,  # ns-3 compiles once
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed = (done.stdout + done.stderr).splitlines()
        for line in lines:
            assert line == "..." or line in printed, line
    assert (len(parts), shown) == TUTORIALS[reader]
