"""Whether a configured model is one that the stored weights can fill, before it is built.

NeMo builds whatever a configuration says: a billion layers, a table of positions as large as the
memory. What is stored bounds what is honest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.nemo.archive import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

_SECTIONS = ("preprocessor", "encoder", "decoder", "joint")
_LARGEST = 200_000  # positions, samples a second, labels: nothing that is no weight is larger


def check_sizes(path: Path, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a configuration of a model that is larger than the weights.

    Raises:
        CheckpointError: It is.
    """
    for section in _SECTIONS:
        for place, value in _numbers(section, config.get(section)):
            if value > _LARGEST:
                msg = (
                    f"{path}: {place} is {value:.15g}, more than {_LARGEST}: such a model would "
                    "fill memory; mend the configuration, or save the model again"
                )
                raise CheckpointError(msg)
    storages = {tensor.data_ptr(): tensor.numel() for tensor in state.values()}  # each once
    stored = sum(storages.values())
    least = _least_weights(config)
    if least > stored:
        msg = (
            f"{path}: the configured model has {least} weights or more, but {stored} are stored; "
            "mend the configuration, or save the model again"
        )
        raise CheckpointError(msg)


def _numbers(place: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(f"{place}.{key}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _numbers(f"{place}[{number}]", item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place, value


def _least_weights(config: Mapping[str, Any]) -> int:
    """Return what the attention of all blocks and the LSTM have at least, however built."""
    encoder, decoder = config.get("encoder"), config.get("decoder")
    prednet = decoder.get("prednet") if isinstance(decoder, dict) else None
    width, layers = _count(encoder, "d_model"), _count(encoder, "n_layers")
    hidden, depth = _count(prednet, "pred_hidden"), _count(prednet, "pred_rnn_layers")
    return 4 * width * width * layers + 8 * hidden * hidden * depth


def _count(section: object, key: str) -> int:
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
