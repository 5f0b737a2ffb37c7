"""Measure a bundle from the last touch of a swipe to its words, as one.

    exportgate latency build/bundle --on cpp --on browser
    exportgate latency build/bundle --on cpp --on arm64 --baseline build/released --soak 10000

Features, encoder and search in the bundle's word list, in the clients of this repository: python
(the harness's own decoding), cpp (clients/android), browser (clients/web in Chromium, one thread),
arm64 (clients/android on an emulated core: instructions). Fails where a client is slower than with
the baseline's files or executes more instructions, and where a soak makes it grow or changes a
word. Limits stand in gates.toml ([levels], end_to_end_*); every sample goes to --out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.bundle import LEXICON
from exporters.pipeline.parser import positive
from exportgate import resources
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.reading import read_json, reason
from harness.end_to_end import arm64
from harness.end_to_end.comparing import compare, typical_and_long
from harness.end_to_end.cpp import Cpp
from harness.end_to_end.instructions import execute
from harness.end_to_end.measuring import measure
from harness.end_to_end.page import Page
from harness.end_to_end.python_host import PythonHost
from harness.end_to_end.tables import EXPLANATION, markdown, write
from harness.end_to_end.unit import Pair
from harness.end_to_end.verdict import broken
from harness.measure.parity import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exportgate.data.manifest import Swipe
    from harness.end_to_end.comparing import Beside
    from harness.end_to_end.instructions import Executed
    from harness.end_to_end.measuring import Measured
    from harness.end_to_end.unit import Place
    from harness.measure.environment import Environment

PLACES = ("python", "cpp", "browser", "arm64")


class LatencyCommandError(ExportGateError, ValueError):
    """The bundle, or what is asked of it, cannot be measured."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    swipes = spread(read_manifest(_manifest(args)), args.swipes or sys.maxsize)
    bundle, baseline = _specification(args.bundle), args.baseline
    released = _specification(baseline) if baseline is not None else {}
    results = _Results()
    # What is missing is said before minutes are spent on the other places.
    emulated = _pairs(args.bundle, bundle, "pte", args.encoder) if "arm64" in args.on else []
    core = arm64.described() if emulated else None
    for place in _places(args):
        results.environments[place.name] = place.environment()
        for pair in _pairs(args.bundle, bundle, place.format, args.encoder):
            found = measure(place, pair, swipes, runs=args.runs, soak=args.soak, say=_say)
            results.measured.append(found)
            if baseline is not None:
                _say(f"{pair.encoder} on {place.name} beside the baseline")
                other = _released(baseline, released, pair)
                legs = typical_and_long(swipes)
                results.beside.append(compare((place, place), (pair, other), legs))
    for pair in emulated:
        _say(f"{pair.encoder} on an emulated {arm64.CORE}: {arm64.SWIPES} swipes")
        beside = _released(baseline, released, pair) if baseline else None
        results.executed.append(execute(pair, beside, _short(swipes)))
    if core is not None:
        results.environments["arm64"] = core
    return _told(args, results)


@dataclass(slots=True)
class _Results:
    environments: dict[str, Environment] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    executed: list[Executed] = field(default_factory=list)


def _told(args: argparse.Namespace, found: _Results) -> int:
    wrong = broken(found.measured, found.beside, found.executed)
    asked = {name: str(value) for name, value in vars(args).items() if value is not None}
    print(markdown(found.measured, found.beside, found.executed), "", EXPLANATION, sep="\n")
    page = write(
        args.out, asked, found.environments, found.measured, found.beside, found.executed, wrong
    )
    rows = len(found.measured) + len(found.beside) + len(found.executed)
    print(f"\n{'FAIL' if wrong else 'PASS'}: {rows} measurements; {page}")
    for line in wrong:
        print(f"- {line}")
    return Exit.FAILED if wrong else Exit.PASSED


def _parser() -> Parser:
    parser = Parser(
        prog="exportgate latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build = resources.build_folder()
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="with decode.json")
    parser.add_argument(
        "--on", action="append", choices=PLACES, help="where; repeatable (default: python and cpp)"
    )
    parser.add_argument(
        "--encoder", action="append", metavar="NAME", help="only this file; repeatable"
    )
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="default: golden's swipes")
    parser.add_argument("--swipes", type=positive, metavar="N", help="of the manifest, spread")
    parser.add_argument(
        "--runs", type=positive, default=3, metavar="N", help="of each swipe (default %(default)s)"
    )
    parser.add_argument(
        "--soak", type=int, default=0, metavar="N", help="swipes given to one client at the end"
    )
    parser.add_argument("--baseline", type=Path, metavar="BUNDLE", help="released, to compare with")
    parser.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="of python (default: the bundle's own)"
    )
    parser.add_argument("--workdir", type=Path, default=build, metavar="DIR", help="default: build")
    parser.add_argument(
        "--out",
        type=Path,
        default=build / "end_to_end",
        metavar="DIR",
        help="default: build/end_to_end",
    )
    return parser


def _manifest(args: argparse.Namespace) -> Path:
    args.on = list(dict.fromkeys(args.on or PLACES[:2]))
    args.out.mkdir(parents=True, exist_ok=True)  # now already, rather than after minutes of work
    manifest: Path = args.manifest or resources.folder("golden") / "val.jsonl"
    if not manifest.is_file():
        msg = f"--manifest: no such file: {manifest}"
        raise LatencyCommandError(msg)
    return manifest


def _places(args: argparse.Namespace) -> list[Place]:
    own = args.bundle / LEXICON
    lexicon = args.lexicon or (own if own.is_file() else None)
    known: dict[str, Place] = {
        "python": PythonHost(args.workdir / "gate" / "cache", lexicon),
        "cpp": Cpp(),
        "browser": Page(),
    }
    return [known[name] for name in args.on if name in known]


def _specification(bundle: Path) -> Mapping[str, Any]:
    path = bundle / "decode.json"
    try:
        found: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        msg = (
            f"{path}: not readable ({reason(error)}); "
            "complete the bundle with exportgate bundle specify"
        )
        raise LatencyCommandError(msg) from error
    return found


def _pairs(
    bundle: Path, specification: Mapping[str, Any], suffix: str, wanted: Sequence[str] | None
) -> list[Pair]:
    """Return each encoder of a format with its step.

    Raises:
        LatencyCommandError: There is none.
    """
    files = specification["files"]
    found = [
        Pair(bundle, name, item["step"])
        for name, item in files.items()
        if item["graph"] == "encoder"
        and item["step"]
        and suffix in {"", item["format"]}
        and (not wanted or name in wanted)
    ]
    if not found:
        kind = f".{suffix} encoder" if suffix else "encoder"
        only = f" called {' or '.join(wanted)}" if wanted else ""
        msg = f"{bundle}: has no {kind}{only} with a step; it has {', '.join(files)}"
        raise LatencyCommandError(msg)
    return found


def _released(baseline: Path, specification: Mapping[str, Any], pair: Pair) -> Pair:
    """Return the same pair of a baseline; with its own step, where that is another file."""
    files = specification["files"]
    own = files.get(pair.encoder, {}).get("step") or pair.step
    return Pair(baseline, pair.encoder, pair.step if pair.step in files else own)


def _short(swipes: Sequence[Swipe]) -> list[Swipe]:
    """Return a few swipes up to the middle length: emulation is hundreds of times slower."""
    ordered = sorted(swipes, key=lambda swipe: len(swipe.points))
    return spread(ordered[: len(ordered) // 2 + 1], arm64.SWIPES)


def _say(line: str) -> None:
    """Show what is being done."""
    print(f"    {line}", file=sys.stderr, flush=True)
