"""Count false alarms and detections of the comparison from swipe to word.

The C++ client decodes a typical and a long swipe beside itself: as it is, and with a share of its
own processor time burnt at each swipe. ``exportgate latency --baseline`` decides by the same rule
with the same plan.

    python -m benchmarks.bench_latency --bundle build/clients/bundle --out build/bench_latency.txt
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from exportgate import resources
from exportgate.data.manifest import read_manifest
from exportgate.exit import end
from harness.end_to_end.comparing import compare, typical_and_long
from harness.end_to_end.cpp import Cpp
from harness.end_to_end.unit import Pair
from harness.measure.environment import environment
from harness.measure.statistics import Decision

SLOWER = (0.0, 0.03)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--encoder", default="encoder_int8.pte")
    parser.add_argument("-n", type=int, default=100, help="comparisons of each kind")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    files = json.loads((args.bundle / "decode.json").read_text("utf-8"))["files"]
    pair = Pair(args.bundle, args.encoder, files[args.encoder]["step"])
    swipes = typical_and_long(read_manifest(resources.folder("golden") / "val.jsonl"))
    ratios: dict[float, list[float]] = {share: [] for share in SLOWER}
    called: dict[float, int] = dict.fromkeys(SLOWER, 0)
    loads = []
    for number in range(args.n):
        for share in SLOWER:  # in turns: the machine is as busy for both
            found = compare((Cpp(slower=share), Cpp()), (pair, pair), swipes)
            ratios[share].append(found.comparison.estimate.ratio)
            called[share] += found.comparison.decision is Decision.SLOWER
        loads.append(environment().load_1min)
        lines = [_line(share, ratios[share], called[share]) for share in SLOWER]
        head = (
            f"{environment().cpu}, {environment().cores} cores, load {min(loads):.1f} to "
            f"{max(loads):.1f}; {args.encoder}, C++ client, swipe to word"
        )
        text = "\n".join([head, *lines])
        args.out.write_text(text + "\n", encoding="utf-8")
        print(f"{number + 1}: {lines[0]}; {lines[1]}", flush=True)
    return 0


def _line(share: float, ratios: list[float], called: int) -> str:
    kind = f"{share:.0%} slower" if share else "equal"
    spread = f"{min(ratios):.4f} to {max(ratios):.4f}"
    return f"{kind}: called slower in {called} of {len(ratios)}; ratio {spread}"


if __name__ == "__main__":
    end(main)
