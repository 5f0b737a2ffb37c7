"""The RNN-T loss for a CPU: alpha and beta passes in numba, the softmax's gradient by autograd.

NeMo's losses take 2 to 5 seconds for a batch on a CPU. The recursion touches only two planes of
the lattice, the blank's and the next label's log-probabilities (Graves 2012, eqs. 16 to 20), so
they are gathered first and the recursion runs over (B, T, U) instead of (B, T, U, V).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rnnt_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    frame_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    """Return the negative log-likelihood of each target, in nats.

    Args:
        logits: (B, T, U + 1, V) floats; raw or log-softmaxed, the loss normalizes them.
        targets: (B, U) int64 labels, padded with anything in [0, V).
        frame_lengths: (B,) int64 in [1, T].
        target_lengths: (B,) int64 in [0, U].
        blank: Index of the blank; in NeMo the last, V - 1.

    Returns:
        (B,) float32.
    """
    batch, frames, positions, _ = logits.shape
    logits = logits.float()
    normalizer = torch.logsumexp(logits, dim=-1)
    blanks = logits[..., blank] - normalizer
    index = targets.view(batch, 1, positions - 1, 1).expand(batch, frames, positions - 1, 1)
    labels = logits[:, :, :-1].gather(-1, index).squeeze(-1) - normalizer[:, :, :-1]
    lengths = (frame_lengths, target_lengths)
    loss: torch.Tensor = _Lattice.apply(blanks, labels, *lengths)  # type: ignore[no-untyped-call]
    return loss


class _Lattice(torch.autograd.Function):
    """Sum over all alignments; the gradients come from the same pass."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context has no public type
        blanks: torch.Tensor,
        labels: torch.Tensor,
        frame_lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        blank_plane = blanks.detach().contiguous().numpy()
        label_plane = labels.detach().contiguous().numpy()
        losses = np.zeros(len(blank_plane), dtype=np.float32)
        blank_grads, label_grads = np.zeros_like(blank_plane), np.zeros_like(label_plane)
        lengths = (frame_lengths.numpy(), target_lengths.numpy())
        _alpha_beta(blank_plane, label_plane, *lengths, losses, blank_grads, label_grads)
        ctx.save_for_backward(torch.from_numpy(blank_grads), torch.from_numpy(label_grads))
        return torch.from_numpy(losses)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's context has no public type
        upstream: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        blank_grads, label_grads = ctx.saved_tensors
        scale = upstream.view(-1, 1, 1)
        return blank_grads * scale, label_grads * scale, None, None


@numba.njit(cache=True, nogil=True)
def _log_add(a: float, b: float) -> float:
    if a == -np.inf:
        return b
    if b == -np.inf:
        return a
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


@numba.njit(cache=True, nogil=True)
def _alpha_beta(
    blanks: NDArray[np.float32],
    labels: NDArray[np.float32],
    frame_lengths: NDArray[np.int64],
    target_lengths: NDArray[np.int64],
    losses: NDArray[np.float32],
    blank_grads: NDArray[np.float32],
    label_grads: NDArray[np.float32],
) -> None:
    """Fill the losses and their gradients with respect to both planes."""
    alpha = np.empty(blanks.shape[1:], dtype=np.float64)
    beta = np.empty(blanks.shape[1:], dtype=np.float64)
    for b in range(len(blanks)):
        last_t, last_u = frame_lengths[b] - 1, target_lengths[b]
        _forward(alpha, blanks[b], labels[b], last_t, last_u)
        total = alpha[last_t, last_u] + blanks[b, last_t, last_u]
        losses[b] = -total
        _backward(alpha, beta, blanks[b], labels[b], last_t, last_u, blank_grads[b], label_grads[b])


@numba.njit(cache=True, nogil=True)
def _forward(
    alpha: NDArray[np.float64],
    blanks: NDArray[np.float32],
    labels: NDArray[np.float32],
    last_t: int,
    last_u: int,
) -> None:
    for t in range(last_t + 1):
        for u in range(last_u + 1):
            value = 0.0 if t == 0 and u == 0 else -np.inf
            if t > 0:
                value = alpha[t - 1, u] + blanks[t - 1, u]
            if u > 0:
                value = _log_add(value, alpha[t, u - 1] + labels[t, u - 1])
            alpha[t, u] = value


@numba.njit(cache=True, nogil=True)
def _backward(
    alpha: NDArray[np.float64],
    beta: NDArray[np.float64],
    blanks: NDArray[np.float32],
    labels: NDArray[np.float32],
    last_t: int,
    last_u: int,
    blank_grads: NDArray[np.float32],
    label_grads: NDArray[np.float32],
) -> None:
    """Fill beta and the gradients: minus the share of all paths that take each arc."""
    total = alpha[last_t, last_u] + blanks[last_t, last_u]
    for t in range(last_t, -1, -1):
        for u in range(last_u, -1, -1):
            value = -np.inf
            if t == last_t and u == last_u:
                value = float(blanks[t, u])
                blank_grads[t, u] = -math.exp(alpha[t, u] + value - total)
            if t < last_t:
                value = blanks[t, u] + beta[t + 1, u]
                blank_grads[t, u] = -math.exp(alpha[t, u] + value - total)
            if u < last_u:
                through = labels[t, u] + beta[t, u + 1]
                label_grads[t, u] = -math.exp(alpha[t, u] + through - total)
                value = _log_add(value, through)
            beta[t, u] = value
