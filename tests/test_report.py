"""The report's words: what is wrong and how near it is, in every form that it is written in."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exportgate.contract import ModelSpec
from exportgate.data.manifest import Swipe
from harness.decode.changed import changed_words, first_difference
from harness.decode.greedy import Hypothesis
from harness.gate.gates import Gate, Reason, judge
from harness.gate.page.render import html_of
from harness.gate.report.changes import change_lines
from harness.gate.report.margins import margin, narrowest, narrowest_by_gate
from harness.gate.report.markdown import MOST_LINES, summary
from harness.gate.report.outcome import Report
from harness.gate.report.reasons import headline, problems
from harness.gate.report.sarif import sarif
from harness.gate.report.writing import REPORT_FILES, STEP_SUMMARY, write_report
from tests.report_page.reports import COMMAND, LIMITS, NAMES, SHA, green, hostile, red

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gate.gates import Verdict

MOST_BYTES = 1_000_000
SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)


def used(metric: str, direction: str, limit: float, value: float, reason: Reason) -> float | None:
    found = margin(judge(Gate("step_fp32.onnx", metric, direction, limit, reason), value))  # type: ignore[arg-type]
    return None if found is None else round(found.used, 3)


@pytest.mark.parametrize(
    ("metric", "direction", "limit", "value", "reason", "wanted"),
    [
        ("sqnr_db", "min", 30, 50, Reason.ARITHMETIC, 0.1),
        ("clip_noise_ratio", "max", 12, 12, Reason.ARITHMETIC, 1.0),
        ("sqnr_db", "min", 30, 10, Reason.ARITHMETIC, 10.0),
        ("words_lost_p", "min", 0.001, 1.0, Reason.STATISTICAL, 0.0),
        ("words_lost_p", "min", 0.001, 0.001, Reason.STATISTICAL, 1.0),
        ("words_lost_p", "min", 0.001, 0.0, Reason.STATISTICAL, 100.0),
        ("low_cosine", "min", 0.99, 0.999, Reason.ARITHMETIC, 0.1),
        ("speedup", "min", 1.0, 2.0, Reason.EXACT, 0.5),
        ("size_ratio", "max", 0.5, 0.25, Reason.ARITHMETIC, 0.5),
        ("nonfinite", "max", 0, 0, Reason.EXACT, None),
        ("speedup", "min", 1.0, float("inf"), Reason.EXACT, None),
        ("accuracy_over_chance", "min", 0, 0.8, Reason.STATISTICAL, None),
        ("delegates", "max", 3, 3, Reason.ARITHMETIC, None),
        ("distinct_swipes", "min", 300, 320, Reason.STATISTICAL, None),
        ("weight_bytes_ratio", "max", 1.05, 0.96, Reason.ARITHMETIC, 0.0),
        ("weight_bytes_ratio", "max", 1.05, 1.04, Reason.ARITHMETIC, 0.8),
        ("batch_noise_ratio", "max", 2, 1.5, Reason.ARITHMETIC, 0.75),
    ],
)
def test_margins_of_every_unit_are_on_one_scale(
    metric: str, direction: str, limit: float, value: float, reason: Reason, wanted: float | None
) -> None:
    assert used(metric, direction, limit, value, reason) == wanted


def test_the_narrowest_margin_comes_first_and_broken_gates_are_none() -> None:
    found = narrowest(red().verdicts, 5)
    assert [item.used for item in found] == sorted((item.used for item in found), reverse=True)
    assert all(item.used <= 1 for item in found)


def test_each_gate_has_one_margin_where_it_is_narrowest() -> None:
    found = narrowest_by_gate(green().verdicts, 99)
    metrics = [item.verdict.gate.metric for item in found]
    assert len(metrics) == len(set(metrics))
    assert found[0] == narrowest(green().verdicts, 1)[0]


def test_the_headline_says_what_to_do() -> None:
    assert headline(green()).startswith(
        "Ready to ship for all targets: 13 files kept all 92 limits"
    )
    assert headline(red()).startswith("Do not ship for all targets: ")
    assert "1 test in error" in headline(red())


def test_one_crash_is_one_problem_and_one_gate_in_many_files_too() -> None:
    found = problems(red())
    crash = [p for p in found if "died" in p.reasons[0].cause]
    assert len(crash) == 1
    assert len(crash[0].reasons[0].verdicts) == len(LIMITS)
    noise = next(p for p in found if p.title.startswith("9 files: signal to noise"))
    noisy = {v.gate.artifact for v in red().verdicts if v.value == 3.25}
    assert {reason.artifact for reason in noise.reasons} == noisy
    assert noise.reasons[0].command == COMMAND.format(noise.reasons[0].artifact)


def test_what_explains_most_comes_first_and_of_each_file_once() -> None:
    def bad(name: str, metric: str, value: float | None, detail: str) -> Verdict:
        return judge(Gate(name, metric, "min", 30.0, Reason.ARITHMETIC), value, detail)

    gone = "step_fp32.onnx: no such artifact"
    verdicts = (
        bad("encoder_int8.onnx", "sqnr_db", 3.0, "a"),
        bad("encoder_int8.onnx", "worst_sqnr_db", 2.0, "b"),
        bad("encoder_int8.onnx", "low_cosine", None, gone),
        bad("encoder_fp32.pte", "worst_sqnr_db", 1.0, "c"),
        bad("encoder_fp32.pte", "sqnr_db", 40.0, ""),
        bad("step_fp32.onnx", "sqnr_db", None, gone),
        bad("step_fp32.onnx", "low_cosine", None, gone),
    )
    found = problems(replace(green(), verdicts=verdicts))
    assert [problem.title for problem in found] == [
        "step_fp32.onnx: nothing could be measured",
        "encoder_int8.onnx: signal to noise against NeMo's FP32, over all swipes",
        "2 files: signal to noise of the worst swipe",
    ]
    assert [reason.artifact for reason in found[0].reasons] == [
        "step_fp32.onnx",
        "encoder_int8.onnx",
    ]


def test_a_report_can_be_read_again() -> None:
    for report in (green(), red(), hostile()):
        again = Report.from_json(json.loads(report.to_json()))
        assert again.to_json() == report.to_json()
        assert html_of(again) == html_of(report)


def test_every_form_is_written_and_the_summary_is_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "step.md"
    shown.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv(STEP_SUMMARY, str(shown))
    write_report(red(), tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(REPORT_FILES)
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert shown.read_text(encoding="utf-8") == f"before\n{text}"
    card = (tmp_path / "report" / "model_card.md").read_text(encoding="utf-8")
    assert "## Limitations" in card
    assert "- not measured: encoder_fp32.onnx baseline_instruction_ratio" in card
    assert card.count(SHA) == 4 + len(NAMES)


@pytest.mark.parametrize("make", [green, red, hostile])
def test_the_comment_is_short_and_says_the_verdict(make: type[Report]) -> None:
    report = make()
    lines = summary(report).splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0].startswith("## ✅ Ready" if report.passed else "## ❌ Do not ship")


def test_the_comment_names_cause_command_and_change() -> None:
    text = summary(red())
    assert "Cause: 41 swipes lost their word" in text
    assert f"```sh\n{COMMAND.format('encoder_fp32.onnx')}\n```" in text
    assert "sqnr_db: 46 dB → 3.25 dB (-92.9%), FAIL: must be ≥ 30 dB" in text


def test_changes_leave_out_what_did_not_move() -> None:
    assert change_lines(green()) == []
    lines = change_lines(green(baseline={NAMES[0]: {"sqnr_db": 45.4, "low_cosine": 0.9}}))
    assert lines == [f"{NAMES[0]} low_cosine: 0.9 → 0.9999 (+11.1%)"]


class Tags(HTMLParser):
    """Collects the elements of a page and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


