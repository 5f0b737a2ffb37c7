"""The harness's own decoding in Python, in a worker: features, encoder, search."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.features import featurize
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Worker
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import Elapsed
from exportgate.runtime.split import for_decoding
from harness.decode.beam import beam_search
from harness.decode.lexicon import open_lexicon
from harness.end_to_end.unit import Memory, Times, keep_on_one_core, memory_of
from harness.measure.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.data.manifest import Swipe
    from harness.end_to_end.unit import Pair
    from harness.measure.environment import Environment

TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True)
class PythonHost:
    """See ``unit.Place``.

    Attributes:
        cache: Where the built lexicon is kept.
        lexicon: The words that a search may find; None for the commonest English ones.
    """

    cache: Path
    lexicon: Path | None = None
    name: str = "python"
    format: str = ""

    def environment(self) -> Environment:
        """Describe this machine."""
        return environment()

    def start(self, pair: Pair) -> PythonUnit:
        """Start a worker with the files open."""
        return PythonUnit(pair, self.cache, self.lexicon)


class PythonUnit:
    """See ``unit.Unit``."""

    def __init__(self, pair: Pair, cache: Path, lexicon: Path | None) -> None:
        """Start it."""
        self._worker = Worker(f"{pair.encoder} from swipe to word", timeout_s=TIMEOUT_S)
        self._pid = self._worker.call(os.getpid)
        keep_on_one_core(self._pid)
        self._decoder = self._worker.make(_Decoder, pair, cache, lexicon)
        self.start_ms = self._worker.call(_start_ms, self._decoder)

    def add(self, swipes: Sequence[Swipe]) -> None:
        """See ``Unit.add``."""
        self._worker.call(_add, self._decoder, [swipe.points for swipe in swipes])

    def words(self, swipe: int) -> tuple[str, ...]:
        """See ``Unit.words``."""
        return self._worker.call(_words, self._decoder, swipe)

    def times(self, swipes: Sequence[int], runs: int = 1) -> Times:
        """See ``Unit.times``."""
        return self._worker.call(_times, self._decoder, swipes, runs)

    def elapsed(self, swipes: Sequence[int], runs: int = 1) -> Elapsed:
        """See ``Unit.elapsed``."""
        found = self.times(swipes, runs)
        return Elapsed(sum(found.processor_ms) / 1e3, sum(found.wall_ms) / 1e3)

    def memory(self) -> Memory:
        """See ``Unit.memory``."""
        return memory_of(self._pid)

    def close(self) -> None:
        """See ``Unit.close``."""
        self._worker.close()


class _Decoder:
    """What lives in the worker."""

    def __init__(self, pair: Pair, cache: Path, lexicon: Path | None) -> None:
        begin = time.perf_counter()
        self.model = read_sidecar(pair.bundle / pair.encoder).model
        self.encoder, self.step = (
            open_artifact(pair.bundle / name) for name in (pair.encoder, pair.step)
        )
        self.lexicon = open_lexicon(self.model.labels, lexicon, cache)
        self.swipes: list[NDArray[np.float64]] = []
        self.start_ms = 1e3 * (time.perf_counter() - begin)

    def words(self, swipe: int) -> tuple[str, ...]:
        features = featurize(self.swipes[swipe])
        outputs = self.encoder.run(encoder_input(np.ascontiguousarray(features.T)))
        length = int(outputs["encoded_lengths"].reshape(-1)[0])
        encoded = np.array(outputs["encoded_bdt"][0, :, :length])
        # Nothing is kept from one swipe for the next, which may be the same.
        found = beam_search(for_decoding(self.step), encoded, self.model, self.lexicon)
        return tuple(item.text(self.model.labels) for item in found)


def _start_ms(decoder: _Decoder) -> float:
    return decoder.start_ms


def _add(decoder: _Decoder, swipes: Sequence[NDArray[np.float64]]) -> None:
    decoder.swipes += swipes


def _words(decoder: _Decoder, swipe: int) -> tuple[str, ...]:
    return decoder.words(swipe)


def _times(decoder: _Decoder, swipes: Sequence[int], runs: int) -> Times:
    taken = [_timed(decoder.words, swipe) for swipe in swipes for _ in range(runs)]
    return Times(tuple(wall for wall, _ in taken), tuple(processor for _, processor in taken))


def _timed(work: Callable[[int], object], swipe: int) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work(swipe)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)
