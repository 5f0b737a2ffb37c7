"""Compute at most once, and keep an error like a result.

Each check that depends on something that failed then fails with the same reason, instead of trying
it again.
"""

from __future__ import annotations

from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

P = ParamSpec("P")
T = TypeVar("T")


class _Remembers(Protocol):
    @property
    def memo(self) -> dict[Hashable, Any]:
        """Results and errors by method and arguments."""


S = TypeVar("S", bound=_Remembers)


def once(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Compute at most once for each set of arguments, however they are written.

    ``found(n)``, ``found(name=n)`` and ``found(n, free=False)`` are one computation where ``free``
    is False by default.
    """
    shape = signature(method)

    @wraps(method)
    def cached(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = shape.bind(self, *args, **kwargs)
        bound.apply_defaults()
        key = (method.__name__, *list(bound.arguments.values())[1:])
        if key not in self.memo:
            try:
                self.memo[key] = method(self, *args, **kwargs)
            except ExportGateError as failure:
                self.memo[key] = failure
        kept: T | ExportGateError = self.memo[key]
        if isinstance(kept, ExportGateError):
            raise kept
        return kept

    return cached
