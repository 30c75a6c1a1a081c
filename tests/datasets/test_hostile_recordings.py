"""Files made to do harm: they open no other file and no connection, and take neither memory nor time without limit."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from datasets import audio
from datasets.audio import AudioError
from models.errors import UserError
from studies.recordings.damage import boxes, id3v1, id3v2
from studies.recordings.encoders import by_pyav, by_soundfile
from studies.recordings.kinds import encode
from studies.recordings.reference import full_decoding
from studies.recordings.signals import make_sound

_ACCESS, _OPEN = 0x1, 0x20  # events of inotify(7)


@contextmanager
def unopened(path: Path) -> Iterator[None]:
    """Fail if anything opens or reads the file meanwhile, also below Python."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("notices opened files by inotify, which Linux has")
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(path), _ACCESS | _OPEN) >= 0
    try:
        yield
        try:
            events = os.read(watch, 4096)
        except BlockingIOError:
            events = b""
        assert not events, f"{path.name} was opened"
    finally:
        os.close(watch)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary.wav"
    path.write_bytes(encode("wav, 16 bit", 1.0, 8000))
    return path


def test_the_watch_notices_a_decoder_that_opens_a_file(canary: Path) -> None:
    with pytest.raises(AssertionError, match="was opened"), unopened(canary):
        audio.decode(canary)


def refused_unopened(source: object, canary: Path) -> None:
    begin = time.monotonic()
    with unopened(canary), pytest.raises((AudioError, FileNotFoundError)) as caught:
        audio.decode(source)
    assert "\n" not in str(caught.value) and time.monotonic() - begin < 5


def playlists(target: str) -> dict[str, str]:
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        "m3u": f"#EXTM3U\n#EXTINF:10,title\n{target}\n",
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "mpd": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            '<AdaptationSet mimeType="audio/wav"><Representation id="a" bandwidth="1"><BaseURL>'
            f"{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
        ),
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "rtsp": f"RTSPtext\r\nrtsp://{target}\r\n",
        "imf": f'<?xml version="1.0"?><CompositionPlaylist><Id>urn:uuid:{target}</Id></CompositionPlaylist>',
    }


@pytest.mark.parametrize("kind", playlists(""))
@pytest.mark.parametrize("suffix", ["own", "wav", "mp3", "m4a"])
def test_playlists_open_nothing(tmp_path: Path, canary: Path, kind: str, suffix: str) -> None:
    for target in (str(canary), canary.as_uri(), canary.name):
        path = tmp_path / f"list.{kind if suffix == 'own' else suffix}"
        path.write_text(playlists(target)[kind])
        refused_unopened(path, canary)
        refused_unopened(path.read_bytes(), canary)


@pytest.mark.parametrize(
    "form",
    ["file:{}", "concat:{}", "concat:{}|{}", "subfile,,start,0,end,0,,:{}", "async:{}", "cache:{}", "crypto:{}", "file://{}"],
)
def test_protocols_are_no_paths(canary: Path, form: str) -> None:
    refused_unopened(form.format(canary, canary), canary)


def test_nothing_connects(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        host = f"127.0.0.1:{server.getsockname()[1]}"
        for url in (f"http://{host}/x.wav", f"tcp://{host}", f"rtmp://{host}/x", f"hls+http://{host}/x"):
            with pytest.raises((AudioError, FileNotFoundError)):
                audio.decode(url)
            for text in playlists(url).values():
                (tmp_path / "list").write_text(text)
                with pytest.raises(AudioError):
                    audio.decode(tmp_path / "list")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "name", ["12:30:05.m4a", "http:recording.m4a", "file:x.m4a", "concat:x.m4a", "-", "%03d.m4a", "x.m3u8", "pipe:0"]
)
def test_names_that_look_like_protocols_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content = encode("m4a, AAC", 0.5)
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(audio.decode(name)[0], audio.decode(content)[0])


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path) -> None:
    content = encode("m4a, AAC", 0.5)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.m4a"))
    path.write_bytes(content)
    np.testing.assert_array_equal(audio.decode(path)[0], audio.decode(content)[0])


