"""Count how often files with no fault come near a statistical limit.

A gate on a p-value is broken by chance in one file of so many; whether that is true is seen in the
reports of files with no fault, those of the zoo: as many values lie below 0.05 as should, or fewer.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEVELS = (0.05, 0.01, 0.001)
_TITLE = """# False alarms of the statistical gates

`make zoo`: p-values of files with no fault, exported from {checkpoints} checkpoints. A file breaks
its gate below 0.001. Where a test is exact, 5 in 100 values lie below 0.05 and 1 in 100 below 0.01;
fewer is the price of sums over many channels and lengths (Bonferroni), and of words that come in
whole numbers. Files of one checkpoint are alike, so that these are fewer draws than they seem.
"""


def p_values(reports: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, str]]]:
    """Return, by metric, each measured p-value of a gate with the file that it is of."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for report in reports:
        name = Path(report["request"]["checkpoint"]).stem
        for gate in report["gates"]:
            if gate["metric"].endswith("_p") and gate["value"] is not None:
                found[gate["metric"]].append((gate["value"], f"{name} {gate['subject']}"))
    return dict(found)


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: a metric a row."""
    checkpoints = len({report["request"]["checkpoint"] for report in reports})
    below = " | ".join(f"< {level:g}" for level in LEVELS)
    lines = [
        _TITLE.format(checkpoints=checkpoints),
        f"| metric | files | {below} | smallest | of |",
        f"|---|--:|{'--:|' * len(LEVELS)}--:|---|",
    ]
    for metric, pairs in sorted(p_values(reports).items()):
        counts = [sum(value < level for value, _ in pairs) for level in LEVELS]
        least, name = min(pairs)
        cells = " | ".join(map(str, counts))
        lines.append(f"| {metric} | {len(pairs)} | {cells} | {least:.2g} | {name} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the reports of the zoo and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="where benchmarks.zoo.judge worked"
    )
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    options = parser.parse_args(arguments)
    paths = sorted(options.work.glob("*/report/report.json"))
    if not paths:
        parser.error(f"{options.work}: no NAME/report/report.json; run benchmarks.zoo.judge first")
    text = table([json.loads(path.read_text(encoding="utf-8")) for path in paths])
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
