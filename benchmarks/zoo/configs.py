"""The zoo's rows: one table of what each checkpoint is, and why it is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.zoo.spelling import (
    CAPITALS,
    DIGITS,
    DIGRAPHS,
    KEYBOARD,
    LETTERS,
    NEMO_ENGLISH,
    REFERENCE,
    TITLE,
    TRIGRAPHS,
    Vocabulary,
    shuffled,
)
from benchmarks.zoo.styles import Style
from golden.config import model_config
from golden.train import Recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Encoder:
    """NeMo's options of a Conformer encoder, by NeMo's names where they are clear.

    Attributes:
        d_model: Width; ``d_model / heads`` need not be a multiple of anything.
        channels: Of the subsampling's convolutions.
    """

    d_model: int
    layers: int
    heads: int = 4
    kernel: int = 15
    ff_expansion: int = 4
    subsampling: str = "striding"
    factor: int = 4
    channels: int = 16
    use_bias: bool = True
    xscaling: bool = True
    untie_biases: bool = True

    def options(self) -> dict[str, Any]:
        """Return NeMo's names and values."""
        return {
            "d_model": self.d_model,
            "n_layers": self.layers,
            "n_heads": self.heads,
            "conv_kernel_size": self.kernel,
            "ff_expansion_factor": self.ff_expansion,
            "subsampling": self.subsampling,
            "subsampling_factor": self.factor,
            "subsampling_conv_channels": self.channels,
            "use_bias": self.use_bias,
            "xscaling": self.xscaling,
            "untie_biases": self.untie_biases,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """Prediction network, joint and greedy decoding.

    Attributes:
        hidden: Width of the LSTM.
        layers: Of the LSTM.
        joint: Width of the joint.
        activation: ``relu``, ``tanh`` or ``sigmoid``.
        log_softmax: NeMo's option; None lets NeMo decide by the device.
        max_symbols: Most labels at one frame; None: no limit.
    """

    hidden: int = 96
    layers: int = 1
    joint: int = 96
    activation: str = "relu"
    log_softmax: bool | None = True
    max_symbols: int | None = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One training run, and the one or two checkpoints that come out of it.

    Attributes:
        name: Of the files.
        reason: What is special about it.
        words: How many of the commonest words it learns to read.
        longest: Letters of the longest of them.
        options: Further options of NeMo's configuration, such as ``encoder.dropout=0.1``.
        leave_out: Options of the encoder that the configuration does not name.
        early_step: Also keep this step as ``NAME-early``; 0: do not.
        dead_units: One unit of every kind of layer has only zeros.
        zero_biases: All biases of linear layers and LSTMs are zero.
        committed: Small enough to be kept in the repository.
    """

    name: str
    reason: str
    encoder: Encoder
    step: Step
    vocabulary: Vocabulary
    recipe: Recipe
    style: Style = field(default_factory=Style)
    words: int = 600
    longest: int = 14
    options: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    early_step: int = 0
    dead_units: bool = False
    zero_biases: bool = False
    committed: bool = False

    def config(self) -> DictConfig:
        """Return NeMo's configuration."""
        config = model_config()
        labels = list(self.vocabulary.labels)
        config.labels = labels
        config.model_defaults.update(enc_hidden=self.encoder.d_model, pred_hidden=self.step.hidden)
        config.encoder.update(self.encoder.options())
        config.decoder.update(vocab_size=len(labels))
        config.decoder.prednet.update(
            pred_hidden=self.step.hidden, pred_rnn_layers=self.step.layers
        )
        config.joint.update(
            num_classes=len(labels), vocabulary=labels, log_softmax=self.step.log_softmax
        )
        config.joint.jointnet.update(joint_hidden=self.step.joint, activation=self.step.activation)
        config.decoding.greedy.max_symbols = self.step.max_symbols
        config.merge_with_dotlist(list(self.options))
        for option in self.leave_out:
            del config.encoder[option]
        return config


ROWS: tuple[Row, ...] = (
    Row(
        name="tiny-digraphs",
        reason="no biases, dw_striding, labels of two letters, few points in a swipe",
        encoder=Encoder(
            d_model=36,
            layers=2,
            heads=2,
            kernel=7,
            ff_expansion=2,
            subsampling="dw_striding",
            channels=12,
            use_bias=False,
        ),
        step=Step(hidden=36, joint=44, max_symbols=5),
        vocabulary=Vocabulary(DIGRAPHS),
        recipe=Recipe(seed=11, steps=2600, batch=32, peak_lr=4e-3),
        style=Style(points=(16, 40)),
        words=400,
        longest=8,
        committed=True,
    ),
    Row(
        name="eightfold-trigraphs",
        reason="factor 8, d_model 160 in 8 heads of 20, labels of three letters, raw logits from "
        "a sigmoid joint, a fast screen",
        encoder=Encoder(
            d_model=160,
            layers=2,
            heads=8,
            kernel=7,
            ff_expansion=2,
            factor=8,
            channels=20,
        ),
        step=Step(hidden=72, joint=100, activation="sigmoid", log_softmax=False, max_symbols=20),
        vocabulary=Vocabulary(TRIGRAPHS),
        recipe=Recipe(seed=12, steps=1300, batch=32),
        style=Style(points=(110, 200)),
    ),
    Row(
        name="deep-tied",
        reason="8 layers of d_model 40 in heads of 10, kernel 31, tied position biases, no "
        "xscaling, letters in the keyboard's order",
        encoder=Encoder(
            d_model=40,
            layers=8,
            kernel=31,
            ff_expansion=2,
            xscaling=False,
            untie_biases=False,
        ),
        step=Step(hidden=60, joint=72),
        vocabulary=Vocabulary(KEYBOARD),
        recipe=Recipe(seed=13, steps=2000, batch=32, peak_lr=3e-3),
        words=1200,
    ),
    Row(
        name="slow-capitals",
        reason="dw_striding by 8, heads of 9, 3 LSTM layers of 52, tanh joint, words in capitals, "
        "slow swipes with rests",
        encoder=Encoder(
            d_model=72,
            layers=3,
            heads=8,
            kernel=9,
            subsampling="dw_striding",
            factor=8,
        ),
        step=Step(hidden=52, layers=3, joint=84, activation="tanh", max_symbols=6),
        vocabulary=Vocabulary(CAPITALS, case="upper"),
        recipe=Recipe(seed=14, steps=2600, batch=32),
        style=Style(slowness=(1.4, 2.2), points=(90, 200), pauses=2),
        words=1200,
    ),
    Row(
        name="twofold-noisy",
        reason="factor 2, no biases, NeMo's English characters with a space, decoding in batches, "
        "unsteady points",
        encoder=Encoder(d_model=56, layers=4, heads=2, kernel=15, factor=2, use_bias=False),
        step=Step(hidden=90, joint=68, max_symbols=3),
        vocabulary=Vocabulary(NEMO_ENGLISH),
        recipe=Recipe(seed=15, steps=1000, batch=32),
        style=Style(points=(30, 70), noise=0.008),
        options=("decoding.strategy=greedy_batch",),
    ),
    Row(
        name="dead-units",
        reason="a dead unit in every kind of layer, a constant output channel, no xscaling, "
        "no limit of labels at a frame, points beyond the keyboard's edge",
        encoder=Encoder(
            d_model=80,
            layers=3,
            kernel=23,
            subsampling="dw_striding",
            channels=24,
            xscaling=False,
        ),
        step=Step(hidden=64, layers=2, joint=80, max_symbols=None),
        vocabulary=Vocabulary(LETTERS),
        recipe=Recipe(seed=16, steps=1000, batch=32),
        style=Style(stretch=1.15, noise=0.003),
        dead_units=True,
    ),
    Row(
        name="growing-title",
        reason="an early and a late step of one run; heads of 11, kernel 5, dropout everywhere, "
        "words with a capital",
        encoder=Encoder(d_model=88, layers=4, heads=8, kernel=5, ff_expansion=2),
        step=Step(hidden=88, joint=88, activation="tanh", max_symbols=30),
        vocabulary=Vocabulary(TITLE, case="title"),
        recipe=Recipe(seed=17, steps=1000, batch=32),
        early_step=450,
        options=(
            "encoder.dropout=0.1",
            "encoder.dropout_pre_encoder=0.1",
            "encoder.dropout_att=0.1",
            "decoder.prednet.dropout=0.1",
            "joint.jointnet.dropout=0.1",
        ),
    ),
    Row(
        name="zero-biases",
        reason="all biases zero, points reported two at a time, NeMo's defaults not named",
        encoder=Encoder(d_model=64, layers=3, kernel=31, channels=10),
        step=Step(hidden=80, layers=2, joint=128, log_softmax=None),
        vocabulary=Vocabulary(REFERENCE),
        recipe=Recipe(seed=18, steps=2000, batch=32),
        style=Style(points=(40, 120), burst=2),
        zero_biases=True,
        leave_out=(
            "subsampling",
            "subsampling_factor",
            "ff_expansion_factor",
            "self_attention_model",
            "n_heads",
            "att_context_size",
            "xscaling",
            "untie_biases",
            "use_bias",
            "pos_emb_max_len",
            "conv_kernel_size",
            "conv_norm_type",
        ),
    ),
    Row(
        name="tiny-tanh",
        reason="d_model 42 in heads of 21, one layer, 2 LSTM layers of 28, tanh joint",
        encoder=Encoder(d_model=42, layers=1, heads=2, kernel=11, factor=2, channels=8),
        step=Step(hidden=28, layers=2, joint=36, activation="tanh", max_symbols=4),
        vocabulary=Vocabulary(shuffled(LETTERS, 19)),
        recipe=Recipe(seed=19, steps=2400, batch=32, peak_lr=4e-3),
        style=Style(points=(14, 34)),
        words=400,
        longest=7,
        committed=True,
    ),
    Row(
        name="one-wide-layer",
        reason="one layer of d_model 104 in 2 heads of 52, an LSTM of 200, torch's own attention, "
        "quick swipes",
        encoder=Encoder(d_model=104, layers=1, heads=2, kernel=31, channels=13),
        step=Step(hidden=200, joint=60, activation="sigmoid", max_symbols=15),
        vocabulary=Vocabulary(shuffled(REFERENCE, 20)),
        recipe=Recipe(seed=20, steps=1500, batch=32),
        style=Style(slowness=(0.4, 0.7), points=(25, 80)),
        options=("encoder.use_pytorch_sdpa=true",),
    ),
    Row(
        name="twofold-digits",
        reason="dw_striding by 2, 5 tied layers of d_model 48, at most one label at a frame, "
        "digits that nothing emits",
        encoder=Encoder(
            d_model=48,
            layers=5,
            kernel=13,
            ff_expansion=2,
            subsampling="dw_striding",
            factor=2,
            untie_biases=False,
        ),
        step=Step(hidden=100, joint=50, log_softmax=False, max_symbols=1),
        vocabulary=Vocabulary(DIGITS),
        recipe=Recipe(seed=21, steps=1000, batch=32),
        style=Style(points=(30, 80)),
    ),
    Row(
        name="bare-tied",
        reason="no biases, no xscaling and tied position biases at once; heads of 15; coarse "
        "coordinates, a short table of positions",
        encoder=Encoder(
            d_model=120,
            layers=2,
            heads=8,
            kernel=19,
            ff_expansion=2,
            channels=18,
            use_bias=False,
            xscaling=False,
            untie_biases=False,
        ),
        step=Step(hidden=75, layers=3, joint=110),
        vocabulary=Vocabulary(shuffled(DIGRAPHS, 22)),
        recipe=Recipe(seed=22, steps=1100, batch=32),
        style=Style(digits=2),
        options=("encoder.pos_emb_max_len=48",),
    ),
    Row(
        name="odd-heads",
        reason="d_model 50 in heads of 25; LSTM and joint of odd widths, "
        "digraphs, rests, a stretched keyboard and noise together",
        encoder=Encoder(
            d_model=50,
            layers=4,
            heads=2,
            kernel=27,
            subsampling="dw_striding",
            channels=-1,
            use_bias=False,
            untie_biases=False,
        ),
        step=Step(hidden=47, layers=2, joint=51, activation="tanh", log_softmax=None),
        vocabulary=Vocabulary(DIGRAPHS),
        recipe=Recipe(seed=23, steps=1900, batch=32, peak_lr=3e-3),
        style=Style(points=(50, 130), pauses=1, noise=0.004, stretch=1.08),
    ),
)
