# SPDX-License-Identifier: MIT
"""The page in Chromium, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.report import page, read_run
from tests.unit.test_report import everything, result

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
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(PROGRAMS[1]))
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
    file = tmp_path / "page.html"
    file.write_text(page([read_run(folder) for folder in folders[:several]]))
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(file.as_uri())
    wait = wait_for.WebDriverWait(browser, 60)
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
