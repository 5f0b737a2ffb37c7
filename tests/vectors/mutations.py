"""Change files as nobody would: single bytes, pieces of text, values of a tree."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

Edit = tuple[str, float, int]
"""An operation, where (a share of the whole), and a number that it takes."""
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e308, 5e-324, "", "x", "../x", "/etc",
    "\x1b[2J\n", "\u202e", "a" * 5000, "9" * 5000, [], {}, [[]], {"": {}}, [None] * 300,
    {"a": [1, {"b": None}]},
)  # fmt: skip
_TEXTS = (
    b"", b"\0", b"\xff\xfe", b"\n", b'"', b"[", b"]", b"{", b"}", b"=", b"&a ", b"*a ", b"!!int ",
    b"<<: ", b"nan", b"1e999", b"-", b"9" * 400, b"[" * 2000, b"\\ud800", b"../", b"#", b"'''",
)  # fmt: skip


def _number(data: bytes, at: int, number: int) -> bytes:
    """Put a number of 1 to 8 bytes at the edge of what such a number holds."""
    width = (1, 2, 4, 8)[number % 4]
    edges = (0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, len(data))
    value = edges[number // 4 % len(edges)] % 2 ** (8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


_BYTES: dict[str, Callable[[bytes, int, int], bytes]] = {
    "flip": lambda d, at, n: d[:at] + bytes([d[at] ^ (1 << n % 8)]) + d[at + 1 :] if d else d,
    "set": lambda d, at, n: d[:at] + bytes([n % 256]) + d[at + 1 :],
    "number": _number,
    "cut": lambda d, at, _: d[:at],
    "drop": lambda d, at, n: d[:at] + d[at + 1 + n % 64 :],
    "repeat": lambda d, at, n: d[:at] + d[at : at + 1 + n % 512] * (2 + n % 3) + d[at:],
    "swap": lambda d, at, n: d[at:] + d[:at] if n % 8 == 0 else d,
    "text": lambda d, at, n: d[:at] + _TEXTS[n % len(_TEXTS)] + d[at:],
    "digits": lambda d, at, n: (
        re.sub(rb"\d+", str(_VALUES[n % 11] or 0).encode(), d[at:], count=1)
        if at == 0
        else d[:at] + re.sub(rb"\d+", str(_VALUES[n % 11] or 0).encode(), d[at:], count=1)
    ),
}
_TREE = ("value", "remove", "add", "wrap", "exchange")
of_bytes = st.lists(
    st.tuples(st.sampled_from(sorted(_BYTES)), st.floats(0, 1), st.integers(0, 2**32 - 1)),
    min_size=1, max_size=4,
)  # fmt: skip
of_trees = st.lists(
    st.tuples(st.sampled_from(_TREE), st.floats(0, 1), st.integers(0, 2**32 - 1)),
    min_size=1, max_size=3,
)  # fmt: skip


def mutated(data: bytes, edits: list[Edit]) -> bytes:
    """Return the bytes after the edits."""
    for name, where, number in edits:
        data = _BYTES[name](data, min(int(where * len(data)), max(len(data) - 1, 0)), number)
    return data


def restructured(tree: Any, edits: list[Edit]) -> Any:
    """Return plain data after edits of its values, names and lists."""
    tree = json.loads(json.dumps(tree, default=str))
    for name, where, number in edits:
        places = list(_places(tree))
        if not places:
            return tree
        node, key = places[min(int(where * len(places)), len(places) - 1)]
        if number % 2:
            node, key = _descended(tree, where, number)
        value = json.loads(json.dumps(_VALUES[number % len(_VALUES)]))
        if name == "value":
            node[key] = value
        elif name == "remove":
            del node[key]
        elif name == "wrap":
            node[key] = [node[key]]
        elif name == "exchange":
            other, its = places[number % len(places)]
            node[key] = json.loads(json.dumps(other[its]))
        elif isinstance(node, dict):
            node[f"x{number % 3}"] = value
        else:
            node.insert(0, value)
    return tree


def _descended(tree: Any, where: float, number: int) -> tuple[Any, Any]:
    """Choose by levels: of all values, nearly all are the numbers of the longest list."""
    node, depth = tree, number // 2 % 6
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        where *= len(keys)
        key = keys[min(int(where), len(keys) - 1)]
        where -= int(where)
        if not depth or not isinstance(node[key], (dict, list)) or not node[key]:
            return node, key
        node, depth = node[key], depth - 1


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
