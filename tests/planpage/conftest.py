"""A real browser without a window, and pages of plans in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

QUIET = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
)
"""A browser that asks nobody anything by itself."""

Open = Callable[[str], Chrome]
"""Shows a page's text."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    driver = shutil.which("chromedriver")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or program is None:
        assert not os.environ.get("BATUTA_REQUIRE_BROWSER"), "there must be a browser"
        pytest.skip("there is no Chromium with its driver on this machine")
    options = ChromeOptions()
    options.binary_location = program
    for argument in QUIET:
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, Service(driver)) as chrome:
        yield chrome


@pytest.fixture
def opened(browser: Chrome, tmp_path: Path) -> Open:
    def show(page: str) -> Chrome:
        file = tmp_path / "plan.html"
        file.write_text(page, "utf-8")
        browser.get_log("browser")
        browser.get(file.as_uri())
        return browser

    return show
