"""The report as people open it: Chromium, wide and on a phone, light and dark, and axe-core."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.gate.page.render import html_of
from tests.report_page.reports import green, hostile, red

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.gate.report.outcome import Report

pytestmark = pytest.mark.report

HERE = Path(__file__).resolve().parent / "report_page"
REPORTS = {"green": green, "red": red, "hostile": hostile}
PHONE_HEADLINE_PX = 300
"""The verdict and what it is about, on a phone: less than half of its first screen of 844."""


@pytest.fixture(scope="module", params=REPORTS)
def views(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What check.mjs says of a report at both widths in both colour schemes."""
    make: Callable[[], Report] = REPORTS[request.param]
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(html_of(make()), encoding="utf-8")
    chromium, node = shutil.which("chromium"), shutil.which("node")
    assert chromium, "no Chromium: make setup-report"
    assert node, "no Node: make setup-report"
    done = subprocess.run(
        [node, HERE / "check.mjs", chromium, page], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4
    return found


def test_nothing_sticks_out_or_is_too_small_to_read(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert (view["scrollWidth"], view["wide"]) == (view["width"], []), view["name"]
        assert view["smallText"] == 0, view["name"]


def test_links_lead_somewhere_within_the_page(views: list[dict[str, Any]]) -> None:
    for view in views:
        found = (view["deadLinks"], view["outsideLinks"], view["repeatedIds"])
        assert found == ([], [], []), view["name"]


def test_it_needs_no_network_and_runs_nothing(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert (view["requests"], view["errors"]) == ([], []), view["name"]


def test_axe_finds_nothing_serious(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["serious"] == [], view["name"]


def test_the_verdict_is_on_the_first_screen_in_the_readers_colours(
    views: list[dict[str, Any]],
) -> None:
    grounds = {view["name"]: view["ground"] for view in views}
    assert len({grounds["390-light"], grounds["390-dark"]}) == 2
    for view in views:
        assert view["headlineBottom"] <= PHONE_HEADLINE_PX, view["name"]
