"""Makes right and wrong inputs of the golden ones, and asks the doctor about them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from exporters.nemo.archive import CONFIG, WEIGHTS, read_config, read_member
from exporters.nemo.unpickle import load_tensors
from harness.console import main

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3348480\n"
WHOLE = (GOLDEN / "golden.nemo").read_bytes()


@dataclass(frozen=True)
class Bench:
    """Makes right and wrong inputs of the golden ones."""

    folder: Path

    def file(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def nemo(self, *, state: object = None, drop: str = "", **edits: object) -> Path:
        """Write a .nemo with other values in its configuration (``a__b`` for ``a.b``)."""
        config = copy.deepcopy(read_config(GOLDEN / "golden.nemo"))
        for key, value in edits.items():
            *sections, option = key.split("__", 1) if not key.startswith("_") else [key]
            place = config
            for section in sections:
                place = place[section]
            place[option] = value
        config.pop(drop, None)
        weights = read_member(GOLDEN / "golden.nemo", WEIGHTS)
        if state is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            weights = buffer.getvalue()
        path = self.folder / "my.nemo"
        with tarfile.open(path, "w") as archive:
            for name, data in ((CONFIG, yaml.safe_dump(config).encode()), (WEIGHTS, weights)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    def state(self) -> dict[str, torch.Tensor]:
        path = GOLDEN / "golden.nemo"
        found = load_tensors(path, read_member(path, WEIGHTS))
        assert isinstance(found, dict)
        return found

    def saved(self, name: str, content: object) -> Path:
        torch.save(content, self.folder / name)
        return self.folder / name

    def newer(self) -> Path:
        """Write a file of torch.save in a form that a later PyTorch may have."""
        saved, path = self.saved("old.ckpt", {"state_dict": {}}), self.folder / "my.ckpt"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, b"99\n" if name.endswith("/version") else old.read(name))
        return path

    def tar(self, *members: str) -> Path:
        path = self.folder / "my.nemo"
        with tarfile.open(path, "w") as archive:
            for name in members:
                data = read_member(GOLDEN / "golden.nemo", name) if "model" in name else b"a"
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    def packed_folder(self) -> Path:
        """Pack the folder of an unpacked archive, not the files in it."""
        path = self.folder / "my.nemo"
        with tarfile.open(path, "w") as archive:
            for name in (CONFIG, WEIGHTS):
                data = read_member(GOLDEN / "golden.nemo", name)
                info = tarfile.TarInfo(f"my_model/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    def link(self) -> Path:
        path = self.folder / "my.nemo"
        path.symlink_to("blobs/abc")
        return path

    def changed(self, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Path:
        """Write a .nemo with other weights, each by its name and value."""
        return self.nemo(state=dict(change(name, value) for name, value in self.state().items()))

    def training(self) -> Path:
        """Make a training's folder, which holds a checkpoint."""
        (self.folder / "checkpoints").mkdir()
        (self.folder / "checkpoints" / "last.nemo").write_bytes(WHOLE)
        return self.folder

    def lines(self, change: Callable[[list[str]], str]) -> Path:
        """Write the golden swipes, their lines put together in another way."""
        lines = (GOLDEN / "val.jsonl").read_text(encoding="utf-8").splitlines()
        return self.file("my.jsonl", change(lines).encode())

    def zipped(self) -> Path:
        path = self.folder / "my.nemo"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(CONFIG, "a: 1")
        return path

    def swipes(self, change: Callable[[dict[str, Any]], object]) -> Path:
        """Write the golden swipes, each changed in place."""
        lines = []
        for line in (GOLDEN / "val.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            change(record)
            lines.append(json.dumps(record, ensure_ascii=False))
        return self.file("my.jsonl", "\n".join(lines).encode())


def problems_of(*arguments: str) -> tuple[int, list[str], str]:
    """Return the exit status of ``exportgate doctor``, its problems, and all that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["doctor", *arguments])
    lines = printed.getvalue().splitlines()
    starts = [line.partition("problem: ") for line in lines]
    found = [text for indent, label, text in starts if label and not indent.strip()]
    return status, found, printed.getvalue()


def arguments_of(kind: str, path: Path) -> list[str]:
    """Return the arguments that give a wrong file as what it should have been."""
    golden = str(GOLDEN / "golden.nemo")
    return [str(path)] if kind == "checkpoint" else [golden, "--manifest", str(path)]
