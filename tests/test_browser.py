"""Pages: what can be shown without a browser, and (``make test-browser``) what needs one."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# Torch cannot be loaded twice, and a run inside a test forgets what it has loaded itself.
import exporters.nemo.peek  # noqa: F401
from harness.devices.browser import engine, guard, installation
from harness.devices.browser.devices import BrowserArgumentError
from harness.devices.browser.server import PageServer
from harness.devices.browser.web_socket import WebSocket, accept_key
from harness.devices.device import DeviceDiedError, DeviceLacksError, Need
from harness.devices.registry import device
from tests.devices.processes import PATIENCE_S, alive, eventually, left, place
from tests.test_devices import judged, project, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["place", "project"]


# --- names, and what is missing -------------------------------------------------------------------


def test_settings_are_in_the_name() -> None:
    names = ["browser", "browser:threads=2", "browser:ort=1.18", "browser:threads=2,ort=1.18"]
    assert [device(name).name for name in names] == names
    assert device("browser:ort=1.18,threads=2").name == "browser:threads=2,ort=1.18"
    assert device("browser:ort=1.30,threads=1").name == "browser"
    assert device("browser:webgpu").name == device("webgpu").name == "webgpu"
    assert device("node:ort=1.18").name == "node:ort=1.18"


@pytest.mark.parametrize(
    "name",
    ["browser:threads=0", "browser:threads=two", "browser:ort=2", "browser:fast", "browser:,",
     "webgpu:threads=2", "node:threads=2"],
)  # fmt: skip
def test_an_unknown_setting_is_named(name: str) -> None:
    with pytest.raises(BrowserArgumentError, match=r"unknown setting '.*'; known: ") as raised:
        device(name)
    assert "\n" not in str(raised.value)


def test_what_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "chromium", lambda: None)
    page = device("browser")
    for need in (Need.ONNX, Need.PAIRED_TIME, Need.ALONE):
        found = page.lacks(need)
        assert found == "Chromium is not installed; install it with: make setup-browser"
    with pytest.raises(DeviceLacksError, match="make setup-browser"):
        page.start()
    assert page.environment().versions["browser"] == "not installed"
    monkeypatch.setattr(installation, "chromium", lambda: "/bin/true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "onnxruntime-web 1.30 is not there" in page.lacks(Need.ONNX)
    assert page.environment().versions["onnxruntime-web"] == "not installed"


def test_pages_run_no_pte_and_emulation_tells_no_time() -> None:
    assert device("browser").lacks(Need.PTE) == "pages run ONNX files only"
    for need in (Need.PAIRED_TIME, Need.ALONE):
        assert "SwiftShader" in device("webgpu").lacks(need)


def test_every_package_is_pinned_with_its_hash() -> None:
    locked = json.loads((installation.NPM / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: row for name, row in locked["packages"].items() if name}
    assert len(packages) > 10
    assert all(row["integrity"].startswith("sha512-") for row in packages.values())
    for minor, name in installation.RUNTIMES.items():
        assert packages[f"node_modules/{name}"]["version"].startswith(f"{minor}.")


def fake_npm(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)


def test_packages_are_installed_once_and_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs, cache = tmp_path / "programs", tmp_path / "cache" / "exportgate" / "browser"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    fake_npm(programs, "mkdir half; echo a hash differs >&2; exit 1")
    with pytest.raises(installation.InstallError, match=r"^npm ci failed .*: a hash differs$"):
        installation.install()
    assert not list(cache.iterdir())
    fake_npm(programs, 'test "$1" = ci && test -f package-lock.json && touch installed')
    folder = installation.install()
    assert (folder / "installed").is_file()
    fake_npm(programs, "exit 1")
    assert installation.install() == folder
    assert list(cache.iterdir()) == [folder]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(installation.InstallError, match="npm is not installed"):
        installation.install()


# --- the web socket -------------------------------------------------------------------------------


MASK = b"\x01\x80\xff\x00"


def frame(kind: int, content: bytes, *, final: bool = True) -> bytes:
    """Write a frame as a browser does."""
    size, first = len(content), kind | (0x80 if final else 0)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    masked = bytes(byte ^ MASK[place % 4] for place, byte in enumerate(content))
    return head + MASK + masked


@pytest.fixture
def line() -> Iterator[tuple[WebSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield WebSocket(ours, ours.makefile("rb")), theirs


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_003])
def test_messages_of_every_length_form(line: tuple[WebSocket, socket.socket], size: int) -> None:
    here, there = line
    content = np.resize(np.arange(251, dtype=np.uint8), size).tobytes()
    threading.Thread(target=there.sendall, args=(frame(2, content),)).start()
    assert here.receive(5) == content
    threading.Thread(target=here.send, args=(content,)).start()
    head = 2 if size < 126 else 4 if size < 1 << 16 else 10
    with there.makefile("rb") as incoming:
        assert incoming.read(head + size)[head:] == content


def test_fragments_are_one_message_and_pings_are_none(
    line: tuple[WebSocket, socket.socket],
) -> None:
    here, there = line
    parts = frame(2, b"one ", final=False) + frame(9, b"ping") + frame(0, b"message")
    there.sendall(parts)
    assert here.receive(5) == b"one message"


def test_an_end_a_silence_and_another_protocol_are_told_apart(
    line: tuple[WebSocket, socket.socket],
) -> None:
    here, there = line
    there.sendall(frame(1, b"text"))
    with pytest.raises(ConnectionAbortedError, match="kind 1"):
        here.receive(5)
    there.sendall(frame(8, b""))
    with pytest.raises(ConnectionResetError, match="closed"):
        here.receive(5)
    with pytest.raises(TimeoutError):
        here.receive(0.05)
    there.close()
    with pytest.raises(ConnectionError):
        WebSocket(here._connection, here._connection.makefile("rb")).receive(5)


def test_the_handshake_is_the_rfcs() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    (tmp_path / "runtime" / "esm").mkdir(parents=True)
    (tmp_path / "runtime" / "esm" / "ort.mjs").write_text("export {}", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("nobody's", encoding="utf-8")
    found = PageServer(tmp_path / "runtime")
    yield found
    found.stop()


def fetched(url: str) -> tuple[int, Any]:
    # No proxy of this machine knows the address.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_the_page_is_isolated_and_has_its_files(server: PageServer) -> None:
    for path, kind in {"": "text/html", "?threads=2": "text/html", "serve.mjs": "text/javascript",
                       "ort/esm/ort.mjs": "text/javascript"}.items():  # fmt: skip
        status, headers = fetched(server.address + path)
        assert (status, headers["Content-Type"]) == (200, kind)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "ort/../secret.txt", "ort/../../secret.txt", "ort/%2e%2e/secret.txt",
     "../server.py", "nothing.mjs", "ort/"],
)  # fmt: skip
def test_it_serves_nothing_else(server: PageServer, path: str) -> None:
    assert server.file(f"/{server.secret}/{path}") is None
    assert fetched(server.address + "%2e%2e/server.py")[0] == 404
    assert fetched(server.address.replace(server.secret, "guess"))[0] == 404
    assert fetched(server.address + "socket")[0] == 426


def test_a_port_is_free_again_and_never_shared(tmp_path: Path) -> None:
    servers = [PageServer(tmp_path) for _ in range(3)]
    ports = {server.server_port for server in servers}
    assert len(ports) == 3
    for server in servers:
        server.stop()
    for port in ports:
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


# --- the guard ------------------------------------------------------------------------------------

CROWD = """
import os, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "profile").mkdir()
# A grandchild that left its group and lost its mother, as a crash handler of a browser does.
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
child = os.getpid()
pathlib.Path(sys.argv[2], str(child)).touch()
time.sleep(600)
"""


def guarded(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_nothing_outlives_its_owner(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "crowd.py"
    script.write_text(CROWD, encoding="utf-8")
    (tmp_path / "born").mkdir()
    found = guarded(sys.executable, str(script), "{folder}", str(tmp_path / "born"))
    assert eventually(lambda: len(list((tmp_path / "born").iterdir())) == 2)
    assert len(left(place)) == 1
    born = [int(path.name) for path in (tmp_path / "born").iterdir()]
    found.communicate(timeout=PATIENCE_S)
    assert not any(map(alive, born))
    assert not left(place)


@pytest.mark.parametrize(("script", "how"), [("raise SystemExit(3)", b"exit status 3\n"),
                                             ("import os; os.abort()", b"SIGABRT\n")])  # fmt: skip
def test_it_says_how_the_command_ended(script: str, how: bytes) -> None:
    found = guarded(sys.executable, "-c", script)
    assert found.stdout is not None
    assert found.stdout.readline() == how
    found.communicate(timeout=PATIENCE_S)


def test_a_command_that_never_calls_is_a_dead_device(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "START_S", 0.3)
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(DeviceDiedError, match=r"browser died: it did not call back in 0\.3 s$"):
        engine.Engine("browser", tmp_path, lambda _: silent)
    monkeypatch.setattr(engine, "START_S", 30)
    hopeless = [sys.executable, "-c", "import sys; sys.exit('no display')"]
    ended = r"it ended at once; it had printed: no display \(exit status 1\)$"
    with pytest.raises(DeviceDiedError, match=ended):
        engine.Engine("browser", tmp_path, lambda _: hopeless)
    assert not left(place)


def test_the_gate_without_a_browser_is_not_measured(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "chromium", lambda: None)
    result, report = judged(project, "browser")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = verdicts(report)
    status, detail = found["nonfinite"]
    assert status == "NOT_MEASURED"
    assert detail == (
        "device browser cannot run .onnx files: Chromium is not installed; "
        "install it with: make setup-browser"
    )
    assert "PASS" not in {found[metric][0] for metric in ("nonfinite", "speedup")}
