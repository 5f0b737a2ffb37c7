"""A bundle of golden's files with known answers, and each client built from its sources."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.client.specify import specify
from tests.clients.builds import android, install_web, web
from tests.clients.judge import expected
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.judge import Expected

FILES = (
    "encoder_fp32.onnx", "encoder_int8_web.onnx", "step_fp32.onnx", "step_int8.onnx",
    "encoder_fp32.pte", "encoder_int8.pte", "step_fp32.pte", "step_int8.pte", "step_split_fp32.pte",
    "predict_fp32.onnx", "joint_fp32.onnx",
)  # fmt: skip
CACHE = REPOSITORY / "build" / "gate" / "cache"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    from exporters import release

    folder = tmp_path_factory.mktemp("clients")
    files = [argument for name in FILES for argument in ("--variant", name)]
    arguments = ["--checkpoint", golden / "golden.nemo", "--calibration", golden / "calib.jsonl"]
    arguments += ["--out", folder / "files", "--cache", CACHE, "--package_dir", folder / "bundle"]
    assert release.main([*map(str, arguments), *files]) == 0
    shutil.copy(golden / "val.jsonl", folder)
    specify(folder / "bundle", folder / "val.jsonl", cache=CACHE)
    return folder / "bundle"


@pytest.fixture(scope="session")
def web_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    install_web()
    return web(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def android_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return android(tmp_path_factory.mktemp("android"))


@pytest.fixture(scope="session")
def harness_words(bundle: Path) -> Callable[[str, str, int], Expected]:
    """Return what the harness gets from a pair, computed once."""
    kept: dict[tuple[str, str, int], Expected] = {}

    def get(encoder: str, step: str, count: int) -> Expected:
        key = (encoder, step, count)
        if key not in kept:
            kept[key] = expected(bundle, encoder, step, count, CACHE)
        return kept[key]

    return get


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    for tool in ("node", "npm", "g++"):
        assert shutil.which(tool), f"{tool} is not installed; see docs/client.md, Set-up"
