"""The clients get from a bundle what the harness gets, and refuse what they read wrongly."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.clients.builds import ANDROID, PYTHON, WEB, android, web, web_command
from tests.clients.judge import differences, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.clients.builds import Edit
    from tests.clients.judge import Expected

    Harness = Callable[[str, str, int], Expected]

SWIPES = 60
SELF_TEST_MS = 50.0
WEB_PAIRS = [
    ("encoder_fp32.onnx", "step_fp32.onnx"),
    ("encoder_int8_web.onnx", "step_fp32.onnx"),
    ("encoder_fp32.onnx", "step_int8.onnx"),
]
ANDROID_PAIRS = [
    ("encoder_fp32.pte", "step_fp32.pte"),
    ("encoder_int8.pte", "step_fp32.pte"),
    ("encoder_fp32.pte", "step_int8.pte"),
]


@pytest.mark.parametrize(("encoder", "step"), WEB_PAIRS)
def test_the_web_client_gets_what_the_harness_gets(
    bundle: Path, web_client: Path, harness_words: Harness, encoder: str, step: str
) -> None:
    wanted = harness_words(encoder, step, SWIPES)
    found, errors = run(web_command(web_client, bundle, encoder, step), wanted.swipes)
    assert errors == ""
    assert differences(found[1:], wanted) == []


@pytest.mark.parametrize(("encoder", "step"), ANDROID_PAIRS)
def test_the_android_client_gets_what_the_harness_gets(
    bundle: Path, android_client: Path, harness_words: Harness, encoder: str, step: str
) -> None:
    wanted = harness_words(encoder, step, SWIPES)
    found, errors = run([android_client, bundle, encoder, step], wanted.swipes)
    assert errors == ""
    assert differences(found[1:], wanted) == []


def test_a_client_written_from_the_documents_alone(bundle: Path, harness_words: Harness) -> None:
    wanted = harness_words(*WEB_PAIRS[0], SWIPES)
    ours = re.compile(r"^(import|from) (exportgate|exporters|harness)", re.MULTILINE)
    assert not ours.search(PYTHON.read_text("utf-8"))
    found, errors = run([sys.executable, PYTHON, bundle, *WEB_PAIRS[0]], wanted.swipes)
    assert errors == ""
    assert differences(found[1:], wanted) == []


NO_TEST_WEB: Edit = ("client.ts", "SELF_TEST_SWIPES = 3", "SELF_TEST_SWIPES = 0")
NO_TEST_ANDROID: Edit = ("client.hpp", "self_test(known, *pair, swipe);", "(void)swipe;")
WEB_FAULTS: dict[str, list[Edit]] = {
    "blank taken as 0": [
        ("decoder.ts", "label === spec.blank_id", "label === 0"),
        ("decoder.ts", "logProbs[this.spec.blank_id]", "logProbs[0]"),
    ],
    "state kept after a blank": [("decoder.ts", "if (rule.keeps_state)", "if (true)")],
    "coordinates in [-1, 1]": [
        ("features.ts", "[x, y, t - points[0][2]]", "[2 * x - 1, 2 * y - 1, t - points[0][2]]")
    ],
    "logits taken as log-probabilities": [
        ("decoder.ts", 'scores === "log_probs"', 'scores !== "log_probs"')
    ],
    "int32 lengths": [
        ("decoder.ts", "this.tensor(lengths,", 'this.tensor({ ...lengths, dtype: "int32" },')
    ],
    "start symbol 0": [("decoder.ts", "last: this.spec.start_symbol", "last: 0")],
}
ANDROID_FAULTS: dict[str, list[Edit]] = {
    "blank taken as 0": [("decoder.hpp", 'blank_ = spec["blank_id"].integer()', "blank_ = 0")],
    "state kept after a blank": [("decoder.hpp", 'if (rule["keeps_state"].number)', "")],
    "coordinates in [-1, 1]": [
        (
            "features.hpp",
            "point[2] -= start;",
            "point = {2 * point[0] - 1, 2 * point[1] - 1, point[2] - start};",
        )
    ],
    "logits taken as log-probabilities": [
        ("decoder.hpp", 'text == "log_probs"', 'text != "log_probs"')
    ],
    "int32 lengths": [
        ("program.hpp", 'if (dtype == "int64")', 'if (dtype == "int64" && i == 0)'),
        ("program.hpp", 'if (dtype == "int32")', 'if (dtype != "float32" && i == 1)'),
    ],
    "a beam of N sent to a program that takes one": [
        ("decoder.hpp", "takes.kind == Json::kNumber ? takes.integer() : ", ""),
        ("decoder.hpp", "const Json& takes", "[[maybe_unused]] const Json& takes"),
    ],
    "start symbol 0": [("decoder.hpp", 'return {spec_["start_symbol"].integer(),', "return {0,")],
}  # fmt: skip


@pytest.mark.parametrize("fault", WEB_FAULTS)
def test_a_fault_in_the_web_client_is_seen(
    bundle: Path, web_client: Path, harness_words: Harness, fault: str, tmp_path: Path
) -> None:
    assert web_client.is_file()  # its packages are installed
    pair = WEB_PAIRS[0]
    wanted = harness_words(*pair, 8)
    client = web(tmp_path / "faulty", WEB_FAULTS[fault])
    found, errors = run(web_command(client, bundle, *pair), [])
    assert not found
    assert "error:" in errors
    unchecked = web(tmp_path / "unchecked", [*WEB_FAULTS[fault], NO_TEST_WEB])
    found, errors = run(web_command(unchecked, bundle, *pair), wanted.swipes)
    assert errors or differences(found[1:], wanted)


@pytest.mark.parametrize("fault", ANDROID_FAULTS)
def test_a_fault_in_the_android_client_is_seen(
    bundle: Path, harness_words: Harness, fault: str, tmp_path: Path
) -> None:
    pair = ANDROID_PAIRS[0]
    wanted = harness_words(*pair, 8)
    found, errors = run([android(tmp_path / "faulty", ANDROID_FAULTS[fault]), bundle, *pair], [])
    assert not found
    assert "error:" in errors
    unchecked = android(tmp_path / "unchecked", [*ANDROID_FAULTS[fault], NO_TEST_ANDROID])
    found, errors = run([unchecked, bundle, *pair], wanted.swipes)
    assert errors or differences(found[1:], wanted)


def test_a_changed_file_is_refused(
    bundle: Path, web_client: Path, android_client: Path, tmp_path: Path
) -> None:
    harmed = shutil.copytree(bundle, tmp_path / "harmed")
    for name in ("step_fp32.onnx", "step_fp32.pte"):
        data = bytearray((harmed / name).read_bytes())
        data[len(data) // 2] ^= 1
        (harmed / name).write_bytes(data)
    for command in (
        web_command(web_client, harmed, *WEB_PAIRS[0]),
        [android_client, harmed, *ANDROID_PAIRS[0]],
    ):
        found, errors = run(command, [])
        assert not found
        assert "SHA-256" in errors


def test_a_self_test_is_quick(bundle: Path, web_client: Path, android_client: Path) -> None:
    # First starts, each in a process of its own. Node's by the processor time of its thread.
    command = web_command(web_client, bundle, *WEB_PAIRS[1])
    times = [run(command, [])[0][0]["self_test_ms"] for _ in range(5)]
    assert max(times) <= SELF_TEST_MS, times
    # By the clock on the wall: other work only adds to it.
    command = [android_client, bundle, *ANDROID_PAIRS[1]]
    times = [run(command, [])[0][0]["self_test_ms"] for _ in range(3)]
    assert min(times) <= SELF_TEST_MS, times


@pytest.mark.parametrize(("folder", "most"), [(WEB / "src", 500), (ANDROID / "src", 600)])
def test_a_client_is_short(folder: Path, most: int) -> None:
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.iterdir())
    assert lines <= most