@pytest.mark.parametrize("make", [green, red, hostile])
def test_the_page_is_one_small_file_that_asks_for_nothing(make: type[Report]) -> None:
    page = html_of(make())
    assert len(page.encode()) <= MOST_BYTES
    found = tags(page)
    names = {name for name, _ in found}
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "form", "base"}
    for _, attributes in found:
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", page)


def test_every_link_of_the_page_leads_somewhere_and_ids_are_unique() -> None:
    found = tags(html_of(red()))
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for name, a in found if name == "a" and a.get("href")]
    assert {f"#{name}" for name in ids} >= {*links}


def test_the_page_names_what_was_judged_and_by_which_gate() -> None:
    page = html_of(red())
    for said in (SHA, "f" * 40, "2026-01-02 03:04:05 UTC", "exportgate 0.1.0", "gates.toml"):
        assert said in page


def test_a_run_that_judged_nothing_has_a_page_too() -> None:
    report = Report(green().request, green().environment, (), ())
    assert "nothing was judged" in html_of(report)
    assert "nothing was judged" in summary(report)


def test_sarif_has_a_result_with_a_place_for_each_gate_that_was_not_kept() -> None:
    run = json.loads(sarif(red()))["runs"][0]
    bad = [verdict for verdict in red().verdicts if verdict.status != "PASS"]
    assert len(run["results"]) == len(bad)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result, verdict in zip(run["results"], bad, strict=True):
        assert rules[result["ruleIndex"]] == result["ruleId"] == verdict.gate.metric
        assert result["level"] == ("note" if verdict.waived else "error")
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "suites/gates.toml"
        assert place["region"]["startLine"] > 1
    prints = [result["partialFingerprints"]["gate/v1"] for result in run["results"]]
    assert len(prints) == len(set(prints))
    assert json.loads(sarif(green()))["runs"][0]["results"] == []


def hypothesis(tokens: tuple[int, ...], frames: tuple[int, ...]) -> Hypothesis:
    return Hypothesis(tokens, frames, 0.0, 1.0, len(tokens))


def test_words_part_at_the_first_frame_that_differs() -> None:
    one = hypothesis((1, 2, 3), (2, 5, 9))
    assert first_difference(one, hypothesis((1, 2), (2, 5))) == 9
    assert first_difference(one, hypothesis((1, 4, 3), (2, 5, 9))) == 5
    assert first_difference(one, hypothesis((1, 2, 3), (2, 4, 9))) == 4
    assert first_difference(one, one) == 0


def test_lost_words_come_before_gained_ones() -> None:
    points = np.array([[0.1, 0.2, 0.0], [0.3, 0.4, 10.0]])
    right, wrong = hypothesis((0,), (1,)), hypothesis((1,), (0,))
    swipes = [Swipe("b", points, 1), Swipe("a", points, 2), Swipe("a", points, 3)]
    nemo, ours = [right, right, right], [wrong, wrong, right]
    found = changed_words(swipes, nemo, ours, SPEC)
    assert [row["line"] for row in found] == [2, 1]
    assert (found[0]["ours"], found[0]["nemo"]) == ("b", "a")
    assert len(changed_words(swipes, nemo, ours, SPEC, most=1)) == 1


def test_commands_can_be_pasted() -> None:
    for problem in problems(red()):
        for reason in problem.reasons:
            if reason.command:
                assert shlex.split(reason.command)[1].startswith("suites/")
