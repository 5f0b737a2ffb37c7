"""What an export starts from and how it is made, and whether that fits the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.recipes import read_recipe
from exportgate.artifacts.sidecar import sha256_of
from exportgate.contract import OURS, Interface
from exportgate.errors import ExportGateError
from exportgate.reading import read_text, reason

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from exporters.nemo.peek import CheckpointSummary
    from exporters.recipes import MixedRecipe
    from exportgate.contract import ModelSpec

DEFAULT_MAX_TRACE_LEN = 200
CALIBRATION_BATCHES, CALIBRATION_BATCH_SIZE = 16, 4
"""Of the two factors that limit calibration, each where only the other is given."""


class OptionError(ExportGateError, ValueError):
    """Options contradict each other, the checkpoint or the files that they name."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export starts from, and how it is made.

    Attributes:
        checkpoint: The model.
        vocab: Vocabulary file that must equal the checkpoint's labels.
        layers: LSTM layers that the checkpoint must have.
        hidden: LSTM width that the checkpoint must have.
        enc_dim: Width of the encoder's output that the checkpoint must have.
        max_trace_len: Longest trace in points that an encoder takes.
        calibration: Manifest of swipes to calibrate with; synthetic ones if None.
        calibration_swipes: How many of them; all if None.
        check_quantization: Refuse a quantized file that is broken.
        fallback_to_fp32: Write FP32 in its place, under a name that says so.
        cache: Where exports are kept; None to export anew.
        package_dir: Bundle that the files go into as well.
        lexicon: Word list for that bundle.
        assets: Other files for that bundle.
        jobs: Files to export at once.
        recipe: How each matrix of the quantized .pte encoders is stored; None: as the table says.
        progress_fd: Descriptor that events are written to (``pipeline.events``); None for none.
        interface: How the files are called.
    """

    checkpoint: Path
    vocab: Path | None = None
    layers: int | None = None
    hidden: int | None = None
    enc_dim: int | None = None
    max_trace_len: int = DEFAULT_MAX_TRACE_LEN
    calibration: Path | None = None
    calibration_swipes: int | None = None
    check_quantization: bool = True
    fallback_to_fp32: bool = False
    cache: Path | None = None
    package_dir: Path | None = None
    lexicon: Path | None = None
    assets: tuple[Path, ...] = ()
    jobs: int = 1
    progress_fd: int | None = None
    recipe: MixedRecipe | None = None
    interface: Interface = OURS

    @classmethod
    def of(cls, args: argparse.Namespace) -> ExportOptions:
        """Take over what a command line was given; each knows only some of the options."""
        given = vars(args)
        return cls(
            checkpoint=args.checkpoint,
            vocab=args.vocab,
            layers=given.get("layers"),
            hidden=given.get("hidden"),
            enc_dim=given.get("enc_dim"),
            max_trace_len=given.get("max_trace_len", DEFAULT_MAX_TRACE_LEN),
            calibration=given.get("calibration"),
            calibration_swipes=_limit(given),
            check_quantization=not given.get("skip_quantization_check", False),
            fallback_to_fp32=given.get("fallback_to_fp32", False),
            cache=given.get("cache"),
            package_dir=given.get("package_dir"),
            lexicon=given.get("lexicon"),
            assets=tuple(given.get("bundle_assets") or ()),
            jobs=given.get("jobs", 1),
            progress_fd=given.get("progress_fd"),
            recipe=read_recipe(path) if (path := given.get("recipe")) else None,
            interface=_interface(given),
        )


def _interface(given: Mapping[str, Any]) -> Interface:
    """Return how the files are to be called.

    Raises:
        OptionError: Parts of a step are asked for, and something that only a whole step has.
    """
    usual = {"step_batch": OURS.step_batch, "log_probs": OURS.log_probs}
    whole = [name for name, plain in usual.items() if given.get(name, plain) != plain]
    if given.get("split") and whole:
        msg = (
            f"--split and --{whole[0]}: prediction network and joint that are called apart take "
            "one hypothesis and give logits; leave one of the two options out"
        )
        raise OptionError(msg)
    return Interface(
        given.get("lengths_dtype", OURS.lengths_dtype),
        given.get("step_batch", OURS.step_batch),
        log_probs=given.get("log_probs", OURS.log_probs),
        part="split" if given.get("split") else None,
    )


def _limit(given: Mapping[str, int | None]) -> int | None:
    """Return to how many swipes the options limit calibration; None if they do not."""
    if samples := given.get("calibration_samples"):
        return samples
    batches, size = given.get("calib_batches"), given.get("calib_bs")
    if batches is None and size is None:
        return None
    return (batches or CALIBRATION_BATCHES) * (size or CALIBRATION_BATCH_SIZE)


def check_model(options: ExportOptions, spec: ModelSpec) -> None:
    """Refuse a vocabulary or dimensions that are not the checkpoint's: it says what the model is.

    Raises:
        OptionError: ``--vocab``, ``--layers``, ``--hidden`` or ``--enc_dim`` differ from the
            checkpoint: one message names all that do.
    """
    sizes = {"layers": spec.pred_layers, "hidden": spec.pred_hidden, "enc_dim": spec.d_model}
    _refuse_others(options, sizes, spec.labels)


def check_summary(options: ExportOptions, summary: CheckpointSummary) -> None:
    """Refuse the same by the configuration alone, within a second; what it lacks is not judged.

    Raises:
        OptionError: As ``check_model``.
    """
    sizes = {
        "layers": summary.prednet.get("pred_rnn_layers"),
        "hidden": summary.prednet.get("pred_hidden"),
        "enc_dim": summary.encoder.get("d_model"),
    }
    known = {name: size for name, size in sizes.items() if isinstance(size, int)}
    _refuse_others(options, known, summary.labels)


def _refuse_others(options: ExportOptions, sizes: Mapping[str, int], labels: Sequence[str]) -> None:
    problems = []
    for name, actual in sizes.items():
        given = getattr(options, name)
        if given is not None and given != actual:
            problems.append(f"--{name} is {given}, but the checkpoint has {actual}")
    if options.vocab is not None and labels:
        problems += _vocabulary_problems(options.vocab, labels)
    if problems:
        ending = "leave the options out: the checkpoint says what the model is"
        raise OptionError("; ".join([*problems, ending]))


def _vocabulary_problems(path: Path, labels: Sequence[str]) -> list[str]:
    """Say how a file differs from the labels; else decoded ids stand for other characters."""
    try:
        lines = tuple(read_text(path).splitlines())
    except (OSError, ValueError) as error:
        return [f"{path}: cannot read the vocabulary ({reason(error)})"]
    if lines == tuple(labels):
        return []
    pairs = enumerate(zip(lines, labels, strict=False))
    differing = next((i for i, (a, b) in pairs if a != b), None)
    detail = (
        f"line {differing + 1} is {lines[differing]!r:.60}, but should be {labels[differing]!r}"
        if differing is not None
        else f"it has {len(lines)} lines, but should have {len(labels)}"
    )
    return [f"{path}: the vocabulary does not fit the checkpoint: {detail}"]


def file_sha256(path: Path, kind: str) -> str:
    """Return the SHA-256 of a file, or of a folder such as an unpacked checkpoint.

    Raises:
        OptionError: There is no such file.
    """
    if not path.exists():
        msg = f"{path}: no such {kind}"
        raise OptionError(msg)
    return sha256_of(path)
