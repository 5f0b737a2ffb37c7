"""What NeMo said is kept by everything that shapes it, and read without running anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from exporters.quantize.expected import ExpectedFile, Rounding
from exporters.quantize.gptq import S4, S8_PAIRS, Gptq
from exportgate.artifacts import answers
from exportgate.artifacts.answers import answer_key, arrays_sha256, keep, kept
from exportgate.artifacts.packed import PackedError, pack, unpack
from harness.measure.expected import reference
from harness.measure.expected.answers import Answers
from harness.measure.expected.each import EachError, each
from harness.run.context import RunContext
from harness.run.request import Request

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any


def test_values_come_back_as_they_were() -> None:
    column_major = np.arange(12, dtype=np.float32).reshape(3, 4).T
    value = Pair(
        {"tuple": (1, 2.5, None, True, "ü"), "list": [b"\x00\xff", float("inf")]},
        (column_major, np.array([], np.int64), np.array(-0.0)),
    )
    found = unpack(pack(value), [Pair])
    assert found.left == value.left
    for was, now in zip(value.right, found.right, strict=True):
        assert was.dtype == now.dtype
        assert was.shape == now.shape
        assert was.tobytes() == now.tobytes()
    # Sums over an array add in the order of its memory.
    assert found.right[0].flags.f_contiguous
    assert not found.right[0].flags.c_contiguous


def test_only_listed_types_are_made_and_nothing_else_is_packed() -> None:
    with pytest.raises(PackedError, match="make it again"):
        unpack(pack(Pair(1, 2)), [])
    with pytest.raises(PackedError, match="cannot be packed"):
        pack({1: "a number for a key"})
    with pytest.raises(PackedError, match="a object cannot be packed"):
        pack(object())


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_damaged_entry_is_none(tmp_path: Path, place: int) -> None:
    keep(tmp_path, "key", {"weights": np.arange(5.0)})
    assert kept(tmp_path, "key", ())["weights"].tolist() == [0, 1, 2, 3, 4]
    entry = tmp_path / "key" / "answer.safetensors"
    payload = bytearray(entry.read_bytes())
    payload[place] ^= 1
    entry.write_bytes(payload)
    assert kept(tmp_path, "key", ()) is None
    assert kept(tmp_path, "other", ()) is None


def test_whatever_shapes_an_answer_shapes_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(question: str = "q", inputs: dict[str, object] | None = None) -> str:
        return answer_key(question, inputs or {"checkpoint": "a"}, ["exportgate"])

    keys = {key(), key("other"), key(inputs={"checkpoint": "b"})}
    keys.add(answer_key("q", {"checkpoint": "a"}, ["exportgate", "harness"]))
    for name in ("package_versions", "_processor"):
        with monkeypatch.context() as patch:
            patch.setattr(answers, name, lambda: {"torch": "0"})
            keys.add(key())
    assert len(keys) == 6
    assert key() == key()


def test_arrays_are_told_apart_by_shape_and_type() -> None:
    zeros = np.zeros(4, np.float32)
    cases: list[list[NDArray[Any]]] = [
        [zeros], [zeros.reshape(2, 2)], [zeros.astype(np.int32)], [zeros, zeros], [],
    ]  # fmt: skip
    assert len({arrays_sha256(case) for case in cases}) == len(cases)


def test_an_answer_is_computed_once_and_an_error_each_time(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute() -> tuple[int, ...]:
        asked.append(1)
        return (len(asked),)

    def refuse() -> tuple[int, ...]:
        raise EachError

    known = Answers(tmp_path, "digest")
    assert known.of("q", [], {}, compute) == known.of("q", [], {}, compute) == (1,)
    assert Answers(tmp_path, "another").of("q", [], {}, compute) == (2,)
    assert Answers(None, "digest").of("q", [], {}, compute) == (3,)
    for _ in range(2):
        with pytest.raises(EachError):
            known.of("refused", [], {}, refuse)
    assert not [*tmp_path.rglob("*.part")]


def test_of_a_checkpoint_loaded_otherwise_nothing_is_kept(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.nemo"
    checkpoint.write_bytes(b"weights")
    request = Request(checkpoint, checkpoint, None, (), None, tmp_path, 200)
    nemo = RunContext(request, lambda _line: None).nemo
    assert nemo._answers.cache == tmp_path / "cache"
    nemo.load = lambda _path: None
    assert nemo._answers.cache is None


@pytest.mark.parametrize(("codes", "group"), [(S8_PAIRS, None), (S4, 8)])
def test_what_a_file_must_hold_judges_alike_when_it_was_kept(
    tmp_path: Path, codes: Any, group: int | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 32, generator=generator)
    inputs = torch.randn(200, 32, generator=generator)
    rounding = Rounding(weight, Gptq(inputs.double().T @ inputs.double()), codes, group)
    whole = ExpectedFile(b"payload", {"layer": rounding})
    keep(tmp_path, "key", whole.to_plain())
    again = ExpectedFile.from_plain(kept(tmp_path, "key", ()))
    assert again.payload == whole.payload
    assert again.size_bytes == whole.size_bytes
    given = weight.double().numpy() + 0.01
    ours, theirs = whole.roundings["layer"], again.roundings["layer"]
    assert np.array_equal(ours.strays(given), theirs.strays(given))
    assert np.array_equal(ours.nearest().codes, theirs.nearest().codes)


def test_each_item_is_computed_alone_and_in_order() -> None:
    processes = each(lambda item: (item * item, os.getpid()), range(100))
    assert [value for value, _ in processes] == [item * item for item in range(100)]
    cores = len(os.sched_getaffinity(0))
    used = {process for _, process in processes}
    assert (os.getpid() in used) == (cores == 1)
    assert {process for _, process in each(lambda item: (item, os.getpid()), [1, 2])} == {
        os.getpid()
    }


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core forks nothing")
def test_an_error_keeps_its_type_and_a_killed_process_is_named() -> None:
    def refuse(item: int) -> int:
        if item == 40:
            msg = "swipe 41"
            raise reference.ReferenceError(msg)
        return item

    with pytest.raises(reference.ReferenceError, match="swipe 41"):
        each(refuse, range(64))
    with pytest.raises(EachError, match="was killed"):
        each(lambda item: os.kill(os.getpid(), 9) if item == 40 else item, range(64))


def test_sources_shape_the_key() -> None:
    digest = answers.source_sha256(("exportgate",))
    assert digest == answers.source_sha256(("exportgate",))
    assert digest != answers.source_sha256(("exportgate", "harness"))
    assert (Path(answers.__file__).parent / "answers.py").is_file()
