"""A pytest plugin that runs the suites in another order: ``-p tests.faults.shuffled``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [items[index] for index in np.random.default_rng(4).permutation(len(items))]
