"""A headless Chromium, driven over a pipe by its DevTools protocol: no driver, no port."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


def _high(descriptor: int) -> int:
    """Give a descriptor a number above those that the child is to use."""
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return number


class Chromium:
    """One page."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4: neither may be one of these.
        commands, answers = _high(commands), _high(answers)
        shell = f'exec chromium "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", *FLAGS, f"--user-data-dir={self._profile.name}"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._number, self._pages, self._session = b"", 0, 0, ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def send(self, method: str, timeout_s: float = 120, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def value(self, expression: str) -> Any:
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 120) -> Any:
        end = time.monotonic() + timeout_s
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"{expression} stayed {found!r}"
            time.sleep(0.1)
        return found

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        # A number of its own tells this page from the one that was there.
        self._pages += 1
        self.send("Page.navigate", url=f"{url}?{self._pages}")
        loaded = f"location.search === '?{self._pages}' && document.readyState === 'complete'"
        self.wait(loaded)

    def drag(self, points: Sequence[tuple[float, float, float]], *, touch: bool) -> None:
        """Press, move and let go, by mouse or by finger, with the times of the points in ms."""
        begin = time.time() + 0.05
        last = len(points) - 1
        for index, (x, y, t) in enumerate(points):
            time.sleep(max(0.0, begin + t / 1000 - time.time()))
            stamp = begin + t / 1000
            if touch:
                kind = "touchStart" if index == 0 else "touchMove"
                touches = [{"x": x, "y": y}]
                self.send(
                    "Input.dispatchTouchEvent", type=kind, touchPoints=touches, timestamp=stamp
                )
            else:
                kind = "mousePressed" if index == 0 else "mouseMoved"
                self.mouse(kind, x, y, stamp)
            if index == last and touch:
                self.send(
                    "Input.dispatchTouchEvent", type="touchEnd", touchPoints=[], timestamp=stamp
                )
            elif index == last:
                self.mouse("mouseReleased", x, y, stamp)

    def mouse(self, kind: str, x: float, y: float, stamp: float) -> None:
        self.send(
            "Input.dispatchMouseEvent",
            type=kind, x=x, y=y, button="left", buttons=1, clickCount=1, timestamp=stamp,
        )  # fmt: skip

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
