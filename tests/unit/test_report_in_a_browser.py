# SPDX-License-Identifier: MIT
"""The page in Chromium, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.report import page, read_run
from astra_bridge.trace import CommType
from astra_bridge.workload import TraceBuilder
from tests.small import network, per_rank, run, same_on_all, system
from tests.unit.test_report import NASTY, everything, result
from tests.waiting import HANGS_S

pytest.importorskip("plotly")
webdriver = pytest.importorskip("selenium.webdriver")
wait_for = pytest.importorskip("selenium.webdriver.support.wait")
axe = pytest.importorskip("axe_core_python.selenium")
PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
pytestmark = pytest.mark.skipif(not all(PROGRAMS), reason="chromium and its driver are needed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Its sockets need short paths, whatever TMPDIR is.
    service = webdriver.ChromeService(PROGRAMS[1], env={**os.environ, "TMPDIR": "/tmp"})
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(HANGS_S)
    driver.set_page_load_timeout(HANGS_S)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run whose page has all parts, and one with names that mean harm."""
    found = [tmp_path_factory.mktemp(name) for name in ("everything", "nasty")]
    everything(found[0])
    result().save(found[1])
    return found


@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_reads_well(
    width: int, scheme: str, several: int, browser: Any, folders: list[Path], tmp_path: Path
) -> None:
    reads_well(page([read_run(folder) for folder in folders[:several]]), width, scheme, browser,
               tmp_path)  # fmt: skip


NAMES = ("\u202eright to left\u202c \u05d0\u05d1", "x" * 10_000, NASTY, "<b>bold</b> {{7*7}} %{y}",
         "line\nfeed\x1b[2J")  # fmt: skip


def hostile(trace: TraceBuilder, rank: int) -> None:
    last: list[int] = []
    for name in NAMES:
        last = [trace.comp(name, duration_us=5 + rank, deps=last)]
        last = [trace.coll(CommType.ALL_REDUCE, 10**5, name=name, deps=last)]


def some_of_two(trace: TraceBuilder, rank: int) -> None:
    if rank == 0:
        trace.comp("alone", duration_us=5)


EDGES = {
    "hostile names": (4, lambda: per_rank(4, hostile)),
    "no collective": (2, lambda: same_on_all(2, lambda trace: trace.comp("a", duration_us=5))),
    "nothing takes long": (2, lambda: same_on_all(2, lambda trace: trace.comp("a"))),
    "a rank without work": (2, lambda: per_rank(2, some_of_two)),
    "one rank": (1, lambda: same_on_all(1, lambda trace: trace.comp("a", duration_us=5))),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_read_well_on_a_phone(edge: str, browser: Any, tmp_path: Path) -> None:
    ranks, made = EDGES[edge]
    links = {"endpoints": 1, "links": []}
    run(made(), system(), network(npus=ranks) if ranks > 1 else links).save(tmp_path / "out")
    text = page([read_run(tmp_path / "out")])
    assert "x" * 500 not in text.partition('id="plotly"')[0]
    reads_well(text, 390, "dark", browser, tmp_path)
    assert browser.execute_script("return document.documentElement.scrollHeight") < 9_000
    assert not browser.execute_script("return document.querySelectorAll('img, b').length")
    titles = "return [...document.querySelectorAll('.xtitle, .ytitle')].map(e => e.textContent)"
    unit = "ns" if edge == "nothing takes long" else "us"
    assert f"time [{unit}]" in browser.execute_script(titles)


def test_everything_can_be_reached_by_keyboard(
    browser: Any, folders: list[Path], tmp_path: Path
) -> None:
    reads_well(page([read_run(folders[0])]), 390, "light", browser, tmp_path)
    browser.execute_script("document.body.focus()")
    reached = []
    for _ in range(80):
        browser.switch_to.active_element.send_keys("\ue004")  # Tab
        script = """const one = document.activeElement, style = getComputedStyle(one);
            return [one.tagName, one.getAttribute("aria-label"), style.outlineStyle]"""
        tag, label, outline = browser.execute_script(script)
        if tag == "BODY":
            break
        assert outline != "none"
        reached.append(label)
    # All tables, which are wider than a phone: arrows move what has the focus.
    sheets = "return [...document.querySelectorAll('.scroll')].map(e => e.ariaLabel)"
    assert set(browser.execute_script(sheets)) <= set(reached)


def reads_well(text: str, width: int, scheme: str, browser: Any, folder: Path) -> None:
    """No error, no request, nothing that sticks out, and nothing that axe finds."""
    file = folder / "page.html"
    file.write_text(text)
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(file.as_uri())
    wait = wait_for.WebDriverWait(browser, HANGS_S)
    wait.until(lambda one: one.execute_script("return document.documentElement.dataset.drawn"))
    assert browser.get_log("browser") == []
    asked = [entry["message"] for entry in browser.get_log("performance")]
    assert not [one for one in asked if "requestWillBeSent" in one and '"url":"http' in one]
    # Nothing sticks out, and all figures are drawn.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = "return document.querySelectorAll('.plot:not(:has(.main-svg))').length"
    assert browser.execute_script(script) == 0
    faults = axe.Axe().run(browser)["violations"]
    assert [one["id"] for one in faults] == []
