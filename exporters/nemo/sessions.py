"""NeMo's own encoder and decoding step, in eager FP32, behind the session protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """NeMo's prediction network and joint, before any softmax, behind the session protocol."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Wrap decoder and joint of a loaded checkpoint."""
        self._model = checkpoint.model
        self.contract: IoContract = step_contract(checkpoint.spec)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``exportgate.runtime.session.Session.run``."""
        decoder, joint = self._model.decoder, self._model.joint
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        saved = joint.log_softmax
        joint.log_softmax = False
        try:
            with torch.inference_mode():
                predicted, (hidden, cell) = decoder.predict(
                    tensors["y_prev"][:, None], (tensors["h0"], tensors["c0"]), add_sos=False
                )
                logits = joint.joint(tensors["enc_t"][:, None], predicted)[:, 0, 0]
        finally:
            joint.log_softmax = saved
        return {"logits": logits.numpy(), "h1": hidden.numpy(), "c1": cell.numpy()}
