"""The golden checkpoint and its exports, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes no example wrong.
settings.register_profile("exportgate", deadline=None)
settings.load_profile("exportgate")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    return REPOSITORY / "golden"
