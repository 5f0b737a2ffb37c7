"""The demo in a real browser: finger and mouse draw swipes, and the words are the right ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exportgate.data.manifest import read_manifest
from tests.clients.builds import WEB
from tests.clients.chromium import Chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exportgate.data.manifest import Swipe


@pytest.fixture(scope="module")
def page(bundle: Path, web_client: Path) -> Iterator[str]:
    """Serve the demo; return its address."""
    (WEB / "dist").mkdir(exist_ok=True)
    shutil.copy(web_client, WEB / "dist" / "client.js")
    command = ["node", WEB / "demo" / "serve.mjs", bundle, "0"]
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+/) ", server.stdout.readline())
        assert found
        yield found[1]
        server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    assert shutil.which("chromium"), "chromium is not installed; see docs/client.md, Set-up"
    with Chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def known(bundle: Path) -> list[dict[str, str]]:
    answers = json.loads((bundle / "known_answers.json").read_text("utf-8"))
    return [{"word": swipe["word"]} for swipe in answers["swipes"]]


BOX = """
(({x, y, width, height}) => [x, y, width, height])(
    document.querySelector('#keyboard').getBoundingClientRect())
"""


def on_screen(swipe: Swipe, browser: Chromium) -> list[tuple[float, float, float]]:
    box = browser.value(BOX)
    return [(box[0] + x * box[2], box[1] + y * box[3], t) for x, y, t in swipe.points.tolist()]


WORDS = """
[...document.querySelectorAll('ol')].map((list) => list.querySelector('li span')?.textContent)
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_swipe_becomes_words(
    page: str,
    browser: Chromium,
    bundle: Path,
    known: list[dict[str, str]],
    width: int,
    *,
    dark: bool,
) -> None:
    browser.send("Emulation.setTouchEmulationEnabled", enabled=width < 600)
    browser.open(page, width=width, height=900 if width > 600 else 844, dark=dark)
    assert browser.wait("document.body.dataset.ready") == "yes", browser.value(
        "document.querySelector('#status').textContent"
    )
    swipes = {swipe.word: swipe for swipe in read_manifest(bundle.parent / "val.jsonl")}
    shown = known[-1]["word"]
    browser.drag(on_screen(swipes[shown], browser), touch=width < 600)
    browser.wait("document.body.dataset.decoded === '1'")
    assert browser.value(WORDS) == [shown, shown]  # FP32 and INT8
    assert browser.value("document.querySelectorAll('.frames i.letter').length") >= 2
    assert browser.value("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"demo-{width}-{'dark' if dark else 'light'}.png")


def test_a_page_refuses_a_bundle_whose_answers_differ(
    page: str, browser: Chromium, bundle: Path
) -> None:
    path = bundle / "known_answers.json"
    kept = path.read_text("utf-8")
    answers = json.loads(kept)
    answers["pairs"][0]["answers"][0]["score"] += 1
    path.write_text(json.dumps(answers), "utf-8")
    try:
        browser.open(page)
        assert browser.wait("document.body.dataset.ready") == "no"
        assert "score" in browser.value("document.querySelector('#status').textContent")
    finally:
        path.write_text(kept, "utf-8")
