"""The full decoder: PyAV, which is ffmpeg, for whatever libsndfile refuses or would not read whole.

ffmpeg gets the bytes of the recording and nothing else: no paths, no network, no containers that refer to other files.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soxr

from datasets.decoding.errors import AudioError

if TYPE_CHECKING:
    import av

# ffmpeg's names of the containers that are read: none that can refer to other files, none of pictures or raw samples
CONTAINERS = (
    "aac ac3 aiff amr amrnb amrwb ape asf au avi caf dsf dts dtshd eac3 flac flv gsm iff loas matroska mov mp3 mpc mpc8 "
    "mpeg mpegts mxf nistsphere nut ogg oma qcp rm shn spdif tak truehd tta voc vqf w64 wav wtv wv xwma"
).split()
# their usual suffixes, as far as libsndfile does not have them
SUFFIXES = (
    ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .aac .adts .webm .mkv .mka .wma .wmv .asf .ogv .ogx .amr .awb .ac3 .eac3 .ec3 .dts .mp2 "
    ".mpga .mpg .mpeg .ts .m2ts .mts .vob .avi .flv .f4v .wv .tta .ape .tak .shn .mpc .dsf .gsm .rm .ra .qcp .mxf .nut .oma .wtv"
).split()

MAX_CHANNELS = 64
_SAFE_PLANES = 7
_MAX_FAILURES = 1000  # reads in a row that fail, after which a recording counts as ended
_ROUNDING = 2 * 2048  # samples
_PREROLL = 5.0  # seconds decoded and dropped in front of a position
_BUFFER = 1 << 16  # bytes read at a time
_LIVE_BUFFER = 1 << 12
# containers that hold the length of their tracks
_WITH_LENGTH = "mov matroska asf flv avi wav aiff caf wv tta ape tak dsf voc".split()

# sample format of ffmpeg -> what full scale is; floating-point formats are taken as they are
_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31}


class MissingDecoder(AudioError):
    """PyAV is needed and not installed."""


class FullDecoder:
    """The default audio track of a recording; raises AudioError. A change of rate or of channels becomes those of its beginning."""

    def __init__(self, file: BinaryIO, rate: int | None = None, channels: int | None = None, *, live: str | None = None) -> None:
        """Open a seekable file. Samples are returned at `rate` (Hz) and in `channels`, by default those of the beginning.

        `live` is for a pipe that is still written to: its container, one of `CONTAINERS`. As little as possible is read in advance.
        """
        self._av = _import_av()
        limits = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none", "max_streams": "100"}
        if live:
            limits |= {"probesize": "4096", "analyzeduration": "0"}
        size = _LIVE_BUFFER if live else _BUFFER
        try:
            self._container = self._av.open(
                file, format=live, options=limits, metadata_errors="ignore", buffer_size=size, io_open=_refuse
            )
        except (self._av.FFmpegError, ValueError, OSError, MemoryError) as error:
            raise AudioError("no audio in a format that ffmpeg knows, or damaged at its beginning") from error
        try:
            self._open_track(rate, channels, live is not None)
        except BaseException:
            self._container.close()
            raise

    def _open_track(self, rate: int | None, channels: int | None, live: bool) -> None:
        stream = self._container.streams.best("audio")
        if stream is None:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise AudioError(f"no audio track; it holds {kinds}")
        if stream.codec_context is None:
            raise AudioError("its audio track is in a format that ffmpeg does not decode")
        if live:
            stream.codec_context.thread_count = 1  # more hold frames back
        self._stream, self._failures, self._packet_samples = stream, 0, 0
        known = bool(set(self._container.format.name.split(",")) & set(_WITH_LENGTH)) and self._container.duration
        self._duration = self._container.duration / self._av.time_base if known else None  # seconds
        self._seen = 0.0  # seconds, up to where there are packets
        self._resampler: tuple[int, soxr.ResampleStream | None] | None = None
        frames = self._frames()
        if (first := next(frames, None)) is None or first.sample_rate <= 0:
            raise AudioError(f"no samples in its {stream.codec_context.name} track")
        self.rate, self.channels = rate or first.sample_rate, channels or first.layout.nb_channels
        self._blocks = self._converted(first, frames)
        # whether times are exact, so that parts can be read without what is in front of them: in mp4 and mov
        self._counts_samples = (
            "mov" in self._container.format.name and first.pts is not None and stream.time_base == Fraction(1, self.rate)
        )
        self._first_pts = first.pts
        self._rest = np.zeros((0, self.channels), np.float32)
        self.announced = self._announced()

    def __enter__(self) -> "FullDecoder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def _announced(self) -> int | None:
        """Samples that the container says there are, if it does: what ffmpeg guesses from bit rates does not count."""
        if self._duration is not None and len(self._container.streams) == 1:
            return round(self._duration * self.rate)
        return None

    def unread(self) -> int:
        """Samples, about, between the last packet of any track and the end that the container gives; a track may end earlier."""
        return 0 if self._duration is None else max(0, round((self._duration - self._seen) * self.rate))

    @property
    def tolerance(self) -> int:
        """Samples that may be missing at the end without a remark: 0.1 s, or two packets of AAC, by which encoders round."""
        return max(self.rate // 10, _ROUNDING)

    @property
    def lost(self) -> int:
        """Samples, about, of the packets that could not be decoded so far."""
        return self._failures * self._packet_samples

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (samples, channels) float32 as they are decoded, in place of `read`."""
        yield from self._blocks

    def skip(self, samples: int) -> int:
        """Go from the beginning to a sample, and return where that ended: earlier if there are no more."""
        margin = round(_PREROLL * self.rate)
        position = self._seek(samples - margin) if self._counts_samples and samples > 2 * margin else 0
        while position < samples and (got := len(self.read(min(samples - position, 1 << 16)))):
            position += got
        return position

    def _seek(self, sample: int) -> int:
        """Go to a sample or a bit before it, and return to which."""
        for target in (sample, 0):
            self._container.seek(self._first_pts + target, stream=self._stream)
            frames = self._frames()
            frame = next(frames, None)
            if frame is not None and frame.pts is not None and 0 <= (position := frame.pts - self._first_pts) <= target:
                self._blocks, self._rest = self._converted(frame, frames), self._rest[:0]
                return position
        raise AudioError("its parts cannot be found; convert it")

    def read(self, samples: int) -> np.ndarray:
        """Return the next (samples, channels) float32, fewer at the end."""
        parts, missing = [self._rest], samples - len(self._rest)
        try:
            while missing > 0 and (block := next(self._blocks, None)) is not None:
                parts.append(block)
                missing -= len(block)
        except (self._av.FFmpegError, MemoryError) as error:
            raise AudioError(f"its samples cannot be taken over ({error})") from error
        block = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._rest = block[samples:]
        return block[:samples]

    def _frames(self) -> "Iterator[av.AudioFrame]":
        """Decode all packets; those that cannot be are passed over and counted."""
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                for packet in self._container.demux():
                    if packet.pts is not None:
                        begin = packet.pts - (packet.stream.start_time or 0)
                        self._seen = max(self._seen, float((begin + (packet.duration or 0)) * packet.time_base))
                    if packet.stream is not self._stream:
                        continue
                    try:
                        frames = packet.decode()
                    except self._av.FFmpegError:
                        failures += 1
                        self._failures += 1
                        continue
                    failures = 0
                    yield from (frame for frame in frames if frame.samples)
                return
            except (self._av.FFmpegError, IndexError):  # IndexError: of a track that was not there at the beginning
                failures += 1

    def _converted(self, frame: "av.AudioFrame | None", frames: "Iterator[av.AudioFrame]") -> Iterator[np.ndarray]:
        """Turn frames into (samples, channels) float32 of one rate and one number of channels."""
        while frame is not None:
            self._packet_samples = max(self._packet_samples, frame.samples)
            block = _with_channels(_to_float(frame), self.channels)
            rate, resampler = self._resampler or (self.rate, None)
            if frame.sample_rate != rate:
                if resampler is not None:
                    yield resampler.resample_chunk(np.zeros((0, self.channels), np.float32), last=True)
                rate, resampler = frame.sample_rate, None
                if rate != self.rate:
                    resampler = soxr.ResampleStream(rate, self.rate, self.channels, dtype="float32", quality="HQ")
                self._resampler = rate, resampler
            yield block if resampler is None else resampler.resample_chunk(block)
            frame = next(frames, None)
        if self._resampler is not None and self._resampler[1] is not None:
            yield self._resampler[1].resample_chunk(np.zeros((0, self.channels), np.float32), last=True)


