"""``contract.toml``: which file is which half of the model, and which axis is which.

    schema = 1
    blank = 29                       # what the files' user takes for the blank

    [files."encoder-model.onnx"]
    graph = "encoder"
    precision = "fp32"
    inputs.audio_signal = { is = "features_bft", axes = "BFT" }
    inputs.length = { is = "lengths", axes = "B" }
    outputs.outputs = { is = "encoded_bdt", axes = "BDT" }
    outputs.encoded_lengths = { is = "encoded_lengths", axes = "B" }

Axes are letters: B batch, F features, T frames, D encoder width, V symbols, L layers, H width of
the state, 1 an axis of size 1. An input that a decoder does not vary has ``constant = 1`` instead
of ``is``; an output that nobody needs has ``is = ""``. The order of a .pte's tables is the order
of its inputs and outputs, which have no names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.variants import VARIANTS
from exportgate.reading import MALFORMED, read_toml, reason
from exportgate.runtime.adapter import OURS, Mapping, Tensor
from harness.third_party.folder import CONTRACT_FILE, ThirdPartyError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
_NEEDED = {
    "encoder": ("features_bft", "encoded_bdt"),
    "step": ("y_prev", "h0", "c0", "enc_t", "logits", "h1", "c1"),
}
_MOST_AXES = 8
_LARGEST_CONSTANT = float(2**63)
_SEE = "its form is described in harness/third_party/contract_file.py"


@dataclass(frozen=True, slots=True)
class ThirdPartyFile:
    """A file and what ``contract.toml`` says of it."""

    path: Path
    graph: str
    precision: str
    mapping: Mapping

    @property
    def variant(self) -> str:
        """The row of the table whose gates the file has to keep.

        Raises:
            ThirdPartyError: No row is of its kind.
        """
        kind = (self.graph, self.path.suffix[1:], self.precision)
        for row in VARIANTS:
            if (row.graph, row.format, row.precision) == kind:
                return row.name
        msg = f"{self.path}: no gates for {' '.join(kind)}; see the table of variants"
        raise ThirdPartyError(msg)


def read_contract(path: Path) -> tuple[list[ThirdPartyFile], int | None]:
    """Read a ``contract.toml``.

    Returns:
        Its files, and the blank that their user assumes, if it is declared.

    Raises:
        ThirdPartyError: It is malformed, or names a file that is not there.
    """
    try:
        data = read_toml(path)
        if data.get("schema") != SCHEMA:
            msg = f"{path}: schema is {data.get('schema')}, but should be {SCHEMA}"
            raise ThirdPartyError(msg)  # noqa: TRY301 - it says what is wrong as it is
        files = [_file(_beside(path, name), entry) for name, entry in data["files"].items()]
    except ThirdPartyError:
        raise
    except KeyError as lack:
        msg = f"{path}: {lack.args[0]} is missing; {_SEE}"
        raise ThirdPartyError(msg) from lack
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: malformed ({reason(error)}); {_SEE}"
        raise ThirdPartyError(msg) from error
    if not files:
        msg = f"{path}: names no file; there is nothing to judge"
        raise ThirdPartyError(msg)
    return files, _blank(path, data.get("blank"))


def _beside(path: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        msg = f"{path}: names the file {name!r}, but should name files beside it; move it there"
        raise ThirdPartyError(msg)
    return path.with_name(name)


def _blank(path: Path, blank: object) -> int | None:
    if blank is not None and (isinstance(blank, bool) or not isinstance(blank, int)):
        msg = f"{path}: blank is {blank!r}, but should be the index of a symbol"
        raise ThirdPartyError(msg)
    return blank


def _file(path: Path, entry: dict[str, Any]) -> ThirdPartyFile:
    if not path.is_file():
        msg = f"{path}: named in {CONTRACT_FILE}, but not there"
        raise ThirdPartyError(msg)
    graph = entry["graph"]
    if graph not in _NEEDED:
        msg = f"{path}: graph is {graph!r}, but should be encoder or step"
        raise ThirdPartyError(msg)
    mapping = Mapping(_tensors(path, entry["inputs"]), _tensors(path, entry["outputs"]))
    named = {tensor.role for tensor in (*mapping.inputs, *mapping.outputs)}
    missing = [name for name in _NEEDED[graph] if name not in named]
    if missing:
        msg = f"{path}: {CONTRACT_FILE} does not say which tensor is {', '.join(missing)}"
        raise ThirdPartyError(msg)
    precision = entry.get("precision", "fp32")
    if not isinstance(precision, str):
        msg = f"{path}: precision is {precision!r}, but should be a name such as fp32 or int8"
        raise ThirdPartyError(msg)
    return ThirdPartyFile(path, graph, precision, mapping)


def _tensors(path: Path, table: dict[str, Any]) -> tuple[Tensor, ...]:
    tensors = []
    for name, entry in table.items():
        role = entry.get("is", "")
        if role and role not in OURS:
            msg = f"{path}: {name} is {role!r}, but should be one of {', '.join(OURS)}"
            raise ThirdPartyError(msg)
        axes = entry.get("axes", OURS.get(role, "B"))
        _check_axes(path, name, role, axes)
        tensors.append(Tensor(name, role, axes, _constant(path, name, entry.get("constant"))))
    return tuple(tensors)


def _constant(path: Path, name: str, value: object) -> int | float | None:
    if value is None:
        return None
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if not number or not -_LARGEST_CONSTANT <= value <= _LARGEST_CONSTANT:  # type: ignore[operator]
        msg = f"{path}: the constant of {name} is {value!r:.40}, but should be a number"
        raise ThirdPartyError(msg)
    return value  # type: ignore[return-value]


def _check_axes(path: Path, name: str, role: str, axes: str) -> None:
    """Refuse axes that are not those of the role, in some order, with axes of size 1 between."""
    if not isinstance(axes, str) or len(axes) > _MOST_AXES:
        msg = f"{path}: axes of {name} are {axes!r:.40}, but should be at most {_MOST_AXES} letters"
        raise ThirdPartyError(msg)
    if role and sorted(axes.replace("1", "")) != sorted(OURS[role]):
        msg = (
            f"{path}: axes of {name} are {axes!r}, but {role} has the axes {', '.join(OURS[role])}"
            " (in the file's order, and 1 for axes of size 1)"
        )
        raise ThirdPartyError(msg)
