"""Which kernels a processor's runtime took, told by the instructions that were executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.gate.baseline import count_on, short_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("integer_kernel_share")
def test_integers(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Integers are multiplied as integers, with the best instructions that the core has."""
    context.files.sidecar(artifact)
    found = count_on(
        context.request.device, context.files.path(artifact), short_input(context, artifact)
    )
    best = " or ".join(found.integers)
    executed = ", ".join(f"{number} {name}" for name, number in found.classes.items())
    detail = f"best on {found.guest}: {best}; of {found.instructions}: {executed}"
    record("integer_kernel_share", found.integer_kernel_share, detail)
