"""NeMo's own encoder and decoding step, in eager FP32, behind the session protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exportgate.contract import IoContract, encoder_contract, step_contract

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exportgate.runtime.session import Arrays


class NemoEncoder:
    """NeMo's encoder behind the session protocol."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Wrap the encoder of a loaded checkpoint."""
        self._model = checkpoint.model
        self.contract: IoContract = encoder_contract(checkpoint.spec)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``exportgate.runtime.session.Session.run``."""
        with torch.inference_mode():
            encoded, lengths = self._model.forward(
                processed_signal=torch.from_numpy(inputs["features_bft"]),
                processed_signal_length=torch.from_numpy(inputs["lengths"]),
            )
        return {"encoded_bdt": encoded.numpy(), "encoded_lengths": lengths.numpy()}


class NemoStep:
    """NeMo's prediction network and joint, before any softmax, behind the session protocol.

    After a blank the prediction network is asked the same again: its last answer is kept.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Wrap decoder and joint of a loaded checkpoint."""
        self._model = checkpoint.model
        self.contract: IoContract = step_contract(checkpoint.spec)
        self._asked: list[NDArray[Any]] = []
        self._predicted: Any = None

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``exportgate.runtime.session.Session.run``."""
        joint = self._model.joint
        saved = joint.log_softmax
        joint.log_softmax = False
        try:
            with torch.inference_mode():
                predicted, (hidden, cell) = self._predict(inputs)
                frames = torch.from_numpy(inputs["enc_t"])
                logits = joint.joint(frames[:, None], predicted)[:, 0, 0]
        finally:
            joint.log_softmax = saved
        return {"logits": logits.numpy(), "h1": hidden.numpy(), "c1": cell.numpy()}

    def _predict(self, inputs: Arrays) -> Any:  # noqa: ANN401 - NeMo has no types
        """Return the prediction network's output, and its states."""
        asked = [inputs[name] for name in ("y_prev", "h0", "c0")]
        if not self._asked or not all(map(np.array_equal, asked, self._asked)):
            symbols, *states = (torch.from_numpy(array) for array in asked)
            self._predicted = self._model.decoder.predict(
                symbols[:, None], tuple(states), add_sos=False
            )
            self._asked = [array.copy() for array in asked]
        return self._predicted
