"""``python -m tests.wrong_inputs`` prints what the doctor says of every wrong input, one a line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.wrong_inputs.bench import Bench, arguments_of, problems_of
from tests.wrong_inputs.checkpoints import CHECKPOINTS
from tests.wrong_inputs.swipes import SWIPES

for kind, cases in (("checkpoint", CHECKPOINTS), ("swipes", SWIPES)):
    for name, (make, _) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            _, found, _ = problems_of(*arguments_of(kind, make(Bench(Path(folder)))))
            print(f"{kind}, {name}: {' / '.join(found).replace(f'{folder}/', '')}")
