"""How a file is made, and how each matrix of an encoder is stored: data that an exporter follows.

The second is what a search finds. In TOML a layer is a line:
``"body.blocks.0.ff1_in" = {bits = 4, group = 32, gptq = true}``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, read_toml, reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

Flavour = Literal["standard", "web"]
"""How a graph is left: in standard operators, which a runtime optimises for its own machine when it
opens the file, or optimised ahead of time as far as is valid on every machine, for web pages."""
Quantizer = Literal["static", "dynamic", "pt2e", "eager"]
"""What makes integers of weights. For ONNX Runtime: ``static`` (QDQ, ranges of activations from
calibration) or ``dynamic`` (activations per call). For XNNPACK: ``pt2e`` (torchao's annotation of
the traced graph) or ``eager`` (the linear layers are exchanged before tracing)."""
Intermediate = Literal["integer weights for XNNPACK", "INT8 graph for ONNX Runtime"]
"""What several files are made from, and which is therefore made once."""

BITS = (32, 8, 4)
"""Of a weight: floating point, or integers that XNNPACK multiplies as they are. It has no product
of FP16 weights with FP32 inputs, so that FP16 storage of one matrix is not among them."""
GROUP_STEP = 32
"""XNNPACK's groups are multiples of it."""
SCHEMA = 1


class RecipeError(ExportGateError, ValueError):
    """A recipe that no exporter can follow."""


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """How one matrix is stored.

    Attributes:
        bits: Of a weight, one of ``BITS``.
        group: Of 4 bits, neighbouring inputs that share a step; None for all of an output.
        gptq: Whether rounding errors are made up for by the weights that follow.
    """

    bits: int
    group: int | None = None
    gptq: bool = True

    def __post_init__(self) -> None:
        """Refuse what XNNPACK does not multiply.

        Raises:
            RecipeError: See there.
        """
        if self.bits not in BITS:
            msg = f"bits is {self.bits!r}, but should be one of: {', '.join(map(str, BITS))}"
            raise RecipeError(msg)
        if self.group is not None and (self.bits != 4 or self.group < 1 or self.group % GROUP_STEP):
            msg = f"group is {self.group!r}, but should be a multiple of {GROUP_STEP}, of 4 bits"
            raise RecipeError(msg)

    def fits(self, inputs: int) -> bool:
        """Tell whether a matrix of so many inputs can be stored so."""
        return self.group is None or inputs % self.group == 0

    def stored_bytes(self, outputs: int, inputs: int) -> int:
        """Return what a matrix takes, its steps included; a file's padding is left out."""
        weights = outputs * inputs * self.bits // 8
        if self.bits == 32:
            return weights
        # Steps of groups are bfloat16, those of whole outputs float32.
        return weights + (4 * outputs if self.group is None else 2 * outputs * inputs // self.group)


@dataclass(frozen=True, slots=True)
class MixedRecipe:
    """How all matrices of an encoder are stored.

    Attributes:
        smoothing_alpha: How much of a channel's range moves into the front end's weights.
        layers: Name of each matrix layer, and its choice.
    """

    smoothing_alpha: float
    layers: tuple[tuple[str, LayerChoice], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for a sidecar."""
        layers = {name: asdict(choice) for name, choice in self.layers}
        return {"smoothing_alpha": self.smoothing_alpha, "layers": layers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MixedRecipe:
        """Read what ``to_json`` wrote.

        Raises:
            RecipeError: It is malformed.
        """
        try:
            layers = tuple((name, LayerChoice(**kind)) for name, kind in data["layers"].items())
            return cls(float(data["smoothing_alpha"]), layers)
        except MALFORMED as error:
            msg = (
                f"malformed recipe ({reason(error):.200}); "
                "expected smoothing_alpha, and bits of each layer"
            )
            raise RecipeError(msg) from error

    def to_toml(self) -> str:
        """Return the recipe as a file's text."""
        lines = [f"schema = {SCHEMA}", f"smoothing_alpha = {self.smoothing_alpha}", "", "[layers]"]
        for name, choice in self.layers:
            group = f", group = {choice.group}" if choice.group else ""
            gptq = "" if choice.bits == 32 else f", gptq = {str(choice.gptq).lower()}"
            lines.append(f'"{name}" = {{bits = {choice.bits}{group}{gptq}}}')
        return "\n".join(lines) + "\n"

    def checked(self, layers: Mapping[str, int]) -> dict[str, LayerChoice]:
        """Return the choice of each layer of an encoder.

        Args:
            layers: Its matrix layers, and how many inputs each has.

        Raises:
            RecipeError: The recipe is another encoder's.
        """
        mine = dict(self.layers)
        _refuse("lacks", layers.keys() - mine.keys())
        _refuse("names what the encoder lacks:", mine.keys() - layers.keys())
        for name, choice in mine.items():
            if not choice.fits(layers[name]):
                msg = f"{name}: groups of {choice.group} do not divide its {layers[name]} inputs"
                raise RecipeError(msg)
        return mine


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a file is made; ``exporters.pipeline.making`` reads it.

    Attributes:
        cost: Time that it takes relative to the others; the dearest files are begun first.
        quantizer: What makes integers of the weights; None where they stay floating point.
        flavour: How the graph is left.
        shares: What the file is made from that other files are made from too; None if it is made
            from the checkpoint alone.
        rewrite: Switches of the encoder's rewrite that differ from their defaults, as pairs of
            name and value: of ``xnnpack.options.RewriteOptions`` or
            ``ort.encoder_graph.OrtRewriteOptions``.
        mixed: How each matrix is stored, where they are not all stored alike.
    """

    cost: int
    quantizer: Quantizer | None = None
    flavour: Flavour = "standard"
    shares: Intermediate | None = None
    rewrite: tuple[tuple[str, Any], ...] = ()
    mixed: MixedRecipe | None = None


def read_recipe(path: Path) -> MixedRecipe:
    """Read a recipe's file.

    Raises:
        RecipeError: There is none, or it is malformed.
    """
    try:
        data = read_toml(path)
        _check_schema(data)
        return MixedRecipe.from_json(data)
    except (OSError, ValueError) as error:
        msg = f"{path}: {reason(error)}"
        raise RecipeError(msg) from error


def _check_schema(data: Mapping[str, Any]) -> None:
    if data.get("schema") != SCHEMA:
        msg = f"schema is {data.get('schema')!r}, but should be {SCHEMA}"
        raise RecipeError(msg)


def _refuse(what: str, names: Collection[str]) -> None:
    if names:
        listed = sorted(names)
        more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
        msg = f"the recipe {what} {', '.join(listed[:4])}{more}; search one for this checkpoint"
        raise RecipeError(msg)
