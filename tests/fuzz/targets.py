"""What is mutated, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.seeds import HASHES_FIT


@dataclass(frozen=True)
class Target:
    """A kind of file and one of its readers.

    Attributes:
        kind: Of ``seeds.SEEDS``.
        entry: Reader and its arguments; ``{path}`` is the file or folder, ``{folder}`` what it
            lies in.
        share: Of all mutations.
        names: Files in a seed that is a folder; each is mutated in its turn.
        changes: Ways to change them, by turns: of ``changing.CHANGES``.
    """

    kind: str
    entry: tuple[str, ...]
    share: int
    names: tuple[str, ...] = ()
    changes: tuple[str, ...] = ("bytes",)

    @property
    def title(self) -> str:
        """The reader, in a word or three."""
        return " ".join(word for word in self.entry if "{" not in word and "/" not in word)


_TEXT = ("bytes", "tree")
_TRACES = ("--history", "{path}")
TARGETS = (
    Target("nemo", ("checkpoint", "{path}"), 10, changes=("bytes", "tree", "pickle")),
    Target("nemo", ("agree", "{path}"), 8, changes=("bytes", "tree", "pickle")),
    Target("nemo", ("console", "doctor", "{path}"), 3, changes=("bytes", "tree", "pickle")),
    Target("ckpt", ("checkpoint", "{path}"), 10, changes=("bytes", "pickle")),
    Target("onnx", ("onnx_file", "{path}"), 9),
    Target("onnx, one file", ("opened", "{path}"), 1),
    Target("pte", ("pte_file", "{path}"), 5),
    Target("pte", ("opened", "{path}"), 1),
    Target("manifest", ("manifest", "{path}"), 6, changes=_TEXT),
    Target("futo", ("console", "import", "futo", "{path}", "--out", "out/m"), 3, changes=_TEXT),
    Target("how-we-swipe", ("console", "import", "how-we-swipe", "{path}", "--out", "out/m"), 3),
    Target(
        "neuroswipe", ("console", "import", "neuroswipe", "{path}", "--out", "out/m"), 3,
        changes=_TEXT,
    ),
    Target("port", ("console", "features", "check", "{path}"), 2, changes=_TEXT),
    Target("lexicon", ("lexicon", "{path}"), 4),
    Target("gates", ("gates", "{path}"), 6, changes=_TEXT),
    Target("contract", ("contract", "{path}"), 4, changes=_TEXT),
    Target("recipe", ("recipe", "{path}"), 3, changes=_TEXT),
    Target("sidecar", ("sidecar", "{path}"), 5, ("step_fp32.onnx.json",), _TEXT),
    Target("baseline", ("baseline", "{path}"), 2, ("accepted.json",), _TEXT),
    Target("report", ("report", "{path}"), 3, changes=_TEXT),
    Target(
        "bundle", ("console", "bundle", "verify", "{path}"), 5,
        ("bundle.json", "contract.json", "features.json", "vocab.txt", "step_fp32.pte.json",
         "decode.json", "known_answers.json"), _TEXT,
    ),
    Target(
        HASHES_FIT, ("console", "bundle", "verify", "{path}"), 5,
        ("contract.json", "features.json", "vocab.txt", "step_fp32.pte.json", "decode.json",
         "DECODE.md", "known_answers.json", "lexicon.txt", "words.tsv"), _TEXT,
    ),
    Target(
        "verdict", ("console", "verify", "{path}", "--key", "{folder}/key.pub"), 3,
        ("verdict.intoto.json", "bom.cdx.json", "report.json"), _TEXT,
    ),
    Target("statement", ("console", "verify", "{path}", "--key", "{folder}/key.pub"), 2,
           ("verdict.intoto.json",), ("tree",)),
    Target("key", ("console", "verify", "{folder}/bundle", "--key", "{path}"), 1),
    Target("history", ("console", "history", *_TRACES, "list"), 3),
    Target("history", ("console", "history", *_TRACES, "regressions"), 3),
)  # fmt: skip
