"""A browser for the tests of pages, and reports to open in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from contracts import trained

from keepbest.cli import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-device-scale-factor=1")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A headless Chromium, one for each process of the tests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.fail("tests of pages need Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    running.set_page_load_timeout(60)
    yield running
    running.quit()


class Page:
    """A page in the browser."""

    def __init__(self, driver):
        self.driver = driver
        self.provoked = False
        """The test makes the console complain."""

    def open(self, path, *, width=1200, height=900):
        """Open a file, in a window of this size."""
        self.driver.get("about:blank")
        assert self.complaints() == []  # of the page before
        self.requests()
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get(Path(path).as_uri())
        return self

    def complaints(self):
        """Return what the console has said that is severe, since last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self):
        """Return the URLs that were asked for since last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def run(self, script, *arguments):
        """Run a script in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)


@pytest.fixture
def page(chromium):
    """The browser, with no theme preferred. Whatever a test does there, the console has nothing to say of it."""
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page = Page(chromium)
    yield page
    said = page.complaints()
    assert said == [] or page.provoked


@pytest.fixture
def report(tmp_path, capsys):
    """Write the report of some runs and return its path."""

    def write(*urls):
        path = tmp_path / "report.html"
        code = main(["report", *urls, "-o", str(path)])
        assert code == 0, capsys.readouterr().err
        return path

    return write


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The URL of a run that crashed, was resumed, overfitted and was stopped."""
    return trained.overfitted(str(tmp_path_factory.mktemp("runs") / "digits"))
