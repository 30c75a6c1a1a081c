"""The kinds of recordings: formats over rates and channels, unusual but undamaged files, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from studies.recordings import damage
from studies.recordings.encoders import by_pyav, by_soundfile, remuxed
from studies.recordings.signals import make_sound

Encoder = Callable[[np.ndarray, int], bytes]  # (samples, channels) float32 in [-1, 1], rate in Hz -> a file


@dataclass(frozen=True)
class Format:
    """How a kind of file is written, and of what sound it can be."""

    encode: Encoder
    rates: tuple[int, ...]  # Hz
    channels: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Recording:
    kind: str
    details: str  # rate, channels, what is unusual or damaged
    content: bytes
    seconds: float = 0.0  # of sound that is known to be there, at least


PCM_RATES = (8000, 22050, 44100, 96000)
MPEG_RATES = (8000, 22050, 44100, 48000)
NO_TAGS = {"write_xing": "0", "id3v2_version": "0"}


def _soundfile(format: str, subtype: str | None, rates: tuple[int, ...], channels: tuple[int, ...] = (1, 2)) -> Format:
    return Format(partial(by_soundfile, format=format, subtype=subtype), rates, channels)


def _pyav(
    container: str, codec: str, rates: tuple[int, ...], channels: tuple[int, ...] = (1, 2), bit_rate: int | None = None, **options
) -> Format:
    return Format(partial(by_pyav, container=container, codec=codec, bit_rate=bit_rate, **options), rates, channels)


def _vorbis_in(container: str, video: str | None = None) -> Encoder:
    return lambda samples, rate: remuxed(by_soundfile(samples, rate, "OGG", "VORBIS"), container, video)


def _web_m4a(samples: np.ndarray, rate: int) -> bytes:
    return damage.index_in_front(by_pyav(samples, rate, "ipod", "aac"))


FORMATS = {
    "wav, 8 bit": _soundfile("WAV", "PCM_U8", (8000, 44100)),
    "wav, 16 bit": _soundfile("WAV", "PCM_16", PCM_RATES, (1, 2, 6, 8)),
    "wav, 24 bit": _soundfile("WAV", "PCM_24", (48000,), (2, 6)),
    "wav, 32 bit": _soundfile("WAV", "PCM_32", (44100,)),
    "wav, float": _soundfile("WAV", "FLOAT", (32000, 96000)),
    "wav, double": _soundfile("WAV", "DOUBLE", (44100,), (1,)),
    "wav, extensible": _soundfile("WAVEX", "PCM_16", (48000,), (2, 6)),
    "wav, mu-law": _soundfile("WAV", "ULAW", (8000,)),
    "wav, Microsoft ADPCM": _soundfile("WAV", "MS_ADPCM", (22050,)),
    "wav, IMA ADPCM": _soundfile("WAV", "IMA_ADPCM", (22050,)),
    "wav, GSM": _soundfile("WAV", "GSM610", (8000,), (1,)),
    "wav, mp3": _pyav("wav", "mp3", (44100,)),
    "wav, AC-3": _pyav("wav", "ac3", (48000,), (2, 6)),
    "wav, RF64": _soundfile("RF64", "PCM_16", (44100,)),
    "w64": _soundfile("W64", "PCM_16", (44100,)),
    "flac, 16 bit": _soundfile("FLAC", "PCM_16", PCM_RATES, (1, 2, 6)),
    "flac, 24 bit": _soundfile("FLAC", "PCM_24", (48000,)),
    "flac, by FFmpeg": _pyav("flac", "flac", (44100,)),
    "flac, streamed": _pyav("flac", "flac", (44100,), streamed=True),
    "ogg, Vorbis": _soundfile("OGG", "VORBIS", PCM_RATES, (1, 2, 6)),
    "ogg, Opus": _soundfile("OGG", "OPUS", (8000, 24000, 48000), (1, 2, 6)),
    "ogg, Opus by FFmpeg": _pyav("opus", "libopus", (48000,), (1, 2, 6, 8)),
    "ogg, FLAC": _pyav("ogg", "flac", (16000, 44100)),
    "ogg, Vorbis and VP8": Format(_vorbis_in("ogg", "libvpx"), (44100,)),
    "ogg, Opus and VP8": _pyav("ogg", "libopus", (48000,), video="libvpx"),
    "mp3, VBR": _soundfile("MP3", "MPEG_LAYER_III", MPEG_RATES),
    "mp3, CBR": _pyav("mp3", "mp3", MPEG_RATES, bit_rate=64000),
    "mp3, CBR without Xing": _pyav("mp3", "mp3", MPEG_RATES, bit_rate=64000, options=NO_TAGS),
    "mp2": _pyav("mp2", "mp2", (22050, 48000)),
    "aac": _pyav("adts", "aac", (8000, 22050, 44100, 96000), (1, 2, 6)),
    "aac in LATM": _pyav("latm", "aac", (44100,)),
    "m4a, AAC": _pyav("ipod", "aac", (16000, 44100, 48000), (1, 2, 6, 8)),
    "m4a, index in front": Format(_web_m4a, (44100,)),
    "m4a, ALAC": _pyav("ipod", "alac", (44100,)),
    "mp4, AAC and H.264": _pyav("mp4", "aac", (44100,), video="libx264"),
    "mp4, AAC, fragmented": _pyav("mp4", "aac", (44100,), options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "mp4, Opus": _pyav("mp4", "libopus", (48000,)),
    "mov, PCM": _pyav("mov", "pcm_s16le", (44100,)),
    "mov, AAC and MPEG-4": _pyav("mov", "aac", (48000,), video="mpeg4"),
    "3gp, AMR": _pyav("3gp", "amr_nb", (8000,), (1,), 12200),
    "amr": _pyav("amr", "amr_nb", (8000,), (1,), 12200),
    "webm, Opus": _pyav("webm", "libopus", (48000,)),
    "webm, Opus, streamed": _pyav("webm", "libopus", (48000,), streamed=True),
    "webm, Opus and VP8": _pyav("webm", "libopus", (48000,), video="libvpx"),
    "webm, Vorbis": Format(_vorbis_in("webm"), (44100,)),
    "mkv, Vorbis": Format(_vorbis_in("matroska"), (22050,)),
    "mkv, FLAC": _pyav("matroska", "flac", (44100,), (1, 2, 6, 8)),
    "mkv, AAC and H.264": _pyav("matroska", "aac", (44100,), video="libx264"),
    "mkv, AC-3": _pyav("matroska", "ac3", (48000,), (2, 6)),
    "wma": _pyav("asf", "wmav2", (22050, 44100), bit_rate=64000),
    "ac3": _pyav("ac3", "ac3", (32000, 48000), (1, 2, 6)),
    "eac3": _pyav("eac3", "eac3", (48000,)),
    "caf, PCM": _soundfile("CAF", "PCM_16", (44100,)),
    "caf, ALAC": _pyav("caf", "alac", (44100,)),
    "aiff": _soundfile("AIFF", "PCM_16", (22050, 44100)),
    "aiff, 24 bit": _pyav("aiff", "pcm_s24be", (48000,)),
    "au": _soundfile("AU", "PCM_16", (16000,)),
    "au, mu-law": _soundfile("AU", "ULAW", (8000,)),
    "voc": _soundfile("VOC", "PCM_16", (22050,)),
    "wv": _pyav("wv", "wavpack", (44100, 96000)),
    "tta": _pyav("tta", "tta", (44100,)),
    "avi, mp3": _pyav("avi", "mp3", (44100,), video="mpeg4"),
    "flv, AAC": _pyav("flv", "aac", (44100,)),
    "MPEG-TS, AAC": _pyav("mpegts", "aac", (48000,)),
}  # fmt: skip


def whole(seconds: float, only: str = "") -> Iterator[Recording]:
    """Yield an undamaged recording of every rate and number of channels of the formats whose name begins with `only`."""
    for kind, format in _formats(only):
        for channels in format.channels:
            for rate in format.rates if channels == format.channels[0] else format.rates[-1:]:
                yield Recording(kind, f"{rate} Hz, {channels} channels", encode(kind, seconds, rate, channels), seconds)


def encode(kind: str, seconds: float = 2.0, rate: int | None = None, channels: int | None = None, seed: int = 0) -> bytes:
    """Return a recording of one kind of `FORMATS`, at its highest rate and with its fewest channels if none are given."""
    format = FORMATS[kind]
    rate = rate or format.rates[-1]
    return format.encode(make_sound(seconds, rate, channels or format.channels[0], seed), rate)


def _formats(only: str) -> list[tuple[str, Format]]:
    return [(kind, format) for kind, format in FORMATS.items() if kind.startswith(only)]


def unusual(seconds: float, only: str = "") -> Iterator[Recording]:
    """Yield recordings of which nothing is missing, but whose structure or header leads simple readers astray."""
    mp3 = encode("mp3, VBR", seconds, 32000)
    bare = damage.without_length_frame(mp3)
    cbr = encode("mp3, CBR without Xing", seconds, 32000)
    other = encode("mp3, VBR", seconds, 32000, seed=1)
    slow = encode("mp3, VBR", seconds, 22050, seed=1)
    stereo = encode("mp3, VBR", seconds, 32000, 2, seed=1)
    pcm_size = round(seconds * 44100) * 2
    wav, flac = encode("wav, 16 bit", seconds, 44100), encode("flac, 16 bit", seconds, 44100)
    vorbis = [encode("ogg, Vorbis", seconds, 44100, seed=seed) for seed in range(2)]
    opus = [
        by_pyav(make_sound(seconds, 48000, 1, seed), 48000, "opus", "libopus", options={"serial_offset": str(10 * seed + 1)})
        for seed in range(2)
    ]
    streamed_wav = by_pyav(make_sound(seconds, 44100), 44100, "wav", "pcm_s16le", streamed=True)
    rf64, caf, w64, au = (by_soundfile(make_sound(seconds, 44100), 44100, name, "PCM_16") for name in ("RF64", "CAF", "W64", "AU"))
    aiff = by_soundfile(make_sound(seconds, 44100), 44100, "AIFF", "PCM_16")
    unfinished_aiff = aiff.replace(struct.pack(">I", pcm_size // 2), bytes(4)).replace(
        struct.pack(">I", pcm_size + 8), struct.pack(">I", 8)
    )
    ac3_words = np.frombuffer(by_pyav(make_sound(seconds, 48000, 2), 48000, "spdif", "ac3"), "<i2").reshape(-1, 2)
    spdif = by_soundfile(ac3_words, 48000, "WAV", "PCM_16")
    tag = damage.id3v2
    cases = {
        "mp3": {
            "no Xing, VBR": bare,
            "ID3 in front": tag(3000) + mp3,
            "ID3 in front, no Xing": tag(100000) + bare,
            "two ID3 in front": tag(2000) + tag(100000) + mp3,
            "two ID3 in front, no Xing": tag(2000) + tag(100000) + bare,
            "ID3v1 behind": mp3 + damage.id3v1(),
            "APE and ID3v1 behind": mp3 + damage.ape_tag() + damage.id3v1(),
            "APE behind, no Xing": cbr + damage.ape_tag(),
            "Xing without frames": damage.without_frame_count(mp3),
            "Xing says a third": damage.with_frame_count(mp3, 1 / 3),
            "Xing says a frame": damage.with_frame_count(mp3, 1e-9),
            "Xing says three times": damage.with_frame_count(mp3, 3),
            "VBRI": damage.with_vbri(mp3, 1),
            "VBRI says a third": damage.with_vbri(mp3, 1 / 3),
            "picture in front": damage.id3v2_picture() + mp3,
            "picture in front, no Xing": damage.id3v2_picture() + cbr,
            "ID3 with footer in front, no Xing": damage.id3v2_with_footer(3000) + bare,
            "lyrics and ID3v1 behind": mp3 + damage.lyrics3() + damage.id3v1(),
            "zeros behind": mp3 + bytes(3000),
            "zeros behind, no Xing": cbr + bytes(3000),
            "zeros in front": bytes(5000) + cbr,
            "zeros in front, Xing": bytes(70000) + mp3,
            "begins within a frame, VBR": bare[1000:],
            "begins within a frame, CBR": cbr[1499:],
            "joined": mp3 + other,
            "joined, no Xing": cbr + damage.without_length_frame(other),
            "joined with ID3 between": mp3 + damage.id3v1() + tag(500) + other,
            "joined, two rates": mp3 + slow,
            "joined, mono and stereo": mp3 + stereo,
            "joined, stereo and mono": stereo + mp3,
            "joined, three": mp3 + other + mp3,
        },
        "wav": {
            "sizes 0": damage.with_wav_sizes(wav, 0, 0),
            "sizes of an empty one": damage.with_wav_sizes(wav, 36, 0),
            "sizes ffffffff": damage.with_wav_sizes(wav, 0xFFFFFFFF, 0xFFFFFFFF),
            "sizes 7fffffff": damage.with_wav_sizes(wav, 0x7FFFFFFF, 0x7FFFFFFF - 36),
            "sizes of the first half": damage.with_wav_sizes(wav, 36 + pcm_size // 2, pcm_size // 2),
            "only the outer size 0": damage.with_wav_sizes(wav, 0, pcm_size),
            "streamed": streamed_wav,
            "chunks before and behind": damage.with_chunks(wav),
            "zeros behind": wav + bytes(50),
            "ID3 in front": tag(300) + wav,
            "a byte too many": damage.with_wav_sizes(wav + b"x", 0xFFFFFFFF, 0xFFFFFFFF),
            "RF64 without sizes": rf64.replace(struct.pack("<Q", pcm_size), bytes(8)),
            "S/PDIF": spdif,
        },
        "aiff": {"no samples announced": unfinished_aiff},
        "caf": {
            "unknown size": caf.replace(struct.pack(">q", pcm_size + 4), struct.pack(">q", -1)),
            "size 0": caf.replace(struct.pack(">q", pcm_size + 4), struct.pack(">q", 4)),
        },
        "w64": {"size 0": w64.replace(struct.pack("<Q", pcm_size + 24), struct.pack("<Q", 24))},
        "au": {"size of the first half": au.replace(struct.pack(">I", pcm_size), struct.pack(">I", pcm_size // 2))},
        "flac": {
            "unknown length": damage.of_unknown_length(flac),
            "ID3 in front": tag(3000) + flac,
            "ID3 in front, unknown length": tag(3000) + damage.of_unknown_length(flac),
            "ID3v1 behind": flac + damage.id3v1(),
            "picture": damage.flac_with_picture(flac),
            "length of the first half": damage.with_flac_length(flac, 0.5),
            "a piece of text behind": flac + b"text " * 20,
            "joined": flac + encode("flac, 16 bit", seconds, 44100, seed=1),
        },
        "ogg": {
            "chained Vorbis": vorbis[0] + vorbis[1],
            "chained Opus": opus[0] + opus[1],
            "chained Vorbis, two rates": vorbis[0] + encode("ogg, Vorbis", seconds, 22050, seed=1),
            "chained Vorbis, mono and stereo": vorbis[0] + encode("ogg, Vorbis", seconds, 44100, 2, seed=1),
            "recorded from the middle on, Vorbis": damage.tuned_in(vorbis[0]),
            "recorded from the middle on, Opus": damage.tuned_in(opus[0]),
            "no mark of the end, Vorbis": damage.without_end_mark(vorbis[0]),
            "no mark of the end, Opus": damage.without_end_mark(opus[0]),
            "text behind": vorbis[0] + b"text " * 20,
            "chained FLAC": encode("ogg, FLAC", seconds) + encode("ogg, FLAC", seconds, seed=1),
            "chained, Vorbis and Opus": vorbis[0] + opus[1],
        },
        "aac": {
            "joined": encode("aac", seconds, 44100) + encode("aac", seconds, 44100, seed=1),
            "joined, two rates": encode("aac", seconds, 44100) + encode("aac", seconds, 22050, seed=1),
            "ID3 in front": tag(3000) + encode("aac", seconds, 44100),
        },
        "ac3": {"joined": encode("ac3", seconds) + encode("ac3", seconds, seed=1)},
        "amr": {"joined": encode("amr", seconds) + encode("amr", seconds, seed=1)[6:]},
    }
    for kind, contents in cases.items():
        for details, content in contents.items() if kind.startswith(only) else ():
            parts = 3 if "three" in details else 2 if "joined" in details or "chained" in details else 1
            yield Recording(
                kind, details, content, seconds * (0.8 if "begins within" in details else 0.4 if "the middle" in details else parts)
            )


def damaged(seconds: float, only: str = "") -> Iterator[Recording]:
    """Yield recordings that are cut, have bytes overwritten or removed, or have another one behind; of formats as in `whole`."""
    for number, (kind, _) in enumerate(_formats(only)):
        content = encode(kind, seconds)
        size = len(content)
        for share in (0.02, 0.5, 0.97):
            yield Recording(kind, f"cut at {share:.0%}", content[: int(share * size)])
        for share in (0.001, 0.01, 0.3, 0.9):
            yield Recording(kind, f"overwritten at {share:.1%}", damage.overwritten(content, int(share * size), number))
        yield Recording(kind, "a piece within is gone", content[: size // 3] + content[size // 2 :])
        yield Recording(kind, "a piece within is zeros", content[: size // 3] + bytes(size // 6) + content[size // 3 + size // 6 :])
        yield Recording(kind, "joined with its kind", content + encode(kind, seconds, seed=1))
        yield Recording(kind, "joined with an mp3", content + encode("mp3, VBR", seconds, 32000, seed=1))
