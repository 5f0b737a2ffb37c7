"""What of the measurements from swipe to word breaks a limit of gates.toml ([levels])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exportgate.levels import level
from harness.measure.statistics import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.end_to_end.comparing import Beside
    from harness.end_to_end.instructions import Executed
    from harness.end_to_end.measuring import Measured


def broken(
    measured: Sequence[Measured], beside: Sequence[Beside], executed: Sequence[Executed]
) -> list[str]:
    """Return a sentence for each limit that is broken."""
    return [
        *(line for each in measured for line in _soak(each)),
        *(line for each in beside for line in _slower(each)),
        *(line for each in executed for line in _more(each)),
    ]


def _soak(each: Measured) -> list[str]:
    soak, most = each.soak, level("end_to_end_growth_bytes")
    if soak is None:
        return []
    what, found = f"{each.encoder} on {each.place}, {soak.swipes} swipes", []
    if soak.growth_bytes > most:
        found.append(
            f"{what}: holds {soak.growth_bytes / 1e6:.2f} MB more at the end, but should hold at "
            f"most {most / 1e6:g} MB more"
        )
    if soak.changed:
        numbers = ", ".join(str(number + 1) for number in soak.changed[:5])
        found.append(
            f"{what}: {len(soak.changed)} of them become other words at the end (swipes {numbers})"
        )
    return found


def _slower(each: Beside) -> list[str]:
    told = each.comparison
    if told.decision is not Decision.SLOWER:
        return []
    line = (
        f"{each.encoder} on {each.place}: {told.estimate.ratio:.3f} of the baseline's cost from "
        f"swipe to word ({told.estimate.low:.3f} to {told.estimate.high:.3f})"
    )
    return [line]


def _more(each: Executed) -> list[str]:
    most, ratio = level("end_to_end_instruction_ratio"), each.ratio
    if ratio is None or ratio <= most:
        return []
    more = sum(each.instructions) - sum(each.baseline)
    line = (
        f"{each.encoder} on {each.place}: {more:,} instructions more than the baseline over "
        f"{len(each.instructions)} swipes ({ratio:.6f} of its), but should be at most {most:g}"
    )
    return [line]
