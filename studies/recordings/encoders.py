"""Write recordings in memory with soundfile and PyAV."""

from __future__ import annotations

import io
from collections.abc import Mapping

import av
import numpy as np
import soundfile

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
FRAMES_A_SECOND = 5  # of the pictures in videos


def by_soundfile(samples: np.ndarray, rate: int, format: str, subtype: str | None = None) -> bytes:
    """Encode (samples, channels) float32 with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


class _Pipe:
    """Takes what is written and cannot seek, so that lengths and indices stay unknown."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, content: bytes) -> int:
        self.content += content
        return len(content)


def by_pyav(
    samples: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    *,
    bit_rate: int | None = None,
    video: str | None = None,
    options: Mapping[str, str] | None = None,
    streamed: bool = False,
    tags: Mapping[str, str] | None = None,
) -> bytes:
    """Encode (samples, channels) float32 with FFmpeg's libraries; `video` is the codec of small pictures next to the sound.

    `options` are those of the container. `streamed` writes as into a pipe.
    """
    file = _Pipe() if streamed else io.BytesIO()
    with av.open(file, "w", format=container, options={"fflags": "+bitexact", **(options or {})}) as output:
        output.metadata.update(tags or {})
        pictures = output.add_stream(video, rate=FRAMES_A_SECOND) if video else None
        if pictures:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
        stream = output.add_stream(codec, rate=rate, layout=LAYOUTS[samples.shape[1]])
        if bit_rate:
            stream.bit_rate = bit_rate
        for number in range(round(len(samples) / rate * FRAMES_A_SECOND) if pictures else 0):
            picture = np.full((64, 64, 3), 40 * (number % 6), np.uint8)
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for start in range(0, len(samples), 1024):
            block = samples[start : start + 1024].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=LAYOUTS[samples.shape[1]])
            frame.sample_rate, frame.pts = rate, start
            output.mux(stream.encode(frame))
        for one in (pictures, stream):
            if one:
                output.mux(one.encode(None))
    return bytes(file.content if streamed else file.getvalue())


def remuxed(content: bytes, container: str, video: str | None = None) -> bytes:
    """Put the encoded sound of a recording into another container, with pictures of the codec `video` if given."""
    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as output:
        pictures = output.add_stream(video, rate=FRAMES_A_SECOND) if video else None
        stream = output.add_stream_from_template(source.streams.audio[0])
        if pictures:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
            output.mux([*pictures.encode(picture), *pictures.encode(None)])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.duration = (
                    packet.duration if packet.duration < 1 << 31 else 0
                )  # of a last one that is shortened, FFmpeg wraps
                packet.stream = stream
                output.mux(packet)
    return file.getvalue()
