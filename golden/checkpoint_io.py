"""Write and load the golden model's .nemo file, reproducibly."""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
from pathlib import Path

import torch
from nemo.collections.asr.models import EncDecRNNTModel
from nemo.utils import logging as nemo_logging

from exportgate.artifacts.sidecar import atomic_write
from golden.config import model_config

nemo_logging.setLevel(logging.ERROR)  # restoring prints the whole training setup otherwise


def new_model(seed: int) -> EncDecRNNTModel:
    """Return an untrained golden model with weights drawn from ``seed``."""
    torch.manual_seed(seed)
    return EncDecRNNTModel(cfg=model_config())


def restore(path: Path) -> EncDecRNNTModel:
    """Return the model of a .nemo file, on the CPU, in eval mode, as NeMo itself reads it."""
    return EncDecRNNTModel.restore_from(str(path), map_location="cpu").eval()


def save(model: EncDecRNNTModel, path: Path) -> None:
    """Write a .nemo file; the same weights give the same bytes.

    NeMo's own ``save_to`` puts the time and the user into the archive: its members are packed
    again without them, in a fixed order.
    """
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "model.nemo"
        model.save_to(str(packed))
        with tarfile.open(packed) as archive:
            members = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive.getmembers()
                if member.isfile()
            }
    with atomic_write(path) as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as out:
        for name, content in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
