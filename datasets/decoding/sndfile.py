"""The fast decoder: libsndfile, of wav, flac, ogg, mp3, aiff and other files that are whole."""

import os
from types import TracebackType

import numpy as np
import soundfile

from datasets.decoding.content import Content, View
from datasets.decoding.errors import AudioError

# File name suffixes of what libsndfile reads; decoding itself goes by content.
SUFFIXES = (".mp3", ".flac", ".wav", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64")
SUFFIXES += (".wave", ".aifc", ".snd", ".rf64", ".voc", ".sph")

_PREROLL = 1.0  # seconds decoded and dropped in front of a position in a lossy format, for the decoder to settle
_LOSSLESS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF")
# channels of Vorbis and Opus (Vorbis I specification, section 4.3.9) in the order of wave files, which libsndfile does not make
_WAVE_ORDER = {3: (0, 2, 1), 5: (0, 2, 1, 3, 4), 6: (0, 2, 1, 5, 3, 4), 7: (0, 2, 1, 6, 5, 3, 4), 8: (0, 2, 1, 7, 5, 6, 3, 4)}


class _SequentialFile(soundfile.SoundFile):
    """soundfile seeks to where it is after each read of a file in which it can, which costs an mp3 what the decoder held back."""

    def seekable(self) -> bool:
        return False


class SndfileDecoder:
    """A recording that libsndfile decodes; raises AudioError."""

    def __init__(self, content: Content, view: View | None = None, has_length: bool = True) -> None:
        """`view` is read in place of the content. Without `has_length`, the length is known at the end only."""
        if view is None and os.name != "posix":  # where libsndfile does not know Python's descriptors
            view = content.view()
        self._content, self._view = content, view
        content.rewind()
        with _Errors():
            self._file = _SequentialFile(view or content.descriptor, closefd=False)
        self.format, self.rate, self.channels = self._file.format, self._file.samplerate, self._file.channels
        self._order = _WAVE_ORDER.get(self.channels) if self.format == "OGG" else None
        self.samples = self._file.frames if has_length else None  # that it would read

    def __enter__(self) -> "SndfileDecoder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def skip(self, samples: int) -> int:
        """Go to a sample, counted from the beginning, and return where that ended: earlier if there are no more."""
        with _Errors():
            preroll = 0 if self.format in _LOSSLESS else round(_PREROLL * self.rate)
            position = self._file.seek(max(0, min(samples, self._file.frames) - preroll))
            while position < samples and (got := len(self._file.read(min(samples - position, 1 << 16)))):
                position += got
        return position

    def unread(self) -> int:
        """Return how many bytes of the file libsndfile has not come to."""
        return self._content.size - self._content.position() if self._view is None else self._view.unread

    def read(self, samples: int) -> np.ndarray:
        """Return the next (samples, channels) float32, fewer at the end, channels in the order of wave files."""
        with _Errors():
            block = self._file.read(samples, dtype="float32", always_2d=True)
        return block if self._order is None else np.ascontiguousarray(block[:, self._order])


class _Errors:
    """Turn what libsndfile raises into AudioErrors that hold its reason alone."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # TypeError and MemoryError are soundfile's answers to absurd headers
        if isinstance(error, (soundfile.SoundFileError, OSError, TypeError, MemoryError, ValueError)):
            raise AudioError((getattr(error, "error_string", None) or str(error)).strip()) from error
