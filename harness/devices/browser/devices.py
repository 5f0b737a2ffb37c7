"""``--device browser``, ``--device webgpu`` and ``--device node``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.errors import ExportGateError
from harness.devices.browser import installation
from harness.devices.browser.alone import measure_alone
from harness.devices.browser.engine import Engine
from harness.devices.browser.session import PageSession, adapted
from harness.devices.device import DeviceLacksError, Need
from harness.measure.environment import environment

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.runtime.session import Arrays, TimedSession
    from harness.devices.browser.server import PageServer
    from harness.measure.environment import Environment
    from harness.measure.latency import Latency

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--disable-crash-reporter",
    "--user-data-dir={folder}",
)  # fmt: skip
"""No sandbox: it needs rights that containers lack, and the page is our own."""
_SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
_NO_PTE = "pages run ONNX files only"
_NO_GPU = "SwiftShader computes on the processor: its times are those of no graphics processor"


class BrowserArgumentError(ExportGateError, ValueError):
    """A device of this kind has no such setting."""

    def __init__(self, kind: str, setting: str) -> None:
        """Name the setting and what there is."""
        versions = "|".join(installation.RUNTIMES)
        known = {
            "browser": f"threads=1|2|…, ort={versions} (several with commas), or webgpu",
            "webgpu": "none",
            "node": f"ort={versions}",
        }[kind]
        super().__init__(f"--device {kind}: unknown setting {setting!r}; known: {known}")


@dataclass(frozen=True, slots=True)
class Browser:
    """onnxruntime-web in a page of headless Chromium, or in Node; see ``device.Device``.

    Attributes:
        kind: ``browser``, ``webgpu`` or ``node``.
        threads: Of WebAssembly.
        ort: Minor version of onnxruntime-web.
    """

    kind: str = "browser"
    threads: int = 1
    ort: str = next(iter(installation.RUNTIMES))
    _default: ClassVar[str] = next(iter(installation.RUNTIMES))

    @property
    def name(self) -> str:
        """With the settings that are not the usual ones."""
        settings = [f"threads={self.threads}"] if self.threads != 1 else []
        settings += [f"ort={self.ort}"] if self.ort != self._default else []
        return f"{self.kind}:{','.join(settings)}" if settings else self.kind

    def lacks(self, need: Need) -> str:
        """Say what is not installed, or what such a device cannot do at all."""
        if need is Need.PTE:
            return _NO_PTE
        if self.kind == "webgpu" and need in {Need.PAIRED_TIME, Need.ALONE}:
            return _NO_GPU
        program = "Node" if self.kind == "node" else "Chromium"
        if self._program is None:
            return f"{program} is not installed; {installation.HOW_TO_INSTALL}"
        if not installation.runtime(self.ort).is_dir():
            return f"onnxruntime-web {self.ort} is not there; {installation.HOW_TO_INSTALL}"
        return ""

    def environment(self) -> Environment:
        """Describe this machine with the runtime and the program that runs it."""
        here, program = environment(), self._program
        versions = {
            "onnxruntime-web": installation.version_of_runtime(self.ort),
            self.kind: installation.version_of(program) if program else "not installed",
        }
        kept = {name: here.versions[name] for name in ("onnx",) if name in here.versions}
        return replace(here, machine="wasm32", versions={**kept, **versions})

    def open(self, artifact: Path) -> TimedSession:
        """Open a file in the page of this process."""
        read_sidecar(artifact)
        return adapted(PageSession(engine_of(self), artifact), artifact)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Time a file in pages of its own."""
        return measure_alone(self.start, artifact, inputs)

    def brotli_bytes(self, artifact: Path) -> int | None:
        """Return what a visitor downloads of a file; None without Node, which has the encoder."""
        program = installation.node()
        return installation.brotli_bytes(program, artifact) if program else None

    def start(self) -> Engine:
        """Start a page that has nothing open.

        Raises:
            DeviceLacksError: Something is not installed.
            DeviceDiedError: It did not start.
        """
        if reason := self.lacks(Need.ONNX):
            raise DeviceLacksError(self.name, Need.ONNX, reason)
        return Engine(self.name, installation.runtime(self.ort), self._command)

    @property
    def _program(self) -> str | None:
        return installation.node() if self.kind == "node" else installation.chromium()

    def _command(self, server: PageServer) -> list[str]:
        module = installation.module(self.ort, self.kind)
        provider = "webgpu" if self.kind == "webgpu" else "wasm"
        asked = {"module": module, "provider": provider, "threads": str(self.threads)}
        settings = [f"{name}={value}" for name, value in asked.items()]
        program = str(self._program)
        if self.kind == "node":
            socket = f"ws{server.address.removeprefix('http')}socket"
            folder = str(installation.runtime(self.ort))
            flags = ["--experimental-websocket", "--no-warnings"]
            return [program, *flags, str(installation.NODE), socket, folder, *settings]
        gpu = _SOFTWARE_GPU if self.kind == "webgpu" else ()
        return [program, *_FLAGS, *gpu, f"{server.address}?{'&'.join(settings)}"]


_ENGINES: dict[Browser, Engine] = {}
"""One page for all files that a process opens on a device."""


def engine_of(device: Browser) -> Engine:
    """Return this process's page, a new one if there is none or it has died."""
    found = _ENGINES.get(device)
    if found is None or not found.alive:
        if found is not None:
            found.close()
        found = _ENGINES[device] = device.start()
    return found


def browser(argument: str) -> Browser:
    """Return a page with settings, separated by commas.

    Raises:
        BrowserArgumentError: There is no such setting.
    """
    if argument == "webgpu":
        return webgpu("")
    return _with_settings(Browser(), argument, {"threads", "ort"})


def webgpu(argument: str) -> Browser:
    """Return a page whose graphics processor is SwiftShader, a program.

    Raises:
        BrowserArgumentError: There is no such setting.
    """
    return _with_settings(Browser("webgpu"), argument, set())


def node(argument: str) -> Browser:
    """Return Node: the same WebAssembly without a page.

    Raises:
        BrowserArgumentError: There is no such setting.
    """
    return _with_settings(Browser("node"), argument, {"ort"})


def _with_settings(device: Browser, argument: str, known: set[str]) -> Browser:
    for setting in argument.split(",") if argument else []:
        name, _, value = setting.partition("=")
        if name == "ort" and name in known and value in installation.RUNTIMES:
            device = replace(device, ort=value)
        elif name == "threads" and name in known and value.isdecimal() and 1 <= int(value) <= 64:
            device = replace(device, threads=int(value))
        else:
            raise BrowserArgumentError(device.kind, setting)
    return device