class ChainDecoder:
    """Recordings one behind the other, at the rate and in the channels of the first. Used as a `FullDecoder`."""

    announced = None

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._decoder, self._files = FullDecoder(files[0]), list(files[1:])
        self.rate, self.channels, self.tolerance, self._lost = (
            self._decoder.rate,
            self._decoder.channels,
            self._decoder.tolerance,
            0,
        )

    def __enter__(self) -> "ChainDecoder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._decoder.__exit__(kind, error, trace)

    @property
    def lost(self) -> int:
        return self._lost + self._decoder.lost

    def unread(self) -> int:
        return self._decoder.unread()

    def skip(self, samples: int) -> int:
        position = 0
        while position < samples and (got := len(self.read(min(samples - position, 1 << 16)))):
            position += got
        return position

    def read(self, samples: int) -> np.ndarray:
        """Return the next (samples, channels) float32, fewer at the end."""
        parts = [self._decoder.read(samples)]
        while (missing := samples - sum(map(len, parts))) > 0 and self._files:
            self._lost = self.lost
            self._decoder.__exit__(None, None, None)
            self._decoder = FullDecoder(self._files.pop(0), self.rate, self.channels)
            parts.append(self._decoder.read(missing))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _to_float(frame: "av.AudioFrame") -> np.ndarray:
    """Return (samples, channels) float32 at the scale of libsndfile."""
    channels = frame.layout.nb_channels
    if not 0 < channels <= MAX_CHANNELS:
        raise AudioError(f"its track has {channels} channels; allowed: 1 to {MAX_CHANNELS}")
    if frame.format.packed.name == "s64":  # which numpy arrays of PyAV cannot hold
        frame = _packed(frame, "dbl")
    elif frame.format.is_planar and channels > _SAFE_PLANES:
        frame = _packed(frame, frame.format.packed.name)
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    full_scale = _FULL_SCALE.get(frame.format.packed.name)
    if full_scale is None:
        return np.ascontiguousarray(values, np.float32)
    # values of 25 bits and more through float64: float32 keeps their 24 highest bits after the division
    floats = np.array(values, np.float32 if full_scale <= 1 << 15 else np.float64, order="C")
    return ((floats - (128 if full_scale == 1 << 7 else 0)) / full_scale).astype(np.float32, copy=False)


def _packed(frame: "av.AudioFrame", form: str) -> "av.AudioFrame":
    """Interleave the channels; PyAV 18.1 reads behind the last one of a frame that has eight or more of them apart."""
    from av.audio.resampler import AudioResampler

    return AudioResampler(form, frame.layout, frame.sample_rate).resample(frame)[0]


def _with_channels(block: np.ndarray, channels: int) -> np.ndarray:
    """Average the channels, and repeat the average, where their number has changed."""
    if block.shape[1] == channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)


def _import_av() -> object:
    try:
        import av
    except ImportError as error:
        raise MissingDecoder("it needs PyAV, which is not installed: pip install av") from error
    return av


def _refuse(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError("a recording refers to another file")
