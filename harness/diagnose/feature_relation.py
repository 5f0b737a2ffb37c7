"""How a wrong channel relates to the right ones, where no known mistake gives its numbers.

A relation that holds for every value is a cause: another unit, a delay, a rounding, another
channel. Where none does, correlation and the best line still say how nearly right it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.features import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_EXACT = 1e-3
"""Largest deviation from a relation that holds, as a share of the values' spread."""
_MOST_LEFT = 0.05
"""Share of the difference that another unit may leave unexplained."""
_FEW = 10
"""Points below which a delay or a filter is chance."""
_FURTHEST = 3
"""Points that a channel may lag or lead by."""
_FUNCTIONS: tuple[tuple[str, Callable[[Values], Values]], ...] = (
    ("the square of", np.square),
    ("the size, without its sign, of", np.abs),
    ("the root of", lambda v: np.sqrt(np.abs(v))),
    ("log(1 + v) of", lambda v: np.log1p(np.abs(v))),
    ("tanh of", np.tanh),
    ("exp(-v) of", lambda v: np.exp(-np.abs(v))),
    ("the reciprocal of", lambda v: np.divide(1.0, v, where=v != 0, out=np.zeros_like(v))),
)


@dataclass(frozen=True, slots=True)
class Channel:
    """A wrong channel beside the right ones, in all cases.

    Attributes:
        number: Its index.
        mine: (P,) what the port computed, the cases one after the other.
        right: (P, 37) the right values.
        firsts: (C,) where each case begins.
        wrong: (P,) which values are wrong.
    """

    number: int
    mine: Values
    right: Values
    firsts: NDArray[np.int64]
    wrong: NDArray[np.bool_]

    @property
    def own(self) -> Values:
        """What it should be, (P,)."""
        return self.right[:, self.number]


def relation(channel: Channel) -> str | None:
    """Return what gives exactly the channel's numbers from the right ones; None if nothing does."""
    if not channel.own.any():
        return "it is not used: it must be 0, and is there for the model's width alone"
    relations = (
        _rounded,
        _clipped,
        _shifted,
        _own_line,
        _own_function,
        _other_channel,
        _places,
        _filtered,
    )
    if not np.isfinite(channel.mine).all():
        bad = int((~np.isfinite(channel.mine)).sum())
        return f"{bad} values are NaN or infinite: a division by 0, or a value that was not set"
    for find in relations:
        if found := find(channel):
            return found
    return None


def nearness(channel: Channel) -> str:
    """Return how near to the right values, or to those of another channel, a channel is."""
    if np.ptp(channel.mine) == 0:
        return f"it is {channel.mine[0]:.6g} everywhere"
    own = _correlation(channel.mine, channel.own)
    others = [(_correlation(channel.mine, channel.right[:, c]), c) for c in range(_used())]
    best, other = max(others, key=lambda pair: abs(pair[0]))
    slope, shift = _line(channel.own, channel.mine)
    said = f"its correlation with the right values is {own:.4f} (about {slope:.4g} × them"
    said += f" {shift:+.4g})" if abs(shift) > _EXACT * np.ptp(channel.mine) else ")"
    if other != channel.number and abs(best) > abs(own) + 1e-3:
        said += f", with those of channel {other}, {CHANNELS[other]}, {best:.4f}"
    return said


def _used() -> int:
    return sum(not name.startswith("zero_") for name in CHANNELS)


def _rounded(channel: Channel) -> str | None:
    for digits in range(5):
        if _same(channel.mine, np.round(channel.own, digits)):
            return f"the right values are rounded to {digits} decimals"
        if _same(channel.mine, np.trunc(channel.own * 10**digits) / 10**digits):
            return f"the right values are cut off after {digits} decimals"
    with np.errstate(over="ignore"):
        half = channel.own.astype(np.float16).astype(np.float64)
    if np.isfinite(half).all() and _same(channel.mine, half):
        return "the right values are rounded to half precision"
    return None


def _clipped(channel: Channel) -> str | None:
    low, high = float(channel.mine.min()), float(channel.mine.max())
    if low == high or not _same(channel.mine, np.clip(channel.own, low, high)):
        return None
    ends = [
        f"{side} {end:.6g}"
        for side, end, cut in (
            ("below", low, channel.own.min() < low),
            ("above", high, channel.own.max() > high),
        )
        if cut
    ]
    return f"the right values are clipped {' and '.join(ends)}; they should not be"


def _shifted(channel: Channel) -> str | None:
    if len(np.unique(channel.own)) < _FEW:  # marks of a start or an end
        return None
    for steps in (k for n in range(1, _FURTHEST + 1) for k in (n, -n)):
        here, there = _neighbours(channel, steps)
        wanted = channel.own[there]
        if len(here) >= _FEW and np.ptp(wanted) > 0 and _same(channel.mine[here], wanted):
            where = "behind" if steps > 0 else "ahead of"
            return f"it is {abs(steps)} point{'s' * (abs(steps) > 1)} {where} the right values"
    return None


