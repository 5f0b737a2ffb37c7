"""Count the instructions of an inference, exactly and on a machine however busy.

``exportgate instructions setup`` builds the plugin (``make setup-exact`` installs what it needs).
``exportgate instructions count FILE`` prints the instructions of one inference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.variants import variant
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.exit import Exit, Parser
from exportgate.runtime.inputs import encoder_input, step_inputs
from harness.measure.instructions import INFERENCES, PLUGIN, X86_64, build, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.runtime.session import Arrays

FRAMES = 32


def counted_inputs(path: Path, frames: int = FRAMES) -> Arrays:
    """Return what a file with a sidecar is counted on: noise of so many points, or one symbol."""
    sidecar = read_sidecar(path)
    if variant(sidecar.variant).graph == "step":
        return step_inputs(sidecar.contract)
    noise = np.random.default_rng(0).normal(size=(sidecar.model.feature_dim, frames))
    return encoder_input(noise.astype(np.float32))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="build the plugin")
    counting = commands.add_parser("count", help="count the instructions of an inference")
    counting.add_argument("file", type=Path, help="a file with its sidecar")
    counting.add_argument(
        "--frames", type=int, default=FRAMES, help="of an encoder's input (default %(default)s)"
    )
    counting.add_argument("--inferences", type=int, default=INFERENCES, help="of one process")
    args = parser.parse_args(argv)
    if args.command == "setup":
        print(f"built {build(PLUGIN)}")
        return Exit.PASSED
    inputs = counted_inputs(args.file, args.frames)
    found = count(args.file, inputs, X86_64, inferences=args.inferences)
    print(
        f"{args.file.name}: {found.instructions} instructions on {found.guest}, "
        f"spread {found.spread:.4%} over {len(found.each)} inferences"
    )
    return Exit.PASSED
