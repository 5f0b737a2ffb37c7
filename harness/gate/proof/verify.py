"""Check a signed bundle: this verdict, of these very files, by the owner of this key.

``exportgate verify DIR --key gate.pub`` refuses, each in one line, a changed, missing or added
file, a changed verdict, another key, and a verdict that is older than a file. Whoever holds the
private key can sign anything; whoever copies a whole older bundle has an older bundle.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate.exit import Exit, Parser, one_line
from harness.gate.proof.proving import check

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a signed bundle")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="public key of who signed, PEM"
    )
    parser.add_argument(
        "--input", type=Path, action="append", default=[], metavar="FILE", dest="inputs",
        help="checkpoint, manifest or gates that the verdict has to be about; repeatable",
    )  # fmt: skip
    args = parser.parse_args(argv)
    bundle, claim = check(args.folder, args.key, args.inputs)
    gate = claim.gate
    said = (
        f"ok: {args.folder}: {len(claim.files)} files, {len(bundle.artifacts)} exports, "
        f"{claim.result} by gate {gate['version']} on {gate['finished_utc']}, "
        f"{len(claim.limits)} limits"
    )
    print(one_line(said))
    return Exit.PASSED
