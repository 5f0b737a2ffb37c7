"""Stand-ins for the PyTorch libraries that ExecuTorch's arm64 wheel wants beside itself.

Its one library with the C++ runtime is made for Python: it takes a thread pool and a few hundred
symbols from PyTorch's libraries, which are 400 MB. A program that runs a .pte needs the pool
(serial here), ``native/cpuinfo.cpp`` and ``native/kleidiai.cpp``. All others only have to be there
when the library is loaded; one that is called all the same ends the process with its name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PARALLEL = re.compile(
    r"pthreadpool_parallelize_(?P<axes>\d)d(?:_tile_(?P<tiles>\d)d)?(?:_dynamic)?"
    r"(?P<uarch>_with_uarch)?(?P<thread>_with_thread)?"
)
_POOL = """\
#include <stddef.h>
#include <stdint.h>
static long pool;
void *pthreadpool_create(size_t threads) { (void)threads; return &pool; }
void *pthreadpool_create_v2(void *executor, void *context, size_t threads) {
    (void)executor, (void)context, (void)threads;
    return &pool;
}
void pthreadpool_destroy(void *given) { (void)given; }
size_t pthreadpool_get_threads_count(void *given) { (void)given; return 1; }
int pthreadpool_update_executor(void *given, void *executor, void *context) {
    (void)given, (void)executor, (void)context;
    return 1;
}
void pthreadpool_release_executor_threads(void *given) { (void)given; }
"""
_FUNCTION = """\
.globl "{name}"
.type "{name}", %function
.balign 8
"{name}":
    adr x0, 1f
    b exportgate_missing
1:  .asciz "{name}"
"""
# Zero, and long enough for whatever is read there.
_OBJECT = """\
.globl "{name}"
.type "{name}", %object
.size "{name}", 512
.balign 64
"{name}":
    .zero 512
"""
_INITIALISER = "_ZSt21ios_base_library_initv"
"""What newer compilers call once to say that streams are used."""


def pool_source(names: Iterable[str]) -> str:
    """Return C for a thread pool that runs everything on the caller's thread, in order.

    Args:
        names: The functions of pthreadpool's that are wanted.
    """
    found = (_PARALLEL.fullmatch(name) for name in sorted(names))
    return _POOL + "".join(_parallel(match) for match in found if match)


def provided(name: str) -> bool:
    """Whether ``pool_source`` has a function."""
    return bool(_PARALLEL.fullmatch(name)) or f"{name}(" in _POOL


def stub_source(functions: Iterable[str], objects: Iterable[str]) -> str:
    """Return arm64 assembly with a stand-in for each symbol."""
    called = [_FUNCTION.format(name=name) for name in sorted(functions) if name != _INITIALISER]
    read = [_OBJECT.format(name=name) for name in sorted(objects) if name != _INITIALISER]
    initialiser = f".globl {_INITIALISER}\n{_INITIALISER}: ret\n"
    return f".text\n{initialiser}{''.join(called)}.data\n{''.join(read)}"


def _parallel(match: re.Match[str]) -> str:
    """Return one of the pool's loops; their names say what they take."""
    axes, tiles = int(match["axes"]), int(match["tiles"] or 0)
    tiled = range(axes - tiles, axes)
    places = [f"i{n}" for n in range(axes)]
    takes = ["void *"] + ["uint32_t"] * bool(match["uarch"]) + ["size_t"] * bool(match["thread"])
    takes += ["size_t"] * (axes + tiles)
    given = ["void *given", f"void (*task)({', '.join(takes)})", "void *context"]
    given += ["uint32_t uarch", "uint32_t last_uarch"] * bool(match["uarch"])
    given += [f"size_t range{n}" for n in range(axes)] + [f"size_t tile{n}" for n in tiled]
    passed = ["context"] + ["uarch"] * bool(match["uarch"]) + ["0"] * bool(match["thread"])
    rest = [f"(tile{n} < range{n} - i{n} ? tile{n} : range{n} - i{n})" for n in tiled]
    steps = [f"tile{n}" if n in tiled else "1" for n in range(axes)]
    loops = "".join(
        f"    for (size_t i{n} = 0; i{n} < range{n}; i{n} += {steps[n]})\n" for n in range(axes)
    )
    unused = "(void)given, (void)flags" + ", (void)last_uarch" * bool(match["uarch"])
    return (
        f"void {match[0]}({', '.join([*given, 'uint32_t flags'])}) {{\n    {unused};\n"
        f"{loops}        task({', '.join([*passed, *places, *rest])});\n}}\n"
    )