def with_external_reference(mp4: bytes, reference: bytes) -> bytes:
    """Replace the entry that says that the sound is in this file; `moov` stands behind the samples, so that nothing else moves."""
    start, end, parents = 0, len(mp4), []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start, end = next((first, last) for kind, first, last in boxes(mp4, start, end) if kind == name)
        parents.append(start)
        start += 8
    start += 8  # version, flags, number of entries
    kind, first, last = boxes(mp4, start, end)[0]
    assert kind == b"url " and mp4.index(b"mdat") < first
    entry = struct.pack(">I", len(reference) + 4) + reference
    result = bytearray(mp4[:first] + entry + mp4[last:])
    for parent in parents:
        size = struct.unpack_from(">I", mp4, parent)[0] + len(entry) - (last - first)
        struct.pack_into(">I", result, parent, size)
    return bytes(result)


def alias_record(path: Path) -> bytes:
    """Return an alias of QuickTime, in the fields that FFmpeg reads, to an absolute path."""
    text = str(path).encode()
    record = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12)
    record += (
        bytes([min(len(path.name), 63)]) + path.name.encode().ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 0, 1) + bytes(16)
    )
    record += struct.pack(">hh", 2, len(text)) + text + (b"\0" if len(text) % 2 else b"") + struct.pack(">hh", -1, 0)
    return b"alis" + bytes(4) + record


@pytest.mark.parametrize("kind", ["url", "alias"])
def test_references_of_an_mp4_to_other_files_are_not_followed(tmp_path: Path, canary: Path, kind: str) -> None:
    mov = by_pyav(make_sound(1.0, 8000), 8000, "mov", "pcm_s16le")
    reference = alias_record(canary) if kind == "alias" else b"url " + bytes(4) + canary.as_uri().encode() + b"\0"
    path = tmp_path / "x.mov"
    path.write_bytes(with_external_reference(mov, reference))
    for source in (path, path.read_bytes()):
        with unopened(canary):
            try:
                waveform, rate = audio.decode(source)
            except AudioError:
                continue
        own = full_decoding(mov).samples  # the samples of the file itself do no harm
        assert rate == 8000 and np.abs(waveform[:1000] - own[:1000]).max() < 1e-3


def many_text_frames() -> bytes:
    frame = b"TXXX" + struct.pack(">I", 40) + bytes(2) + b"\0key\0".ljust(40, b"v")
    body = frame * 200_000
    return id3v2(0)[:6] + bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0)) + body


def compressed_frame() -> bytes:
    """An ID3 tag with a compressed text of 100 MB of zeros in 100 kB."""
    packed = zlib.compress(bytes(100_000_000), 9)
    size = struct.pack(">I", len(packed) + 4)
    body = b"TXXX" + size + b"\x00\x80" + struct.pack(">I", 100_000_000) + packed
    return id3v2(0)[:6] + bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0)) + body


def mp4_with(box: bytes) -> bytes:
    """Put a box into the `moov` of an m4a, which stands at its end."""
    content = encode("m4a, AAC", 0.5)
    place = content.index(b"moov") - 4
    size = struct.unpack_from(">I", content, place)[0]
    return content[:place] + struct.pack(">I", size + len(box)) + content[place + 4 :] + box


def flac_with_large_comment() -> bytes:
    flac = encode("flac, 16 bit", 0.5)
    block = bytes([4]) + (16_000_000).to_bytes(3, "big") + bytes(4) + struct.pack("<I", 0xFFFFFFF) + bytes(15_999_992)
    return flac[:42] + block * 4 + flac[42:]


