"""What a visitor waits for: opening a file in a new page, its first run, the runs after it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.devices.browser.session import PageSession, adapted
from harness.measure.latency import OPENINGS, RUNS, Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from exportgate.runtime.session import Arrays
    from harness.devices.browser.engine import Engine

_RESET_PEAK = "5"
"""To ``/proc/…/clear_refs``: the peak of resident memory begins anew."""


def measure_alone(start: Callable[[], Engine], artifact: Path, inputs: Arrays) -> Latency:
    """Time a file in new pages, by the pages' clock.

    A page's first session also starts the runtime, which is the same for every file: another file,
    of one node, is opened first. The file itself has neither been opened nor run before.

    Raises:
        OpenError: The runtime does not load the file.
        RunError: The runtime fails.
        DeviceDiedError: A page died.
    """
    loads: list[float] = []
    firsts: list[float] = []
    rest: list[float] = []
    peaks: list[int] = []
    for _ in range(OPENINGS):
        page = start()
        try:
            page.ask({"ask": "open", "id": page.new_id()}, _one_node())
            before = peak_bytes(page.guard_pid, reset=True)
            opened = PageSession(page, artifact)
            session = adapted(opened, artifact)
            times = [session.elapsed([inputs]).wall_s * 1e3 for _ in range(1 + RUNS)]
            peaks.append(peak_bytes(page.guard_pid) - before)
        finally:
            page.close()
        loads.append(opened.load_ms)
        firsts.append(times[0])
        rest += times[1:]
    return Latency(tuple(loads), tuple(firsts), tuple(rest), max(peaks))


def _one_node() -> bytes:
    from onnx import TensorProto, helper  # noqa: PLC0415 - only who times pays for it

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "one node", [tensors[0]], [tensors[1]]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: bytes = model.SerializeToString()
    return found


def peak_bytes(guard: int, *, reset: bool = False) -> int:
    """Return the peak of resident memory of the process that runs the page.

    Args:
        guard: The process above it.
        reset: Begin anew first: the peak is what is resident now.
    """
    pages = [folder for folder in _below(guard) if _runs_a_page(folder)]
    if reset:
        for folder in pages:
            (folder / "clear_refs").write_text(_RESET_PEAK)
    return max(_status_bytes(folder) for folder in pages)


def page_threads(guard: int) -> list[Path]:
    """Return where Linux says what the threads ran that run the pages: see ``processor_s``."""
    return [folder / "schedstat" for folder in _below(guard) if _runs_a_page(folder)]


def processor_s(threads: Sequence[Path]) -> float:
    """Return the seconds that they have run, all told; exact only while they wait.

    Raises:
        OSError: A page is gone.
    """
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


def _runs_a_page(process: Path) -> bool:
    # Chromium's processes write their arguments anew, with spaces.
    words = (process / "cmdline").read_bytes()
    return b"--type=renderer" in words or b"--experimental-websocket" in words


def _status_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def _below(process: int) -> Iterator[Path]:
    """Yield the folder in ``/proc`` of each process that another has started, however deep."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces; behind it stand state and parent.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    above = [process]
    while above:
        mother = above.pop()
        for child, parent in parents.items():
            if parent == mother:
                above.append(child)
                yield Path("/proc") / str(child)
