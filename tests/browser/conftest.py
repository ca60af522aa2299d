"""A browser for the tests of this folder; where there is none, they are skipped and say so."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "widgets"))

import mock_comm
from lab_driver import CHROMIUM, FLAGS, Lab
from stage import Shown


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine (apt-get install chromium)"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One a module and not one a session: while it is open its event loop runs in this thread, where later tests want their own."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def comms(monkeypatch):
    monkeypatch.setattr(mock_comm.MockComm, "open_comms", [])
    return mock_comm.install(monkeypatch)


@pytest.fixture
def show(browser, comms):
    """Makes runs on stages."""
    shown: list[Shown] = []

    def make(**options) -> Shown:
        shown.append(Shown(browser, **options))
        shown[-1].settle()
        return shown[-1]

    yield make
    for one in shown:
        one.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    started = Lab(tmp_path_factory.mktemp("lab"), {})
    yield started
    started.close()