BOMBS: dict[str, Callable[[], bytes]] = {
    "ID3 of 100 MB": lambda: id3v2(100_000_000) + encode("mp3, VBR", 0.5),
    "ID3 with 200,000 texts": lambda: many_text_frames() + encode("aac", 0.5),
    "ID3 with a compressed text": lambda: compressed_frame() + encode("aac", 0.5),
    "m4a with 50 MB of user data": lambda: mp4_with(struct.pack(">I", 50_000_008) + b"udta" + bytes(50_000_000)),
    "m4a nested 100,000 times": lambda: mp4_with(b"".join(struct.pack(">I", 8 * n) + b"udta" for n in range(100_000, 0, -1))),
    "flac with comments of 64 MB": flac_with_large_comment,
    "wav of 100 channels": lambda: by_soundfile(np.tile(make_sound(0.5, 8000), 100), 8000, "WAV", "PCM_16"),
    "wav of 1000 channels": lambda: by_soundfile(np.tile(make_sound(0.5, 8000), 1000), 8000, "WAV", "PCM_16"),
    "wav at 10 MHz": lambda: by_soundfile(make_sound(0.1, 10_000_000), 10_000_000, "WAV", "PCM_16"),
    "wav at 2^31 - 1 Hz": lambda: by_soundfile(make_sound(0.5, 8000), 2**31 - 1, "WAV", "PCM_16"),
    "wav with sizes of 2^64": lambda: by_soundfile(make_sound(0.5, 8000), 8000, "RF64").replace(
        struct.pack("<Q", 8000), b"\xff" * 8
    ),
    "zeros": lambda: bytes(30_000_000),
    "wav and zeros": lambda: encode("wav, 16 bit", 0.5) + bytes(8_000_000),
    "wav with 500,000 empty chunks": lambda: encode("wav, 16 bit", 0.5) + (b"junk" + bytes(4)) * 500_000,
    "aiff with 500,000 empty chunks": lambda: encode("aiff", 0.5) + (b"junk" + bytes(4)) * 500_000,
    "200,000 empty ID3 tags": lambda: id3v2(0) * 200_000 + encode("mp3, VBR", 0.5),
    "100,000 ID3v1 tags": lambda: encode("mp3, VBR", 0.5) + id3v1() * 100_000,
    "300,000 short pages of Ogg": lambda: encode("ogg, Vorbis", 0.5) + (b"OggS" + bytes(24)) * 300_000,
    "300,000 blocks of FLAC": lambda: (flac := encode("flac, 16 bit", 0.5))[:42] + (b"\1" + bytes(3)) * 300_000 + flac[42:],
}  # fmt: skip

MEASURED = """
import json, pathlib, re, sys, time
import av
from datasets import audio
from models.errors import UserError
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1000
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is what is there now
    before, begin = peak(), time.process_time()
    try:
        waveform, rate = audio.decode(path, warnings=[])
        outcome = f"{len(waveform) / rate} s"
    except UserError as error:
        outcome = str(error)
    print(json.dumps([path.name, outcome, peak() - before, time.process_time() - begin]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory as Linux gives it")
def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    result = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, timeout=240)
    measured = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0 and len(measured) == len(BOMBS), (measured[-1:], result.stderr[-500:])
    harmful = [row for row in measured if row[2] > 150 or row[3] > 5]  # MB by which the peak grew, seconds of the processor
    assert not harmful


def test_special_files_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        for path in (
            "/dev/zero",
            "/dev/urandom",
            "/dev/null",
            tmp_path,
            tmp_path / "socket",
            loop,
            tmp_path / "a" / "b",
            "",
            "x" * 5000,
        ):
            begin = time.monotonic()
            with pytest.raises((UserError, FileNotFoundError)) as caught:
                audio.decode(path)
            assert "\n" not in str(caught.value) and time.monotonic() - begin < 5


def test_a_pipe_of_endless_zeros_is_refused(tmp_path: Path) -> None:
    """No recording begins so; a pipe must not fill the disk."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    written = 0

    def write() -> None:
        nonlocal written
        try:
            with open(pipe, "wb", buffering=0) as file:
                while written < 500_000_000:
                    written += file.write(bytes(1 << 20))
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with pytest.raises(AudioError):
        audio.decode(pipe)
    thread.join()
    assert written < 300_000_000
