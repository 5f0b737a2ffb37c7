"""Pages in a real browser: ``make test-browser``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

# Torch cannot be loaded twice, and a run inside a test forgets what it has loaded itself.
import exporters.nemo.peek  # noqa: F401
from exportgate.artifacts.sidecar import sha256_of, sidecar_path
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Worker, WorkerError
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError, OpenError, RunError
from harness.devices.browser import alone, engine, installation
from harness.devices.browser.devices import engine_of
from harness.devices.device import DeviceDiedError, open_on
from harness.devices.registry import device
from harness.measure.paired import PairedLatency, paired_round
from tests.devices.full_disk import opened_on_a_full_disk
from tests.devices.processes import alive, eventually, left, place
from tests.test_devices import BASELINE, FILE, judged, project, verdicts, write_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.devices.browser.devices import Browser

pytestmark = pytest.mark.browser
__all__ = ["place", "project"]
INSTALLED = installation.packages()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, padding in ((FILE, 0), (BASELINE, 20_000)):
        write_encoder(tmp_path / name, padding)
    return tmp_path


@pytest.fixture
def worker(place: Path) -> Iterator[Worker]:
    with Worker("the page's worker", timeout_s=150) as found:
        yield found
    assert eventually(lambda: not left(place))


SWIPES = [np.random.default_rng(n).normal(size=(37, n)).astype(np.float32) for n in (1, 30, 200)]


def outputs(session: Any, features: list[Any]) -> list[Any]:
    return [session.run(encoder_input(item)) for item in features]


def elapsed(session: Any, runs: int) -> float:
    return session.elapsed([encoder_input(item) for item in SWIPES], runs).wall_s


def run_nothing(session: Any) -> None:
    session.run({})


def run_what_breaks(session: Any) -> None:
    # Past the check of the inputs: four channels too few for the product.
    session._ask("run", [{**encoder_input(SWIPES[1]), "features_bft": SWIPES[1][None, :33]}])


def about(found: Browser) -> tuple[dict[str, Any], int]:
    page = engine_of(found)
    return page.about, page.guard_pid


@pytest.mark.parametrize(
    "name",
    ["browser", "browser:threads=2", "browser:ort=1.18", "browser:threads=2,ort=1.18", "node",
     "node:ort=1.18"],
)  # fmt: skip
def test_a_page_gives_what_the_host_gives(files: Path, worker: Worker, name: str) -> None:
    host = open_artifact(files / FILE)
    session = worker.make(open_on, device(name), files / FILE)
    for ours, theirs in zip(
        outputs(host, SWIPES), worker.call(outputs, session, SWIPES), strict=True
    ):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert ours[key].dtype == theirs[key].dtype
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-4)
    assert 0 < worker.call(elapsed, session, 3) < 60
    said, _ = worker.call(about, device(name))
    assert said["isolated"] is (None if "node" in name else True)
    wanted = "1.18.0" if "1.18" in name else "1.30.0"
    assert said["version"] == wanted
    assert device(name).environment().versions["onnxruntime-web"] == wanted


def test_refusals_are_no_deaths(files: Path, worker: Worker) -> None:
    page = device("browser")
    session = worker.make(open_on, page, files / FILE)
    for function, kind in ((run_nothing, InputError), (run_what_breaks, RunError)):
        with pytest.raises(WorkerError) as raised:
            worker.call(function, session)
        assert raised.value.kind == kind.__name__
        assert "\n" not in str(raised.value)
    data = (files / FILE).read_bytes()
    broken = files / BASELINE
    write_encoder(broken, padding=0)
    sidecar = Path(f"{broken}.json").read_text(encoding="utf-8")
    broken.write_bytes(data[:-200])
    import hashlib

    old = json.loads(sidecar)["sha256"]
    size = json.loads(sidecar)["size_bytes"]
    now = hashlib.sha256(broken.read_bytes()).hexdigest()
    text = sidecar.replace(old, now).replace(f": {size}", f": {len(data) - 200}")
    Path(f"{broken}.json").write_text(text, encoding="utf-8")
    with pytest.raises(WorkerError, match="onnxruntime-web does not load it") as raised:
        worker.call(open_on, page, broken)
    assert raised.value.kind == OpenError.__name__
    assert len(worker.call(outputs, session, SWIPES)) == len(SWIPES)


def test_a_file_alone_has_load_runs_and_memory(place: Path, files: Path, worker: Worker) -> None:
    found = worker.call(alone_briefly, device("browser"), files / FILE)
    assert len(found.load_ms) == len(found.first_run_ms) == 2
    assert len(found.run_ms) == 10
    assert min(*found.load_ms, *found.first_run_ms, *found.run_ms) > 0
    assert 0 < found.peak_memory_bytes < 1 << 30
    assert not left(place)


def alone_briefly(page: Browser, path: Path) -> Any:
    alone.OPENINGS, alone.RUNS = 2, 5  # type: ignore[misc]
    return page.alone(path, encoder_input(SWIPES[1]))


def below(process: int) -> list[int]:
    return [int(folder.name) for folder in alone._below(process)]


def renderers(process: int) -> list[int]:
    """Return the processes of pages, of which one is spare."""
    found = [int(f.name) for f in alone._below(process) if alone._runs_a_page(f)]
    assert found
    return found


def signalled(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def run_for_ever(session: Any) -> None:
    while True:
        session.elapsed([encoder_input(SWIPES[2])], 1000)


@pytest.mark.parametrize("whom", ["browser", "page"])
def test_a_killed_browser_is_one_dead_device_and_the_next_opens(
    place: Path, files: Path, worker: Worker, whom: str
) -> None:
    page = device("browser")
    session = worker.make(open_on, page, files / FILE)
    _, guarding = worker.call(about, page)
    everybody = below(guarding)
    assert len(everybody) > 2
    victims = renderers(guarding) if whom == "page" else [min(everybody)]
    threading.Timer(0.7, signalled, (victims, signal.SIGKILL)).start()
    with pytest.raises(WorkerError, match="device browser died: ") as raised:
        worker.call(run_for_ever, session)
    assert raised.value.kind == DeviceDiedError.__name__
    assert "\n" not in str(raised.value)
    if whom == "browser":
        assert "SIGKILL" in str(raised.value)
    assert eventually(lambda: not any(map(alive, [*everybody, guarding])))
    assert not left(place)
    again = worker.make(open_on, page, files / FILE)
    assert len(worker.call(outputs, again, SWIPES)) == len(SWIPES)


def test_a_hanging_page_is_killed_in_time(files: Path, worker: Worker) -> None:
    page = device("browser")
    session = worker.make(open_on, page, files / FILE)
    _, guarding = worker.call(about, page)
    everybody = below(guarding)
    signalled(renderers(guarding), signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"no answer to run in 1 s, it was killed"):
        worker.call(outputs_within, session, 1.0)
    assert eventually(lambda: not any(map(alive, everybody)))


def outputs_within(session: Any, limit_s: float) -> Any:
    engine.ANSWER_S = limit_s  # type: ignore[misc]
    return outputs(session, SWIPES)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_outlives_the_worker(place: Path, files: Path, how: signal.Signals | None) -> None:
    found = Worker("the page's worker")
    found.make(open_on, device("browser"), files / FILE)
    _, guarding = found.call(about, device("browser"))
    everybody = [*below(guarding), guarding]
    assert len(left(place)) == 1
    if how is None:
        found.close()
    else:
        os.kill(found._process.pid, how)
    assert eventually(lambda: not any(map(alive, everybody)))
    assert eventually(lambda: not left(place))
    with contextlib.suppress(OSError):
        found.close()


@pytest.mark.parametrize("name", ["browser", "node"])
def test_a_full_disk_stops_no_page_and_keeps_nothing(place: Path, files: Path, name: str) -> None:
    assert opened_on_a_full_disk(name, files / FILE, place) == ("opened", "filling")


def test_pages_run_beside_each_other_and_many_files_in_one(files: Path, worker: Worker) -> None:
    with Worker("another worker", timeout_s=150) as other:
        page = device("browser")
        sessions = [(w, w.make(open_on, page, files / n)) for w in (worker, other)
                    for n in (FILE, BASELINE, FILE)]  # fmt: skip
        found = [w.call(outputs, session, SWIPES) for w, session in sessions]
        pids = {w.call(about, page)[1] for w in (worker, other)}
    assert len(pids) == 2
    for one, next_one in pairwise(found):
        for ours, theirs in zip(one, next_one, strict=True):
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def slow_down(path: Path, products: int) -> None:
    """Let a file compute the same by so many more products with the identity."""
    model = onnx.load(path)
    identity = numpy_helper.from_array(np.eye(96, dtype=np.float32), "identity")
    model.graph.initializer.append(identity)
    (product,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    names = [*(f"x{number}" for number in range(products)), product.output[0]]
    product.output[0] = names[0]
    place = list(model.graph.node).index(product) + 1
    for given, found in pairwise(names):
        model.graph.node.insert(place, helper.make_node("MatMul", ["identity", given], [found]))
        place += 1
    path.write_bytes(model.SerializeToString())
    sidecar = sidecar_path(path)
    data = json.loads(sidecar.read_text(encoding="utf-8"))
    data |= {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    sidecar.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize("slower", [True, False])
def test_what_is_slower_in_a_page_than_its_baseline_is_proven_so(
    files: Path, worker: Worker, slower: bool
) -> None:
    slow_down(files / (FILE if slower else BASELINE), 60)
    page = device("browser")
    ours, theirs = (worker.make(open_on, page, files / name) for name in (FILE, BASELINE))
    inputs = [encoder_input(SWIPES[2])]
    timed = [worker.call(paired_round, ours, theirs, inputs) for _ in range(25)][5:]
    found = PairedLatency(tuple(a for a, _ in timed), tuple(b for _, b in timed)).proven_speedup
    assert found < 1 if slower else found > 1


def test_swiftshader_runs_a_file(files: Path, worker: Worker) -> None:
    host = open_artifact(files / FILE)
    session = worker.make(open_on, device("webgpu"), files / FILE)
    (ours,), (theirs,) = (outputs(host, SWIPES[1:2]), worker.call(outputs, session, SWIPES[1:2]))
    np.testing.assert_allclose(ours["encoded_bdt"], theirs["encoded_bdt"], atol=1e-4)
    said, _ = worker.call(about, device("webgpu"))
    assert said["gpu"]


def test_the_gate_judges_in_the_browser(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pytester has a home of its own.
    monkeypatch.setenv("XDG_CACHE_HOME", str(INSTALLED.parents[2]))
    result, report = judged(project, "browser")
    found = verdicts(report)
    statuses = {metric: status for metric, (status, _) in found.items()}
    # The two files of this suite compute the same: only the clock may say one thing or the other.
    assert statuses.pop("speedup") in {"PASS", "FAIL"}
    assert set(statuses.values()) == {"PASS"}
    assert report["environment"]["versions"]["onnxruntime-web"] == "1.30.0"
    result.stdout.fnmatch_lines(["*target android on browser"])
