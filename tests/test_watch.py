"""A running training: which checkpoints count, what is said of them, and the callback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exportgate.exit import Exit
from harness.onboarding.watch import Folder, WatchError, findings, held, main

ROOT = Path(__file__).resolve().parent.parent


def written(path: Path, second: int = 0, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (second, second))
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_files_count_once_they_rest_oldest_first_and_each_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path, settle_s=30)
    written(tmp_path / "late.nemo", 20)
    growing = written(tmp_path / "run" / "checkpoints" / "early.ckpt", 10)
    assert folder.complete(0) == []
    written(growing, 11, "more")
    assert names(folder.complete(30)) == ["late.nemo"]
    assert names(folder.complete(60)) == ["early.ckpt"]
    assert folder.complete(900) == []
    written(growing, 12, "written again")
    assert folder.complete(901) == []
    assert names(folder.complete(931)) == ["early.ckpt"]


def test_second_names_links_unfinished_and_vanished_files_do_not_count(tmp_path: Path) -> None:
    real = written(tmp_path / "epoch=1.ckpt")
    written(tmp_path / "epoch=1-last.ckpt")
    written(tmp_path / "epoch=2.ckpt")
    written(tmp_path / "epoch=2-unfinished")
    written(tmp_path / "hparams.yaml")
    (tmp_path / "link.ckpt").symlink_to(real)
    (tmp_path / "folder.nemo").mkdir()
    folder = Folder(tmp_path, settle_s=5)
    gone = written(tmp_path / "epoch=0.ckpt")
    folder.complete(0)
    gone.unlink()
    assert names(folder.complete(10)) == ["epoch=1.ckpt"]
    (tmp_path / "epoch=2-unfinished").unlink()
    folder.complete(20)
    assert names(folder.complete(30)) == ["epoch=2.ckpt"]


def test_a_checkpoint_outlives_its_deletion_while_it_is_gated(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ckpt", text="model")
    with held(path, tmp_path / "held") as copy:
        path.unlink()
        assert (copy.name, copy.read_text(encoding="utf-8")) == ("a.ckpt", "model")
    assert not copy.exists()
    with pytest.raises(FileNotFoundError), held(path, tmp_path / "held"):
        pass


def report(words: float, **broken: str) -> dict[str, Any]:
    measured = [("reference_word_accuracy", words), ("swipes", 1000.0)]
    gates = {"encoder_int8_pte": "PASS", "encoder_fp32_pte": "PASS", **broken}
    return {
        "measurements": [{"metric": name, "value": value} for name, value in measured],
        "gates": [
            {"subject": name.replace("_pte", ".pte"), "metric": "sqnr_db", "status": status}
            for name, status in gates.items()
        ],
    }


def test_it_says_when_words_or_quantisability_fall() -> None:
    assert findings(report(0.9), None) == []
    assert findings(report(0.89), report(0.9)) == []
    assert findings(report(0.8), report(0.9)) == ["words fell from 90.0% to 80.0% of 1000 swipes"]
    [said] = findings(report(0.9, encoder_int8_pte="FAIL"), report(0.9))
    assert said.startswith("no longer quantizable as encoder_int8.pte: sqnr_db broken, while FP32")
    both = report(0.9, encoder_int8_pte="FAIL", encoder_fp32_pte="FAIL")
    assert findings(both, report(0.9)) == []


def test_a_folder_without_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--once", "--target", "android", "--history", str(tmp_path / "history.db")]
    assert main([str(tmp_path), *options, "--nice", "0"]) == Exit.NOT_JUDGED
    assert "holds no finished .ckpt or .nemo that could be gated" in capsys.readouterr().err
    with pytest.raises(WatchError, match="no such folder; give the one that the training writes"):
        main([str(tmp_path / "none"), *options])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_as_the_training_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = written(tmp_path / "run" / "epoch=1.nemo", text="no archive")
    options = ["--once", "--target", "android", "--history", str(tmp_path / "history.db")]
    options += ["--workdir", str(tmp_path / "work"), "--nice", "0"]
    assert main([str(broken.parent), *options]) != Exit.PASSED
    said = capsys.readouterr().out
    assert str(broken) in said
    assert str(tmp_path / "work" / "watch") not in said


TRAINING = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from harness.onboarding.lightning import ExportGateCallback

class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

folder = sys.argv[1]
gate = ExportGateCallback(folder, "--target", "android-dev", "--workdir", folder + "/build",
                          "--history", folder + "/history.db")
trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                  enable_model_summary=False, callbacks=[gate, ModelCheckpoint(folder)])
trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
print("trained", gate.process)
"""


@pytest.mark.slow
def test_lightnings_callback_gates_what_a_training_leaves(tmp_path: Path) -> None:
    """The training ends whatever the gate says: here, that this is no model of swipes."""
    command = [sys.executable, "-c", TRAINING, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "trained None" in done.stdout
    assert "epoch=0-step=2.ckpt: ERROR exit status 2" in done.stdout
    assert "no model configuration in 'hyper_parameters'" in done.stdout


def test_the_callback_is_short() -> None:
    source = ROOT / "harness" / "onboarding" / "lightning.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 60
