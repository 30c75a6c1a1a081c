"""Clips from audio files on disk, whose decoded waveforms may be kept in a cache folder."""

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from datasets import audio
from datasets.clip import Clip, ClipDataset
from models.errors import UserError
from models.files import write_bytes

_CACHE_VERSION = 2  # to be raised when decoding or resampling give other samples than before
_HEADER_BYTES = 128

Segment = tuple[float, float] | None  # start and end of a clip in its recording, in seconds; None: all of it

logger = logging.getLogger(__name__)


class WaveformCache:
    """Decoded, resampled recordings in a folder: (samples,) float32 .npy files, 128 kB per second at 32 kHz.

    What is read is exactly what decoding gives. A file belongs to a path, size and time of modification of the recording, a
    segment of it, a rate and a version of this code: when one of them changes, it is not found any more (and stays until the
    folder is removed). Files appear when they are complete, so any number of processes may share the folder; two that meet do the
    same work twice. A damaged file is written again. When the folder cannot be written to, this is logged once, and all loader
    workers of a data set continue without writing.
    """

    def __init__(self, folder: str | Path, sample_rate: int) -> None:
        self.folder = Path(folder).expanduser() / f"v{_CACHE_VERSION}_{sample_rate}hz"
        self.sample_rate = sample_rate
        self._broken = torch.zeros(1, dtype=torch.bool).share_memory_()  # seen by all workers of a loader
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            self._give_up(error)

    def load(self, path: Path, name: str, segment: Segment = None, *, strict: bool = False) -> np.ndarray:
        """(samples,) float32 of a recording or a segment, possibly read-only; errors are those of `audio.load`."""
        start, end = segment or (0.0, None)
        options = {"name": name, "start": start, "end": end, "strict": strict, "warnings": []}
        try:
            stat = os.stat(path)
        except OSError:
            return audio.load(path, self.sample_rate, **options)  # raises
        key = b"%a %s" % ((stat.st_size, stat.st_mtime_ns, segment, strict), os.fsencode(os.path.abspath(path)))
        cached = self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"
        waveform = _read(cached)
        if waveform is not None:
            return waveform
        waveform = audio.load(path, self.sample_rate, **options)
        if not self._broken:
            try:
                write_bytes(cached, _header(len(waveform)) + waveform.astype("<f4").tobytes())
            except OSError as error:
                self._give_up(error)
        return waveform

    def _give_up(self, error: OSError) -> None:
        if not self._broken:
            self._broken[:] = True
            logger.warning("the cache %s cannot be written (%s); continuing without it", self.folder, error.strerror or error)


def _header(samples: int) -> bytes:
    """The first 128 bytes of a .npy file of (samples,) float32."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (samples,)})
    return file.getvalue()


def _read(path: Path) -> np.ndarray | None:
    """(samples,) float32, mapped and not yet read; None for a file that is missing, cut off or something else."""
    try:
        with path.open("rb") as file:
            samples = (os.fstat(file.fileno()).st_size - _HEADER_BYTES) // 4
            if samples < 1 or file.read(_HEADER_BYTES) != _header(samples):
                return None
            return np.memmap(file, "<f4", "r", _HEADER_BYTES, (samples,))
    except OSError:
        return None


class Recordings(ClipDataset):
    """Read clips from audio files of any format, rate and number of channels: mixed to mono, resampled, then cropped."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        targets: npt.ArrayLike,
        names: Sequence[str],
        *,
        segments: Sequence[Segment] | None = None,
        strict: bool = True,
        cache_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        """`targets` is (N, K) of 0 and 1, `options` are those of `ClipDataset`.

        `segments` are the parts that are used, not more of long files is decoded; None: all of a recording, or of all recordings.
        `strict` refuses damaged recordings; without it, they are used up to the damage, which whoever gives them has reported.
        `cache_dir` is the folder of a `WaveformCache`, None decodes each time. Raises UserError, and FileNotFoundError that counts
        the files that are missing and names the first.
        """
        super().__init__(**options)
        targets = np.asarray(targets)
        segments = [None] * len(paths) if segments is None else segments
        if targets.ndim != 2 or not len(paths) == len(targets) == len(names) == len(segments):
            counts = f"{len(paths)} paths, {len(names)} names and {len(segments)} segments"
            raise UserError(f"{counts} need targets (N, K), not {targets.shape}")
        if not len(paths):
            raise UserError("no recordings given; name at least one")
        if not ((targets == 0) | (targets == 1)).all():
            raise UserError("targets must be 0 or 1")
        self.paths = [Path(path) for path in paths]
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            first = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
            raise FileNotFoundError(f"{len(missing)} of {len(paths)} recordings are missing: {first}; fetch or prepare them again")
        self._targets = targets.astype(np.uint8)
        self._names = list(names)
        self.segments = list(segments)
        self._strict = strict
        self._cache = None if cache_dir is None else WaveformCache(cache_dir, self.sample_rate)

    @property
    def num_classes(self) -> int:
        return self._targets.shape[1]

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Clip:
        """Clip of an index; its waveform is (clip_seconds * sample_rate,) and its target (K,) of 0 and 1.

        Raises IndexError, and AudioError or FileNotFoundError for a file that cannot be read; they name file, index and clip.
        """
        index = self._position(index)
        path, name, segment = self.paths[index], self._names[index], self.segments[index]
        where = f"{name}, clip {index} ({path})"
        if self._cache:
            waveform = self._cache.load(path, where, segment, strict=self._strict)
        else:
            start, end = segment or (0.0, None)
            options = {"start": start, "end": end, "seconds": self._head_seconds, "strict": self._strict, "warnings": []}
            waveform = audio.load(path, self.sample_rate, name=where, **options)
        if segment:
            waveform = waveform[: self._samples(segment)]
        waveform = np.array(self._cut(waveform))  # of a cached file, no more than this is read
        return Clip(torch.from_numpy(waveform), torch.from_numpy(self._targets[index]).float(), name, index)

    def targets(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._targets[start:stop].copy()

    def lengths(self) -> np.ndarray:
        def length(path: Path, segment: Segment) -> int:
            if segment:
                return self._samples(segment)
            samples, rate = audio.measure(path, warnings=[])
            return audio.resampled_length(samples, rate, self.sample_rate)

        with ThreadPoolExecutor() as pool:
            lengths = pool.map(length, self.paths, self.segments)
            bar = tqdm(lengths, total=len(self), desc="reading lengths", unit="clip", disable=None, leave=False)
            return np.array(list(bar), np.int64)

    def _samples(self, segment: tuple[float, float]) -> int:
        """Samples of a segment, at most."""
        return max(1, round((segment[1] - segment[0]) * self.sample_rate))


def one_hot(classes: npt.ArrayLike, num_classes: int) -> np.ndarray:
    """Turn class indices (N,) into targets (N, K) uint8."""
    return np.eye(num_classes, dtype=np.uint8)[np.asarray(classes)]
