"""Sign the verdict of a sealed bundle with a private key, so that it can be proved.

``exportgate sign DIR --key gate.pem`` writes ``verdict.intoto.json`` into the bundle: an in-toto
statement in a DSSE envelope that binds verdict, limits and the gate's version to the SHA-256 of
checkpoint, manifest, calibration, gates, report and every file. It works without a network. A key:

    openssl genpkey -algorithm ed25519 -out gate.pem
    openssl pkey -in gate.pem -pubout -out gate.pub
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.bundle import ATTESTATION
from exportgate.exit import Exit, Parser
from harness.gate.proof.envelope import PASSPHRASE
from harness.gate.proof.proving import sign

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate sign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a sealed bundle")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE",
        help=f"private key, PEM; the passphrase of an encrypted one is taken from {PASSPHRASE}",
    )  # fmt: skip
    args = parser.parse_args(argv)
    claim = sign(args.folder, args.key)
    subjects, limits = len(claim.subjects), len(claim.limits)
    print(
        f"signed: {args.folder / ATTESTATION}: {claim.result}, {limits} limits, {subjects} hashes"
    )
    return Exit.PASSED
