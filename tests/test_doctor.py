"""What ``exportgate doctor`` says of a checkpoint and its swipes, right and wrong ones."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exportgate.data.features import KEY_CENTRES
from exportgate.data.manifest import read_manifest
from exportgate.exit import Exit
from harness.console import main
from harness.onboarding.doctor import examine
from harness.onboarding.layout import layout_problems
from tests.wrong_inputs.bench import GOLDEN, Bench, arguments_of, problems_of
from tests.wrong_inputs.checkpoints import CHECKPOINTS, prefixed
from tests.wrong_inputs.swipes import SWIPES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_wrong_checkpoint_is_one_sentence(name: str, bench: Bench) -> None:
    make, said = CHECKPOINTS[name]
    problem = only_problem(*arguments_of("checkpoint", make(bench)))
    assert matches(said, problem), problem


@pytest.mark.parametrize("name", SWIPES)
def test_a_wrong_manifest_is_one_sentence(name: str, bench: Bench) -> None:
    make, said = SWIPES[name]
    problem = only_problem(*arguments_of("swipes", make(bench)))
    assert matches(said, problem), problem


def matches(pattern: str, text: str) -> bool:
    escaped = pattern.replace("save_to()", r"save_to\(\)")
    return re.search(escaped, text) is not None


def only_problem(*arguments: str) -> str:
    """Return the one problem that the command prints, which it must exit with 1 for."""
    status, problems, printed = problems_of(*arguments)
    assert status == Exit.FAILED
    assert len(problems) == 1, printed
    assert "1 problem: mend this and run it again:" in printed
    return problems[0]


def test_swipes_of_another_layout_are_no_problem() -> None:
    swipes = read_manifest(GOLDEN / "val.jsonl")
    assert layout_problems(swipes) == []
    rng = np.random.default_rng(0)
    letters = dict(zip(KEY_CENTRES, rng.permutation(list(KEY_CENTRES)), strict=True))
    other = [replace(s, word="".join(letters.get(c, c) for c in s.word)) for s in swipes]
    assert layout_problems(other) == []
    staggered = [replace(s, points=s.points + np.array([0.04, 0.0, 0.0])) for s in swipes]
    assert layout_problems(staggered) == []
    assert layout_problems([replace(s, word="да") for s in swipes]) == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapper_of_the_training_is_a_note(bench: Bench, prefix: str) -> None:
    findings, _ = examine(bench.nemo(state=prefixed(bench.state(), prefix)), None, None)
    assert [part.problems for part in findings] == [()] * len(findings)
    assert "of a wrapper of the training: it is removed" in findings[0].notes[0]


def test_a_hybrid_model_is_exported_without_its_ctc_head(bench: Bench) -> None:
    path = bench.nemo(target="nemo.collections.asr.models.EncDecHybridRNNTCTCModel")
    findings, _ = examine(path, None, None)
    assert findings[0].problems == ()
    assert findings[0].notes == ("hybrid RNN-T/CTC: the CTC head is not exported",)


def test_windows_line_ends_are_no_problem(bench: Bench) -> None:
    lines = (GOLDEN / "val.jsonl").read_bytes().replace(b"\n", b"\r\n")
    findings, swipes = examine(GOLDEN / "golden.nemo", bench.file("my.jsonl", lines), None)
    assert len(swipes) == 320
    assert [part.problems for part in findings] == [()] * len(findings)


def test_swipes_that_calibrate_and_judge() -> None:
    findings, _ = examine(GOLDEN / "golden.nemo", None, GOLDEN / "val.jsonl")
    (problem,) = [problem for part in findings for problem in part.problems]
    assert problem.startswith("320 of its swipes judge as well, first its line 1")


def test_a_small_manifest_and_the_gates_that_allow_it(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (GOLDEN / "val.jsonl").read_bytes().splitlines()[:40]
    small = str(bench.file("small.jsonl", b"\n".join(lines)))
    golden = str(GOLDEN / "golden.nemo")
    assert main(["doctor", golden, "--manifest", small]) == Exit.FAILED
    assert "40 different swipes, but a verdict needs 300" in capsys.readouterr().out
    over = bench.file(
        "over.toml", b"schema = 1\n[checkpoint]\ndistinct_swipes_min = 1\ndistinct_words_min = 1\n"
    )
    assert main(["doctor", golden, "--manifest", small, "--gates", str(over)]) == Exit.PASSED
    assert f"--gates {over}" in capsys.readouterr().out


def test_what_the_golden_checkpoint_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(GOLDEN / "golden.nemo"), "--target", "edge"]) == Exit.PASSED
    printed = capsys.readouterr().out
    for said in (
        "EncDecRNNTModel; layers 3, width 96, heads 4, kernel 15, subsampling 4",
        "811,750: encoder 705,672, prediction network 77,376, joint 28,702",
        "29 labels (<blank> ' a b c d … <unk>); words are lower-cased",
        "29, the last index; decoding starts with it",
        "greedy, at most 10 labels a frame",
        "37 channels a point",
        "320 swipes, 320 words, 30 to 200 points",
    ):
        assert said in printed


def test_long_swipes_get_their_option(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def repeat_last(record: dict[str, Any]) -> None:
        record["points"] += [record["points"][-1]] * 50

    path = bench.swipes(repeat_last)
    assert main(["doctor", str(GOLDEN / "golden.nemo"), "--manifest", str(path)]) == Exit.PASSED
    assert capsys.readouterr().out.rstrip().endswith("--max-trace-len 250")


@pytest.mark.slow
def test_the_printed_command_can_be_run(bench: Bench) -> None:
    shutil.copy(GOLDEN / "golden.nemo", bench.folder / "a model.nemo")
    shown = subprocess.run(
        [sys.executable, "-m", "harness.console", "doctor", str(bench.folder / "a model.nemo")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = shlex.split(shown.splitlines()[-1])
    at = command.index("gate")
    again = [sys.executable, "-m", "harness.console", *command[at:], "--collect-only", "-q"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "encoder_int8.pte" in done.stdout


def test_it_starts_without_nemo() -> None:
    code = (
        "import sys, harness.onboarding.doctor as d; "
        f"d.main([{str(GOLDEN / 'golden.nemo')!r}]); assert 'nemo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