def _filtered(channel: Channel) -> str | None:
    """Fit what a filter gives from a value, its neighbours and the filter's own last output."""
    after, before = _neighbours(channel, 1)[0], _neighbours(channel, -1)[0]
    inner = np.intersect1d(after, before)
    if len(inner) < _FEW:
        return None
    terms = {
        "v[i]": channel.own[inner],
        "v[i-1]": channel.own[inner - 1],
        "v[i+1]": channel.own[inner + 1],
        "its own value at i-1": channel.mine[inner - 1],
    }
    columns = np.stack(list(terms.values()), axis=1)
    weights = np.linalg.lstsq(columns, channel.mine[inner])[0]
    if not _near(channel.mine[inner], columns @ weights):
        return None
    pairs = zip(weights, terms, strict=True)
    said = " ".join(f"{weight:+.3g} × {name}" for weight, name in pairs if abs(weight) > _EXACT)
    return f"it is filtered: {said.removeprefix('+')} of the right values v"


def _neighbours(channel: Channel, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the points i for which point i - steps is of the same case, and those points."""
    points, case = np.arange(len(channel.mine)), _case(channel)
    inside = (points - steps >= 0) & (points - steps < len(points))
    here = points[inside]
    here = here[case[here] == case[here - steps]]
    return here, here - steps


def _own_line(channel: Channel) -> str | None:
    slope, shift = _line(channel.own, channel.mine)
    rest = np.abs(channel.mine - slope * channel.own - shift).max()
    explained = rest <= _MOST_LEFT * np.abs(channel.mine - channel.own).max()
    if slope == 0 or not explained or not _near(channel.mine, slope * channel.own + shift):
        return None
    if abs(slope - 1) < _EXACT:
        return f"every value is {shift:+.6g} off: another origin?"
    if abs(shift) < _EXACT * np.ptp(channel.mine):
        return f"every value is {slope:.6g} times the right one: another unit?"
    return f"every value is {slope:.6g} times the right one {shift:+.6g}: another range?"


def _own_function(channel: Channel) -> str | None:
    for what, function in _FUNCTIONS:
        if _near(channel.mine, function(channel.own)):
            return f"it is {what} the right value"
    return None


def _other_channel(channel: Channel) -> str | None:
    for number in range(_used()):
        other = channel.right[:, number]
        slope, shift = _line(other, channel.mine)
        if number == channel.number or slope == 0:
            continue
        if _near(channel.mine, slope * other + shift):
            return f"it is {slope:.6g} times channel {number}, {CHANNELS[number]}, {shift:+.6g}"
    return None


def _places(channel: Channel) -> str | None:
    """Say where in each trace the wrong values are, if that is at an end or from a point on."""
    ends = np.append(channel.firsts[1:], len(channel.mine)) - 1
    wrong = np.flatnonzero(channel.wrong)
    for where, places in _ends(channel.firsts, ends):
        if len(wrong) > 1 and np.isin(wrong, places).all():
            return f"only {where} is wrong, the rest is right"
    place = wrong - channel.firsts[_case(channel)[wrong]]
    places = np.arange(len(channel.mine)) - channel.firsts[_case(channel)]
    first = int(place.min()) if len(wrong) else 0
    if first >= _FEW and len(wrong) == (places >= first).sum():
        return f"all is right before point {first} and wrong from there on: a buffer's length?"
    return None


def _ends(
    firsts: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    yield "the first point of a trace", firsts
    yield "the last point of a trace", last
    yield "the second point of a trace", firsts + 1
    yield "the first or the last point of a trace", np.append(firsts, last)
    two = np.concatenate([firsts, firsts + 1])
    yield "one of the first two points of a trace", two
    yield "one of the last two points of a trace", np.concatenate([last, last - 1])
    ends = np.concatenate([two, last, last - 1])
    yield "one of the two points at either end of a trace", ends


def _case(channel: Channel) -> NDArray[np.int64]:
    places = np.arange(len(channel.mine))
    return np.searchsorted(channel.firsts, places, side="right") - 1


def _line(x: Values, y: Values) -> tuple[float, float]:
    """Return slope and shift of the best line; 0 and the mean where x or y never changes."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, float(y.mean())
    slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return slope, float(y.mean() - slope * x.mean())


def _correlation(x: Values, y: Values) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _same(found: Values, wanted: Values) -> bool:
    return bool(np.allclose(found, wanted, rtol=1e-6, atol=1e-9))


def _near(found: Values, wanted: Values) -> bool:
    """Tell whether values follow a relation whose numbers were estimated from them."""
    spread = np.ptp(found)
    return bool(spread > 0 and np.abs(found - wanted).max() <= _EXACT * spread)


def side_by_side(
    number: int, mine: Sequence[Values], right: Sequence[Values], wrong: Sequence[NDArray[np.bool_]]
) -> Channel:
    """Lay the cases one after the other.

    Args:
        number: The channel.
        mine: (N, 37) of each case, as a port computed it.
        right: (N, 37) of each case.
        wrong: (N, 37) of each case. Cases of one point, whose row is zero, are left out.
    """
    kept = [index for index, features in enumerate(right) if len(features) > 1]
    lengths = [len(right[index]) for index in kept]
    return Channel(
        number,
        np.concatenate([mine[index][:, number] for index in kept]),
        np.concatenate([right[index] for index in kept]),
        np.cumsum([0, *lengths[:-1]]),
        np.concatenate([wrong[index][:, number] for index in kept]),
    )
