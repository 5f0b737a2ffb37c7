"""Manifests as people get them wrong: how each is made, and what must be said of it."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from tests.wrong_inputs.bench import GOLDEN, POINTER, Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def scale(axis: str, factor: float, shift: float = 0.0) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for point in record["points"]:
            for name in axis:
                point[name] = point[name] * factor + shift

    return change


def swap(record: dict[str, Any]) -> None:
    for point in record["points"]:
        point["x"], point["y"] = point["y"], point["x"]


def words_of_the_line_before(lines: list[str]) -> str:
    records = [json.loads(line) for line in lines]
    words = [record["word"] for record in records]
    for record, word in zip(records, [words[-1], *words], strict=False):
        record["word"] = word
    return "\n".join(map(json.dumps, records))


SWIPES: dict[str, tuple[Callable[[Bench], Path], str]] = {
    "no such file": (lambda b: b.folder / "no.jsonl", "cannot be read .No such file"),
    "empty": (lambda b: b.file("my.jsonl", b""), "no swipes; expected at least one line"),
    "LFS pointer": (lambda b: b.file("my.jsonl", POINTER), "Git LFS pointer, .* 'git lfs pull'"),
    "pixels": (lambda b: b.swipes(scale("xy", 1080.0)), "pixels, .*must be divided by"),
    "centred": (lambda b: b.swipes(scale("xy", 2.0, -1.0)), r"\(x \+ 1\) / 2"),
    "seconds": (lambda b: b.swipes(scale("t", 0.001)), "probably in seconds: multiply them by 10"),
    "nanoseconds": (lambda b: b.swipes(scale("t", 1e6)), "in nanoseconds: divide them by 1000000"),
    "microseconds": (lambda b: b.swipes(scale("t", 1e3)), "in microseconds: divide them by 1000"),
    "swapped axes": (
        lambda b: b.swipes(swap),
        "x and y seem swapped: exchange the two .then it is",
    ),
    "y upwards": (
        lambda b: b.swipes(scale("y", -1.0, 1.0)),
        "y seems to point upwards: write 1 - y",
    ),
    "mirrored": (
        lambda b: b.swipes(scale("x", -1.0, 1.0)),
        "x seems to run from the right: write 1",
    ),
    "y in widths": (lambda b: b.swipes(scale("y", 0.4)), r"write about 2.5 \* y \(then"),
    "a binary file": (lambda b: b.file("my.bin", b"\x08\0\x12\x07"), "is a binary file, no text"),
    "another alphabet": (
        lambda b: b.swipes(lambda record: record.update(word=record["word"].translate(CYRILLIC))),
        r"cannot write 3\d\d of 320 words .line 1: '\w+'; it lacks .* own language and alphabet",
    ),
    "UTF-16": (lambda b: b.file("my.jsonl", "{}".encode("utf-16")), "in UTF-16; convert it"),
    "gzip": (lambda b: b.file("my.jsonl", gzip.compress(b"{}")), "unpack it with gunzip first"),
    "CSV": (lambda b: b.file("my.csv", b"word,x,y,t\nhi,1,2,3\n"), "perhaps a table .CSV."),
    "the checkpoint": (lambda _: GOLDEN / "golden.nemo", "give it as --checkpoint"),
    "FUTO": (
        lambda b: b.swipes(lambda record: record.update(data=record.pop("points"))),
        "make a manifest with exportgate import futo",
    ),
    "NeuroSwipe": (
        lambda b: b.file("my.jsonl", b'{"word": "a", "curve": {"x": [1]}}'),
        "make a manifest with exportgate import neuroswipe",
    ),
    "How We Swipe": (
        lambda b: b.file("my.log", b"sentence timestamp keyb_width keyb_height event\n"),
        "make a manifest of it with exportgate import how-we-swipe",
    ),
    "NeMo's speech": (
        lambda b: b.file("my.json", b'{"audio_filepath": "a.wav", "text": "a", "duration": 1}'),
        "a manifest of NeMo's speech recordings; this gate judges swipes",
    ),
    "one long list": (lambda b: b.file("my.json", b'[{"word": "a"}]'), "a JSON array, expected"),
}
SWIPES |= {
    "words of the line before": (
        lambda b: b.lines(words_of_the_line_before),
        "0.3. keyboard widths apart, as if at random: the words belong to other swipes; join",
    ),
    "punctuation": (
        lambda b: b.swipes(lambda record: record.update(word=f"{record['word']}.")),
        "cannot write 320 of 320 words .*; it lacks ..; take punctuation off",
    ),
    "indented JSON": (
        lambda b: b.lines(lambda x: "\n".join(json.dumps(json.loads(y), indent=1) for y in x)),
        "an object goes over several lines; jq -c",
    ),
    "printed by Python": (
        lambda b: b.lines(lambda x: "\n".join(repr(json.loads(y)) for y in x)),
        "a Python dict as .* json.dumps",
    ),
    "cut off": (lambda b: b.lines(lambda x: "\n".join(x)[:-40]), ":320: .*cut off; copy"),
    "commas between lines": (lambda b: b.lines(",\n".join), "goes on with ','; take that off"),
    "Parquet": (lambda b: b.file("my.parquet", b"PAR1" + b"\0" * 99), "is a Parquet file; write"),
}
CYRILLIC = str.maketrans("aeioutnsr", "аеиоутнср")
