# SPDX-License-Identifier: MIT
"""`calibrate --kernels`: finds known parameters again, says how good it is, writes a profile."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from astra_bridge.cli import main
from astra_bridge.compute.gpu import Kernels
from astra_bridge.hardware import Fitted, Hardware, hardware, read_hardware
from astra_bridge.validation import geomean
from astra_bridge.validation.fitting import class_of, fit_hardware
from astra_bridge.validation.gpu import CLASSES
from astra_bridge.validation.table import SHIPPED

pytest.importorskip("scipy")

PAGE = (Path(__file__).parents[2] / "docs/hardware.md").read_text(encoding="utf-8")


def made_by(card: Hardware, changes: dict[str, float], file: Path) -> Path:
    """Products as a card would have measured whose bf16 parameters are others."""
    content = msgspec.json.decode(msgspec.json.encode(card.fitted))
    content["gemm"]["bf16"] |= changes
    kernels = Kernels(card, msgspec.convert(content, Fitted))
    lines = ["dtype,m,n,k,us"]
    for m in (16, 128, 1024, 4096, 8192):
        for n, k in ((1024, 4096), (4096, 4096), (14336, 4096), (4096, 14336)):
            us = float(kernels.gemm(m, n, k)) + kernels.fitted.gemm["bf16"].start_us
            lines.append(f"bf16,{m},{n},{k},{us:.4f}")
    file.write_text("\n".join(lines) + "\n")
    return file


def test_what_is_known_is_found(tmp_path: Path) -> None:
    card = hardware("h100-sxm")
    known = {"efficiency": 0.7, "memory": 0.75, "start_us": 9.0}
    found = fit_hardware([made_by(card, known, tmp_path / "mine_gemm.csv")], card)
    for name, value in known.items():
        assert found.fitted["gemm"]["bf16"][name] == pytest.approx(value, rel=0.1), name
    (quality,) = found.qualities
    assert quality.name == "gemm_bf16"
    assert (quality.used, quality.held_out) == (16, 4)
    assert quality.before is not None
    assert quality.after is not None
    assert quality.after < 0.02 < 0.15 < quality.before
    # The errors are those of the rows that were not used.
    held = [row for row in found.rows if not row["used"]]
    assert len(held) == 4
    for key, error in (("before_us", quality.before), ("after_us", quality.after)):
        assert error == pytest.approx(geomean(row[key] / row["measured_us"] for row in held))
    # Everything that was not measured is as it was.
    prior = msgspec.json.decode(msgspec.json.encode(card.fitted))
    others = {key: one for key, one in found.fitted.items() if key not in ("to", "gemm")}
    assert others == {key: prior[key] for key in others}
    assert found.fitted["gemm"]["fp8"] == prior["gemm"]["fp8"]


def test_a_profile_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = SHIPPED / "gpu"
    card = tmp_path / "card.json"
    sheet = json.loads((Path(SHIPPED).parents[1] / "hardware/profiles/h200.json").read_text())
    del sheet["fitted"]
    card.write_text(json.dumps(sheet | {"name": "card", "fitted_as": "h100-sxm"}))
    written = tmp_path / "fitted.json"
    files = [f"--kernels={data}/h200_{name}.csv" for name in ("gemm_bf16", "optimizer")]
    assert main(["calibrate", *files, f"--hardware={card}", "-o", str(written)]) == 0
    printed = capsys.readouterr().out
    read = read_hardware(written)
    assert read.name == "fitted"
    assert read.own is not None
    assert read.own.to in printed
    assert "h200_gemm_bf16.csv, h200_optimizer.csv; all else as h100-sxm" in read.own.to
    before, after = (
        {row["class"]: row for row in json.loads(text)["sets"] if row["set"] == "gpu"}
        for text in (_validated(tmp_path, capsys, card), _validated(tmp_path, capsys, written))
    )
    for kind in ("h200_gemm_bf16", "h200_optimizer"):
        assert after[kind]["error_geomean"] < before[kind]["error_geomean"]
    assert after["h200_memcpy"] == before["h200_memcpy"]
    ends = []
    for one in (card, written):
        prefix = str(tmp_path / "step")
        assert (
            main(["workload", "model", "qwen2.5-7b", "--tp=2", "--gpu", str(one), "-o", prefix])
            == 0
        )
        ends.append((tmp_path / "step.kind0.et").read_bytes())
    assert ends[0] != ends[1]


def _validated(folder: Path, capsys: pytest.CaptureFixture[str], card: Path) -> str:
    file = folder / "o.json"
    assert main(["validate", "gpu", f"--hardware={card}", f"--json={file}"]) == 0
    assert "no row counts as fitted" in capsys.readouterr().out
    return file.read_text()


def test_operators_and_precisions_of_ones_own(tmp_path: Path) -> None:
    """A rope kernel that reads and writes twice what it must; products in a new precision."""
    card = hardware("h100-sxm")
    kernels = Kernels(card)
    lines = ["op,rows,cols,min_bytes,us"]
    for rows in (256, 1024, 4096, 16384, 65536):
        least = 4 * rows * 4096
        us = 2 * float(kernels.stream(least)) + kernels.fitted.memory_bound.start_us
        lines.append(f"rope,{rows},4096,{least},{us:.4f}")
    (tmp_path / "x_memory_bound.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "x_gemm.csv").write_text("dtype,m,n,k,us\nfp16,4096,4096,4096,200\n")
    found = fit_hardware([tmp_path], "h100-sxm")
    (rope,) = found.fitted["operators"]["rope"]
    assert rope["passes"] == pytest.approx(4, rel=0.1)
    assert found.fitted["gemm"]["fp16"] != found.fitted["gemm"]["bf16"]
    (single,) = [one for one in found.qualities if one.name.startswith("gemm")]
    assert (single.used, single.held_out, single.before) == (1, 0, None)
    found.save(tmp_path / "rope.json")
    us = float(Kernels(read_hardware(tmp_path / "rope.json")).operator("rope", 16384, 4096))
    assert us == pytest.approx(2 * float(kernels.stream(4 * 16384 * 4096)), rel=0.1)


def test_the_errors_that_the_page_names(tmp_path: Path) -> None:
    text = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    (tmp_path / "my-card.json").write_text(text[1])
    files = [SHIPPED / f"gpu/h200_{name}.csv" for name in ("gemm_bf16", "memory_bound")]
    found = fit_hardware(files, tmp_path / "my-card.json")
    told = re.findall(r"([\d.]+) % instead of\s+([\d.]+) %", PAGE)
    assert len(told) == len(found.qualities) == 2
    for (after, before), quality in zip(told, found.qualities, strict=True):
        assert quality.before == pytest.approx(float(before) / 100, abs=0.001)
        # SciPy's steps differ from one version to the next.
        assert quality.after == pytest.approx(float(after) / 100, rel=0.1)


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_class_of_a_file(name: str, tmp_path: Path) -> None:
    """By its name, and by its columns; the page has the same columns."""
    kind = CLASSES[name]
    columns = (*kind.texts, *kind.columns)
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert re.findall("`(.*?)`", row[0]) == list(columns)
    assert re.findall("`(.*?)`", row[1]) == list(kind.measured)
    file = tmp_path / "measured.csv"
    file.write_text(",".join((*columns, *kind.measured)) + "\n")
    assert class_of(file).split("_")[0] == name.split("_")[0]
    assert class_of(Path(f"nowhere/x_{name}.csv")) == name


@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ({"a.csv": "x,y\n1,2\n"}, ["--hardware=h100-sxm"], "is of no class of measurements"),
        ({}, ["--hardware=h100-sxm"], "there are no CSV files"),
        ({"h9_gemm.csv": "dtype,m,n,k,us\n"}, [], "h9"),
        (
            {"h100_gemm_bf16.csv": "dtype,m,n,k,us\n", "h200_gemm_bf16.csv": "dtype,m,n,k,us\n"},
            [], "files of several accelerators: 'h100, h200'",
        ),
        ({"h100_gemm_bf16.csv": "dtype,m,n,k,us\nbf16,1,1,1,0\n"}, [], "a number above 0"),
        ({"h100_gemm_bf16.csv": "dtype,m,n,k,us\nint4,1,1,1,1\n"}, [], "int4"),
        ({"h100_gemm_bf16.csv": "dtype,m,n,k,us\n"}, [], "no rows"),
        ({"x_gemm_bf16.csv": "dtype,m,n,k,us\nbf16,1,1,1,1\n"}, ["--hardware=tpu-v4"],
         "only its datasheet"),
        ({"h100_gemm_bf16.csv": "dtype,m,n,k,us\nbf16,1,1,1,1\n"}, ["--to=ns3"], "--to"),
        ({"h100_gemm_bf16.csv": "dtype,m,n,k,us\nbf16,1,1,1,1\n"}, ["-o", "x.yaml"],
         "a profile ends in .json"),
    ],
)  # fmt: skip
def test_what_is_refused(
    files: dict[str, str], words: list[str], said: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["calibrate", f"--kernels={tmp_path}", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_same_rows_give_the_same_profile(tmp_path: Path) -> None:
    """In any order of the files' rows: what is held out goes by the shape."""
    source = SHIPPED / "gpu/h200_optimizer.csv"
    rows = list(csv.reader(source.read_text().splitlines()))
    turned = tmp_path / "h200_optimizer.csv"
    turned.write_text("\n".join(",".join(row) for row in (rows[0], *rows[:0:-1])) + "\n")
    one, other = (fit_hardware([file], "h100-sxm") for file in (source, turned))
    assert {row["shape"]: row["used"] for row in one.rows} == {
        row["shape"]: row["used"] for row in other.rows
    }
    for name, value in one.fitted["optimizer"].items():
        assert other.fitted["optimizer"][name] == pytest.approx(value, rel=1e-2)
    assert math.isfinite(one.qualities[0].fit_after)
    assert np.isfinite([row["after_us"] for row in one.rows]).all()
