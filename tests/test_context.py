"""The run context: what pytest prints of it when a check fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporters.variants import VARIANTS
from harness.run.context import RunContext
from harness.run.request import Request


def test_a_failed_check_does_not_write_out_the_whole_run() -> None:
    path = Path("none")
    request = Request(path, path, path, VARIANTS[:1], None, path, 200)
    context = RunContext(request, lambda _line: None)
    context.swipes.memo["features"] = [np.arange(1000.0)] * 300
    for part in (context, *vars(context).values()):
        if part is not request:
            assert len(repr(part)) < 200, part
