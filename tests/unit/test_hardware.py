# SPDX-License-Identifier: MIT
"""Profiles of accelerators: those of the package, and those of users."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from astra_bridge.errors import InputError
from astra_bridge.hardware import HARDWARE, hardware, read_hardware

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hardware.md").read_text(encoding="utf-8")


def test_every_profile_of_the_package() -> None:
    for name in HARDWARE.names():
        one = hardware(name)
        assert one.name == name
        assert "https://" in one.datasheet.source
        assert one.datasheet.processors > 0
        assert (f"`{name}`" in PAGE) == (name in HARDWARE.built_in)


@pytest.mark.parametrize(
    ("name", "processors", "bf16", "memory_GBps", "memory_GB", "link_GBps"),
    [
        ("a100-40gb", 108, 312, 1555, 40, 300),
        ("a100-80gb", 108, 312, 2039, 80, 300),
        ("h100-pcie", 114, 756, 2000, 80, 300),
        ("b200", 148, 2250, 7672, 180, 900),
        ("gb200", 148, 2500, 8000, 186, 900),
        ("mi300x", 304, 1307.4, 5300, 192, 7 * 64),
        ("tpu-v4", 2, 275, 1228, 32, 6 * 50),
        ("tpu-v5e", 1, 197, 819, 16, 4 * 50),
    ],
)
def test_datasheets_as_they_were_looked_up(
    name: str, processors: int, bf16: float, memory_GBps: float, memory_GB: float, link_GBps: float
) -> None:
    """Once more, from the pages that each profile names, on 2026-11-28."""
    sheet = hardware(name).datasheet
    assert sheet.processors == processors
    assert sheet.tensor_TFLOPS["bf16"] == bf16
    assert sheet.memory_GBps == memory_GBps
    assert sheet.memory_GB == memory_GB
    assert sheet.link_GBps == link_GBps


def test_datasheets_are_the_makers() -> None:
    """NVIDIA's H100 and H200 datasheets: dense bf16 and fp8, bandwidth, SMs."""
    for name, memory_GBps in (("h100-sxm", 3350), ("h200", 4800)):
        sheet = hardware(name).datasheet
        assert sheet.tensor_TFLOPS["bf16"] == 989.4
        assert sheet.tensor_TFLOPS["fp8"] == 1978.9
        assert sheet.memory_GBps == memory_GBps
        assert sheet.processors == 132


def test_a_like_accelerator_stands_in() -> None:
    assert hardware("b200").fitted is hardware("h100-sxm").fitted
    assert hardware("b200").note() == "not measured: parameters of h100-sxm, this datasheet"
    with pytest.raises(InputError, match="tpu-v4 has only its datasheet"):
        hardware("tpu-v4").fitted  # noqa: B018


def test_the_profile_of_the_page(tmp_path: Path) -> None:
    text = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    (tmp_path / "mine.json").write_text(text[1])
    mine = hardware(tmp_path / "mine.json")
    assert mine.name == "my-card"
    assert mine.fitted is hardware("h100-sxm").fitted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"processors": 0}, "datasheet.processors"),
        ({"memory_GBps": "fast"}, "datasheet.memory_GBps"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_wrong_profile_says_where(tmp_path: Path, change: dict[str, object], said: str) -> None:
    file = ROOT / "astra_bridge/hardware/profiles/h100-sxm.json"
    content = json.loads(file.read_text())
    content["datasheet"] |= change
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said) as found:
        read_hardware(tmp_path / "bad.json")
    assert "bad.json" in str(found.value)


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'h200'"):
        hardware("h20")
