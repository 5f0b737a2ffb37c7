"""Every fault that the gate is known to catch, in the order in which they are judged."""

from __future__ import annotations

from tests.faults.encoder_faults import ENCODER_FAULTS
from tests.faults.record_faults import RECORD_FAULTS
from tests.faults.step_faults import STEP_FAULTS

FAULTS = (*ENCODER_FAULTS, *STEP_FAULTS, *RECORD_FAULTS)

FILES = tuple(dict.fromkeys(name for fault in FAULTS for name in fault.variants))
"""Files that the faults are injected into."""


def fault(name: str) -> object:
    """Return a fault by its name."""
    return next(found for found in FAULTS if found.name == name)
