# SPDX-License-Identifier: MIT
"""Every block of code of the pages: its commands are understood, and it runs here or elsewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from astra_bridge.cli.command import Command, dispatch
from astra_bridge.cli.commands import ROOT as COMMANDS
from astra_bridge.network.native import library_path
from tests.pages import ROOT, Block, blocks, run

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md")
}
CODE = ("sh", "python")

# Blocks of sh and python run here, in their order, in one folder; of Python in one process.
RUN = [
    "docs/architecture.md", "docs/cli.md", "docs/composite.md", "docs/extending.md",
    "docs/fabrics.md", "docs/flow.md", "docs/folding.md", "docs/formats/remote_memory.md",
    "docs/garnet.md", "docs/hardware.md", "docs/howto.md", "docs/models.md", "docs/networks.md",
    "docs/python.md", "docs/remote.md", "docs/report.md", "docs/semantics.md",
    "docs/wavefronts.md", "docs/workloads.md",
    "README.md",
]  # fmt: skip

# Elsewhere: a test that runs them, or why no machine of ours can.
ELSEWHERE = {
    "docs/coming_from_astra_sim.md":
        "tests/golden/test_examples.py::test_every_command_for_who_comes_from_astra_sim",
    "docs/compare.md": "tests/unit/test_comparison.py::test_the_page_is_true",
    "docs/contract.md": "tests/unit/test_new_backend.py::test_its_workflow_passes",
    "docs/formats/trace.md": "PREFIX stands for a trace of the reader's",
    "docs/htsim.md": "tests/golden/test_htsim.py::test_the_commands_of_the_page",
    "docs/new_backend.md": "tests/unit/test_new_backend.py::test_its_workflow_passes",
    "docs/recordings.md": "tests/unit/test_recordings.py::test_the_commands_of_the_page",
    "docs/serve.md": "tests/crossval/test_sdk.py::test_the_unmodified_client_gets_what_run_gives",
    "docs/sweeps.md": "tests/unit/test_sweep.py::test_every_command_of_the_page",
    "docs/tiers.md": "tests/unit/test_tiers.py::test_the_page_is_true",
    "docs/tutorial_architect.md": "tests/unit/test_site.py::test_every_command_of_a_tutorial",
    "docs/tutorial_network.md": "tests/unit/test_site.py::test_every_command_of_a_tutorial",
    "docs/validation.md": "tests/unit/test_validation.py::test_the_page_is_current",
}  # fmt: skip

_MEASURES = "it measures for minutes, and its numbers are those of the machine"
_READERS = "its names stand for files of the reader's"

# Commands in blocks without a language: page, how the block begins, and where or why not.
COMMANDS_ELSEWHERE = {
    ("docs/cli.md", "astra-bridge run \\"): _READERS,
    ("docs/coming_from_astra_sim.md", "build/astra_analytical"): "it is ASTRA-sim's own program",
    ("docs/contract.md", "astra-bridge conformance path/"):
        "tests/unit/test_new_backend.py::test_its_workflow_passes",
    ("docs/contract.md", "c++ -std=c++17"):
        "tests/unit/test_new_backend.py::test_its_workflow_passes",
    ("docs/formats/trace.md", "astra-bridge trace dump"): _READERS,
    ("docs/formats/trace.md", "astra-bridge trace check"): _READERS,
    ("docs/formats/trace.md", "astra-bridge trace convert"): _READERS,
    ("docs/formats/trace.md", "python -m tests.fuzz_trace"):
        "tests/faults/test_trace_fuzz.py::test_both_decoders_agree_on_many_mutations",
    ("docs/garnet.md", "python -m pytest"):
        "tests/golden/test_garnet_golden.py::test_every_message_as_in_gem5",
    ("docs/garnet.md", "astra-bridge garnet replay"):
        "tests/unit/test_garnet_inputs.py::test_json_of_the_command",
    ("docs/garnet.md", "astra-bridge garnet heat-map"):
        "tests/golden/test_garnet_examples.py::test_plots",
    ("docs/garnet.md", "python benchmarks/bench_garnet.py"): _MEASURES,
    ("docs/gem5.md", "astra-bridge run --backend gem5"):
        "tests/golden/test_gem5.py::test_an_all_reduce_through_the_bridge",
    ("docs/gem5.md", "python -m pytest"):
        "tests/golden/test_gem5.py::test_every_message_as_gem5_answered_and_as_garnet_does",
    ("docs/gem5.md", "python benchmarks/bench_garnet.py"): _MEASURES,
    ("docs/networks.md", "$ g++ -O3 -std=c++17 -Icsrc/include benchmarks/analytical_exchange"):
        _MEASURES,
    ("docs/networks.md", "$ g++ -O3 -std=c++17 -Icsrc/include benchmarks/analytical_fat_tree"):
        _MEASURES,
    ("docs/networks.md", "$ python setup.py build_native"): "it builds all again, as .ci/sanitize",
    ("docs/new_backend.md", "astra-bridge new-backend ports"):
        "tests/unit/test_new_backend.py::test_the_tutorial_shows_what_is_written",
    ("docs/new_backend.md", "git clone https://github.com/booksim"):
        "tests/crossval/test_booksim.py::test_the_numbers_of_the_tutorial",
    ("docs/ns3.md", "python -m pytest"):
        "tests/golden/test_ns3_runs.py::test_every_rank_finishes_at_the_same_nanosecond",
    ("docs/ns3.md", "pip install"): "tests need no package index",
    ("docs/ns3.md", "python examples/ns3/make_inputs.py"):
        "128 ranks packet by packet: tests/golden/test_ns3_runs.py has smaller ones",
    ("docs/ns3.md", "astra-bridge run --backend ns3 \\"):
        "128 ranks packet by packet: tests/golden/test_ns3_runs.py has smaller ones",
    ("docs/ns3.md", "astra-bridge run --backend ns3 --network-option transport=tcp"):
        "tests/golden/test_ns3_page.py::test_one_experiment_on_either_transport",
    ("docs/ns3.md", "NS3_ROOT=astra-sim/"): "it needs a checkout of ASTRA-sim with its ns-3",
    ("docs/ns3.md", "python benchmarks/bench_ns3.py"): _MEASURES,
    ("docs/ns3.md", "python benchmarks/fast_forward.py"):
        "tests/unit/test_ns3_fast_forward.py::test_the_benchmark_prints_what_a_mode_takes",
    ("docs/ns3.md", "apt source ns3"): "it builds another ns-3, from sources of Debian",
    ("docs/performance.md", "python benchmarks/speed.py"): _MEASURES,
    ("docs/performance.md", "asv machine"): "tests/unit/test_asv.py::test_a_row_runs",
    ("docs/recordings.md", "astra-bridge trace convert"):
        "tests/unit/test_recordings.py::test_the_commands_of_the_page",
    ("docs/release.md", "pip install build cibuildwheel"): "tests need no package index",
    ("docs/release.md", "cibuildwheel --archs"): "it needs containers",
    ("docs/remote.md", "astra-bridge serve-backend garnet"):
        "tests/conformance/test_remote.py::test_the_commands_of_the_page",
    ("docs/remote.md", "astra-bridge run examples/analytical/experiment.yaml --backend tcp"):
        "tests/conformance/test_remote.py::test_the_commands_of_the_page",
    ("docs/remote.md", "ASTRA_BRIDGE_TOKEN=secret"): "it needs a second machine",
    ("docs/remote.md", "ssh -L"): "it needs a second machine",
    ("docs/serve.md", "astra-bridge serve --port=8989"):
        "tests/crossval/test_sdk.py::test_the_unmodified_client_gets_what_run_gives",
    ("docs/serve.md", "pip install grpcio"): "tests need no package index",
    ("docs/workloads.md", "astra-bridge trace merge"):
        "tests/unit/test_merging.py::test_the_command",
    ("docs/workloads.md", "astra-bridge trace convert"): _READERS,
    ("README.md", "python3 -m venv"):
        "tests/golden/test_examples.py::test_commands_of_the_page",
    ("README.md", ".venv/bin/pip install -e '.[test]'"): "it runs all tests",
    ("README.md", ".venv/bin/pip install -e '.[ns3]'"):
        "128 ranks packet by packet: tests/golden/test_ns3_runs.py has smaller ones",
}  # fmt: skip
_COMMAND = re.compile(
    r"(\$ |(\S*/)?(astra-bridge|python3?|pip|git|cmake|asv|ssh|[cg]\+\+|apt|for|export|cd"
    r"|cibuildwheel|AstraSim\w*)\s|[A-Z_0-9]+=\S+ )"
)


def code_of(page: str) -> list[Block]:
    return [one for one in blocks(PAGES[page]) if one.language in CODE]


def is_there(place: str) -> bool:
    """Whether a place is a reason, or a test that exists."""
    if " " in place:
        return True
    file, _, name = place.partition("::")
    if not (ROOT / file).is_file():
        return False
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return any(isinstance(one, ast.FunctionDef) and one.name == name for one in module.body)


def test_every_page_with_code_is_run_somewhere() -> None:
    assert {page for page in PAGES if code_of(page)} == {*RUN, *ELSEWHERE}
    for place in ELSEWHERE.values():
        assert is_there(place), place
    assert not is_there("tests/unit/test_pages.py::test_that_does_not_exist")


def test_every_command_outside_of_these_has_its_place() -> None:
    unused = set(COMMANDS_ELSEWHERE)
    for page, text in PAGES.items():
        for one in blocks(re.sub(r"^ +", "", text, flags=re.MULTILINE)):  # also those of a list
            if one.language in ("", "console") and _COMMAND.match(one.text):
                found = {key for key in COMMANDS_ELSEWHERE
                         if key[0] == page and one.text.startswith(key[1])}  # fmt: skip
                assert found, f"{page}, line {one.line}: what runs this?"
                unused -= found
    assert not unused
    for place in COMMANDS_ELSEWHERE.values():
        assert is_there(place), place


def data() -> list[Any]:
    """All blocks of data."""
    return [
        pytest.param(one, id=f"{Path(page).stem}:{one.line}")
        for page, text in PAGES.items() for one in blocks(text) if one.language in ("yaml", "json")
    ]  # fmt: skip


@pytest.mark.parametrize("block", data())
def test_every_block_of_data_can_be_read(block: Block) -> None:
    content = yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)
    assert isinstance(content, (dict, list))


@pytest.mark.parametrize("page", RUN)
def test_every_block_runs_and_prints_what_stands_below(
    page: str, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    if not library_path("flow").exists():
        missing("native", "flow is not built")
    for needed in ("scipy", "plotly", "matplotlib"):
        pytest.importorskip(needed)
    for name in ("astra_bridge", "backends", "csrc", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for one in blocks(PAGES[page]):
        if one.language == "json" and '"name": "my-card"' in one.text:
            (tmp_path / "my-card.json").write_text(one.text)
    rings = {f"{name}-implementation": ["ring", "ring"]
             for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")}  # fmt: skip
    (tmp_path / "system.json").write_text(json.dumps(rings))
    before = ""  # Python of the page so far: a block goes on where the one before ended
    for one in code_of(page):
        if one.language == "python" and page != "docs/extending.md":
            run(one._replace(text=before + one.text), tmp_path)
            before += one.text
        else:
            run(one, tmp_path)


def commands() -> list[Any]:
    """All command lines of ``astra-bridge`` in fenced blocks of all pages."""
    found = []
    for page, text in PAGES.items():
        for one in blocks(text):
            lines = re.sub(r"\\\n\s*", " ", one.text).splitlines()
            for line in lines:
                match = re.match(r"(?:\$ )?(?:\S*bin/|\w+=\S+ )*astra-bridge (.*)", line)
                if match and "..." not in match[1] and "[--" not in match[1]:
                    found.append(pytest.param(match[1], id=f"{Path(page).stem}:{one.line}"))
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its flags and their values; also where it cannot run here."""
    words = shlex.split(line.split(" | ")[0].split(" > ")[0].split(" && ")[0], comments=True)
    words = [word for word in words if word not in ("&", "||")]
    if "||" in line:
        words = shlex.split(line.split("||")[0])
    entry: Any = COMMANDS
    while not isinstance(entry, Command):
        entry = entry.find(words.pop(0))
    seen: dict[str, Any] = {}
    assert dispatch(entry._replace(run=lambda **given: seen.update(given)), words) == 0
    assert seen or words == ["--help"] or not words


def test_the_check_of_commands_can_fail() -> None:
    from astra_bridge.errors import InputError

    with pytest.raises(InputError, match="unknown flag"):
        dispatch(COMMANDS.find("run")._replace(run=lambda **_: None), ["--sytem=x"])
    assert len(commands()) > 90
    assert find_spec("astra_bridge") is not None
