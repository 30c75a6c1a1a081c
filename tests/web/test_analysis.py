"""The page's modules against Python's: windows, means, channels, resampling, events, frames, metadata. In a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
import soundfile

from datasets.audio import load, resample
from datasets.channels import mono
from datasets.csv_table import safe_cell
from helpers.export.protobuf import field, fields, repeated
from helpers.export.runtime import OnnxBackend
from helpers.frame_windows import FRAME_HOP, FRAME_WINDOW, STREAM_HOP, FrameWindows, SeamlessFrames
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.averaging import average_windows
from helpers.tagger.event_decoding import decode
from helpers.tagger.events import EventTracker
from helpers.tagger.reading import ReadOptions, open_recording
from helpers.tagger.windows import cut_windows
from models.assets import BUNDLED_DIR

pytestmark = pytest.mark.web
MODEL = BUNDLED_DIR / "mn04_distilled.onnx"
RNG = np.random.default_rng(0)
BASE64 = """
    const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const letters = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
    const textOf = (numbers) => btoa(letters(new Uint8Array(Float32Array.from(numbers).buffer)));
"""  # Playwright is slow with long lists
CASES = [  # samples, window, hop, samples of a block
    (100, 10, 10, 7), (95, 10, 3, 100), (9, 10, 3, 4), (10, 10, 3, 10), (11, 10, 4, 1), (60, 10, 25, 8), (101, 10, 10, 33),
    (109, 10, 10, 50), (1, 10, 10, 1), (400, 7, 2, 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def module(browser: Any, url: str):
    """Return a function that evaluates JavaScript, an async function body, in which `load(path)` imports a module of the page."""
    page = browser.new_page()
    page.goto(f"{url}licences/index.txt")

    def evaluate(body: str, argument: object = None) -> Any:
        limit = "new Promise((_, fail) => setTimeout(fail, 60000, new Error('too slow')))"
        work = f"async () => {{ const load = (path) => import('{url}' + path); {BASE64} {body} }}"
        code = f"(given) => Promise.race([({work})(), {limit}])"
        return page.evaluate(code, argument)

    yield evaluate
    page.close()


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize(("count", "window", "hop", "size"), CASES)
def test_windows_are_those_of_python(count: int, window: int, hop: int, size: int, module) -> None:
    samples = np.arange(count, dtype=np.float32)
    expected = [[start, piece.tolist()] for start, piece in cut_windows(blocks(samples, size), window, hop)]
    found = module(
        """const { Windows } = await load("analysis/windows.js");
        const windows = new Windows(given.window, given.hop);
        const all = [...given.blocks.flatMap((block) => windows.push(Float32Array.from(block))), ...windows.finish()];
        return all.map(({ start, samples }) => [start, [...samples]]);""",
        {"window": window, "hop": hop, "blocks": [block.tolist() for block in blocks(samples, size)]},
    )
    assert found == expected


@pytest.mark.parametrize(("count", "window", "hop", "size"), CASES)
def test_the_mean_over_a_whole_recording_is_that_of_python(count: int, window: int, hop: int, size: int, module) -> None:
    samples = RNG.standard_normal(count).astype(np.float32)
    recording = open_recording(samples, 32000, 32000, ReadOptions())

    def compute(waveforms):
        return [(np.array([waveform.mean(), len(waveform)], np.float32),) * 2 for waveform in waveforms]

    recording.blocks = iter(blocks(samples, size))
    [expected] = average_windows([recording], compute, window, 8, 10**6)
    found = module(
        """const { SideBySide, Mean } = await load("analysis/windows.js");
        const [windows, mean] = [new SideBySide(given.window), new Mean()];
        const all = [...given.blocks.flatMap((block) => windows.push(Float32Array.from(block))), ...windows.finish()];
        for (const { start, samples } of all) {
          mean.add(start + samples.length, [samples.reduce((a, b) => a + b) / samples.length, samples.length]);
        }
        return [...mean.result()];""",
        {"window": window, "blocks": [block.tolist() for block in blocks(samples, size)]},
    )
    np.testing.assert_allclose(found, expected.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seconds", [3.0, 27.0])
def test_a_model_of_long_clips_has_their_padding_and_windows(seconds: float, module, tmp_path: Path) -> None:
    clips = {"clip_seconds": 12.0} | {k: v for k, v in OnnxBackend(MODEL).metadata.items() if k != "clip_seconds"}
    (tmp_path / "long.onnx").write_bytes(
        MODEL.read_bytes() + field(14, field(1, b"efficientat") + field(2, json.dumps(clips).encode()))
    )
    waveform = np.resize(load(BUNDLED_DIR / "recordings" / "scene.ogg", 32000), round(seconds * 32000))
    found = module(
        """const { Analysis } = await load("analysis/analysis.js");
        const { Model } = await load("analysis/model.js");
        const model = await Model.load(bytesOf(given.model), "processor");
        const analysis = new Analysis(model, { window: 12, hop: 6 });
        await analysis.push(new Float32Array(bytesOf(given.waveform).buffer));
        return textOf((await analysis.finish()).scores);""",
        {
            "model": base64.b64encode((tmp_path / "long.onnx").read_bytes()).decode(),
            "waveform": base64.b64encode(waveform.tobytes()).decode(),
        },
    )
    expected = AudioTagger(tmp_path / "long.onnx", backend="onnx").scores(waveform, 32000)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found), np.float32), expected, atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000, 44056, 31999])
def test_resampling_is_as_good_as_soxr(rate: int, module) -> None:
    time = np.arange(rate // 2) / rate
    heard = sum(np.sin(2 * np.pi * hertz * time) for hertz in (100, 1000, 3300) if hertz < 0.45 * rate)
    lost = np.sin(2 * np.pi * 0.49 * rate * time) if rate > 40000 else 0  # above what 32 kHz can hold
    samples = (0.2 * (heard + lost)).astype(np.float32)
    expected = resample(samples, rate, 32000)
    found = module(
        """const { Resampler } = await load("analysis/resampler.js");
        const resampler = new Resampler(given.rate, 32000);
        const samples = new Float32Array(bytesOf(given.samples).buffer);
        const parts = [];
        for (let at = 0; at < samples.length; at += 1000) parts.push(resampler.push(samples.subarray(at, at + 1000)));
        return textOf([...parts, resampler.finish()].flatMap((part) => [...part]));""",
        {"rate": rate, "samples": base64.b64encode(samples.tobytes()).decode()},
    )
    found = np.frombuffer(base64.b64decode(found), np.float32)
    assert abs(len(found) - len(expected)) <= 1
    inner = slice(300, min(len(found), len(expected)) - 300)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-4)


@pytest.mark.parametrize("kind", ["stereo", "plug turned round", "surround", "cancels at first", "loses 11 dB", "loses 13 dB"])
def test_channels_are_mixed_as_in_python(kind: str, module) -> None:
    rate = 100  # stretches of 1000 samples
    channels = RNG.uniform(-1, 1, (6 if kind == "surround" else 2, 2500)).astype(np.float32)
    if kind.startswith("loses"):
        channels[1] = -channels[0] + 2 * 3**-0.5 * 10 ** (-int(kind.split()[1]) / 20) * RNG.choice([-1, 1], 2500)
    elif kind != "stereo":
        channels[1, : 1000 if kind == "cancels at first" else None] = -channels[0, : 1000 if kind == "cancels at first" else None]
    expected = np.concatenate(list(mono([channels.T], rate, "x", warnings=[])))
    found = module(
        """const { Mixer } = await load("analysis/channels.js");
        const mixer = new Mixer(given.length, 100);
        const parts = [];
        for (let start = 0; start < 2500; start += 300) {
          parts.push(...mixer.push(given.map((channel) => Float32Array.from(channel.slice(start, start + 300)))));
        }
        return [...parts, ...mixer.finish()].flatMap((part) => [...part]);""",
        channels.tolist(),
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_spectrogram_shows_a_tone_in_its_band_and_as_loud_as_it_is(module) -> None:
    columns, bands, loudest, peak = module(
        """const { BANDS, Spectrogram, toMel } = await load("analysis/spectrogram.js");
        const spectrogram = new Spectrogram(32000);
        const tone = Float32Array.from({ length: 32000 }, (_, n) => 0.5 * Math.sin((2 * Math.PI * n) / 32)); // 1 kHz
        const part = spectrogram.push(tone);
        const column = part.bands.slice(50 * BANDS, 51 * BANDS);
        const loudest = column.indexOf(Math.max(...column));
        const expected = (toMel(1000) / toMel(16000)) * (BANDS + 1) - 1;
        return [part.bands.length / BANDS, loudest - expected, column[loudest], part.extremes[2 * 50 + 1]];"""
    )
    assert columns == 99 and abs(bands) <= 1  # columns whose frames are complete
    assert loudest == pytest.approx(255 * (1 - 6 / 100), abs=10)  # -6 dB
    assert peak == pytest.approx(127 / 2, abs=1)


def test_events_of_windows_are_those_of_python(module) -> None:
    scores = RNG.uniform(0, 0.6, (40, 5)).astype(np.float32)
    starts = [*range(39), 38.5]
    tracker = EventTracker([str(k) for k in range(5)], 0.3)
    ended = [event for start, row in zip(starts, scores, strict=True) for event in tracker.push(start, start + 4, row)[0]]
    expected = sorted((e.start, e.end, int(e.label), e.score, e.mean) for e in ended + tracker.finish())
    found = module(
        """const { EventTracker } = await load("analysis/events.js");
        const tracker = new EventTracker(0.3);
        const ended = given.starts.flatMap((start, i) => tracker.push(start, start + 4, Float32Array.from(given.scores[i])));
        return [...ended, ...tracker.finish()].map((e) => [e.start, e.end, e.label, e.score, e.mean]);""",
        {"starts": starts, "scores": scores.tolist()},
    )
    assert len(expected) > 20
    np.testing.assert_allclose(sorted(map(tuple, found)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("seconds", "hop"),
    [(2.5, FRAME_HOP), (10.0, FRAME_HOP), (10.02, FRAME_HOP), (16.0, FRAME_HOP), (33.33, FRAME_HOP), (14.7, STREAM_HOP)],
)
def test_frames_of_long_sound_and_their_events_are_those_of_python(seconds: float, hop: float, module) -> None:
    rate, step = 1000, 0.04
    count = round(seconds * rate)
    table = np.repeat(RNG.uniform(0, 0.6, (count // 400 + 2, 3)), 10, axis=0).astype(np.float32)  # (frames, classes)
    table += RNG.uniform(-0.05, 0.05, table.shape).astype(np.float32)

    def compute(waveforms):
        """A frame is the row of the table whose number its first sample is, and more the later it is in its window."""
        rows = [table[np.round(waveform[::40] / 40).astype(int)] for waveform in waveforms]
        rows = [scores + np.arange(len(scores), dtype=np.float32)[:, None] / 2500 for scores in rows]
        return [(scores, scores) for scores in rows]

    samples = np.arange(count, dtype=np.float32)
    lengths = FrameWindows.of_seconds(rate, step, FRAME_WINDOW, hop)
    windows = cut_windows(blocks(samples, 700), lengths.window, lengths.hop, lengths.step)
    scores = np.concatenate([piece for piece, _ in SeamlessFrames(lengths, compute).all(windows, 2)])
    events = decode(scores, step, 0.3, duration=seconds, labels=["0", "1", "2"])
    expected = sorted((e.start, e.end, int(e.label), e.score, e.mean) for e in events)
    found = module(
        """const { FrameWindows, FrameEvents, LIVE_HOP } = await load("analysis/frames.js");
        const [windows, decoder] = [new FrameWindows(1000, 0.04, given.isLive ? LIVE_HOP : undefined), new FrameEvents(0.04)];
        const compute = ({ samples }) =>
          Array.from({ length: Math.ceil(samples.length / 40) }, (_, i) =>
            given.table[Math.round(samples[40 * i] / 40)].map((score) => score + i / 2500));
        const frames = [];
        const take = (cut) => cut.forEach((window) => frames.push(...windows.keep(window, compute(window))));
        const events = [];
        for (let start = 0; start < given.count; start += 700) {
          take(windows.push(Float32Array.from({ length: Math.min(700, given.count - start) }, (_, i) => start + i)));
          events.push(...decoder.push(frames.splice(0)).events);
        }
        take(windows.finish());
        frames.push(...windows.rest());
        events.push(...decoder.push(frames).events, ...decoder.finish(given.count / 1000).events);
        return events.map((e) => [e.start, e.end, e.label, e.score, e.mean]);""",
        {"count": count, "table": table.tolist(), "isLive": hop == STREAM_HOP},
    )
    assert expected or seconds < 5
    np.testing.assert_allclose(sorted(map(tuple, found)), expected, rtol=1e-4, atol=1e-6)


def test_scores_of_live_sound_are_kept_for_a_while_only(module) -> None:
    found = module(
        """const { Track } = await load("view/timeline.js");
        const track = new Track(5);
        for (let n = 0; n < 100; n++) track.push({ start: n, end: n + 1, scores: Float32Array.of(n === 3 ? 0.9 : 0.1 + n / 1000) });
        return { starts: track.starts, count: track.scores.length, edges: [...track.edges()], highest: track.highest[0] };"""
    )
    assert found["starts"] == [95, 96, 97, 98, 99] and found["count"] == 5 and found["edges"] == [95, 96, 97, 98, 99, 100]
    assert found["highest"] == pytest.approx(0.199)


def test_metadata_of_the_bundled_model_are_read(module) -> None:
    found = module(
        """const { readMetadata } = await load("analysis/metadata.js");
        return readMetadata(new Uint8Array(await (await fetch("../models/mn04_distilled.onnx")).arrayBuffer()));"""
    )
    assert found.items() <= OnnxBackend(BUNDLED_DIR / "mn04_distilled.onnx").metadata.items()


def test_a_model_in_single_precision_has_the_same_scores(module) -> None:
    converted = module(
        """const { inSinglePrecision } = await load("analysis/single_precision.js");
        const bytes = new Uint8Array(await (await fetch("../models/mn04_distilled.onnx")).arrayBuffer());
        return btoa(letters(inSinglePrecision(bytes)));"""
    )
    waveform = load(BUNDLED_DIR / "recordings" / "speech.ogg", 32000)[None]
    sessions = [
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for content in (base64.b64decode(converted), (BUNDLED_DIR / "mn04_distilled.onnx").read_bytes())
    ]
    found, expected = (session.run(["scores"], {"waveform": waveform})[0] for session in sessions)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    [graph] = repeated(memoryview(base64.b64decode(converted)), 7)
    types = {dict(fields(tensor))[2] for tensor in repeated(graph, 5)}
    assert 1 in types and 11 not in types  # float32, float64


def test_cells_of_a_table_are_those_of_python(module) -> None:
    names = [
        "plain",
        'a "quoted", one',
        "=1+1",
        " @x",
        "-1.5",
        "-a",
        "+",
        "tab\tand\nline",
        "\tx",
        "\t-2",
        "\u202eevil",
        "\x85",
        "\u00e4",
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["source", "start", "end", "label", "score"])
    writer.writerows([safe_cell(name), 0, 1.5, safe_cell(name), 0.25] for name in names)
    found = module(
        """const { exported } = await load("view/exports.js");
        const track = { starts: [0], ends: [1.5], scores: [Float32Array.of(0.25)] };
        const lines = given.map((name) => exported("csv", { name, track }, [name]).split("\\n"));
        return lines.map(([head, line], i) => (i ? line : `${head}\\n${line}`)).join("\\n") + "\\n";""",
        names,
    )
    assert found == file.getvalue()


def hostile() -> dict[str, bytes]:
    good = {"format_version": 2, "input": "waveform", "sample_rate": 32000, "num_classes": 1, "single_label": False}
    good |= {"clip_seconds": None, "model_name": "x", "labels": ["x"]}

    def model(metadata: object, key: bytes = b"efficientat") -> bytes:
        text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        return field(1, 10) + field(14, field(1, key) + field(2, text))

    return {
        "text": b"hello, this is a text and no model at all",
        "empty": b"",
        "another model": model(good, b"other"),
        "no json": model(b"{"),
        "list": model([1]),
        "null": model(None),
        "old version": model(good | {"format_version": 1}),
        "spectrogram": model(good | {"input": "spectrogram"}),
        "labels": model(good | {"labels": ["x", "y"]}),
        "labels are numbers": model(good | {"labels": [1]}),
        "rate": model(good | {"sample_rate": 1e300}),
        "clip seconds": model(good | {"clip_seconds": -1}),
        "length beyond the end": field(1, 10) + b"\x72\xff\xff\xff\xff\x0f",
        "endless number": b"\x72" + b"\xff" * 40,
        "group": b"\x0b",
        "no utf-8": model(b"\xff\xfe"),
        "cut": (BUNDLED_DIR / "mn04_distilled.onnx").read_bytes()[:100_000],
    }


@pytest.mark.parametrize("name", hostile())
def test_what_is_no_model_is_one_line(name: str, module) -> None:
    message = module(
        """const { readMetadata } = await load("analysis/metadata.js");
        try { return [readMetadata(bytesOf(given))]; } catch (error) { return error.message; }""",
        base64.b64encode(hostile()[name]).decode(),
    )
    assert isinstance(message, str) and message and "\n" not in message and len(message) < 200


def encoded(kind: str, samples: np.ndarray, rate: int) -> bytes:
    """(samples, channels) as a file."""
    formats = {"wav": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "float": ("WAV", "FLOAT"), "u8": ("WAV", "PCM_U8")}
    formats |= {"wavex": ("WAVEX", "PCM_16"), "rf64": ("RF64", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", None)}
    formats |= {"vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
    file = io.BytesIO()
    format, subtype = formats[kind]
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def mp3_frames(samples: np.ndarray, rate: int) -> bytes:
    """(samples, channels) as frames alone, without one in front that says how many they are."""
    content = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(content, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()


@pytest.mark.parametrize("kind", ["wav", "wav24", "float", "wavex", "rf64", "u8", "flac", "mp3", "vorbis", "opus"])
@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (16000, 1)])
def test_files_in_pieces_are_decoded_as_in_python(kind: str, rate: int, channels: int, module, tmp_path: Path) -> None:
    voice = load(BUNDLED_DIR / "recordings" / "speech.ogg", rate)[: 3 * rate + 123]
    content = encoded(kind, np.stack([voice, 0.5 * voice][:channels], 1), rate)
    expected, own_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    found = module(
        """const { openSound } = await load("decoding/sound.js");
        const sound = await openSound(new Blob([bytesOf(given)]));
        const channels = Array.from({ length: sound.channels }, () => []);
        for await (const block of sound.blocks) block.forEach((samples, c) => channels[c].push(...samples));
        return { rate: sound.rate, channels: channels.map(textOf), warnings: sound.warnings };""",
        base64.b64encode(content).decode(),
    )
    samples = np.stack([np.frombuffer(base64.b64decode(text), np.float32) for text in found["channels"]], 1)
    assert found["warnings"] == [] and found["rate"] == (48000 if kind == "opus" else own_rate)
    if kind == "opus":  # always 48 kHz; taking every third sample lets through a little that libopus filters out
        samples = samples[:: 48000 // rate]
    assert abs(len(samples) - len(expected)) <= (1152 if kind == "mp3" else 1)
    length = min(len(samples), len(expected))
    tolerance = {"opus": 0.2, "mp3": 2e-3, "vorbis": 2e-3}.get(kind, 1e-6)
    np.testing.assert_allclose(samples[:length], expected[:length], atol=tolerance)


def seconds_and_warnings(module, content: bytes) -> tuple[float, list[str]]:
    """What the page reads of a file."""
    return module(
        """const { openSound } = await load("decoding/sound.js");
        const sound = await openSound(new Blob([bytesOf(given)]));
        let samples = 0;
        for await (const [channel] of sound.blocks) samples += channel.length;
        return [samples / sound.rate, sound.warnings];""",
        base64.b64encode(content).decode(),
    )


@pytest.mark.parametrize("kind", ["mp3", "flac"])
def test_sound_behind_much_damage_is_not_left_out_silently(kind: str, module) -> None:
    content = bytearray(encoded(kind, RNG.uniform(-0.5, 0.5, (900_000, 1)).astype(np.float32), 32000))
    if kind == "mp3":
        content[100_000:100_000] = bytes(100_000)
    else:
        content = content[:100_000] + bytes(5_000_000) + content[100_000:]
    seconds, warnings = seconds_and_warnings(module, content)
    assert 0.5 < seconds < 28
    assert len(warnings) == 1 and "damaged" in warnings[0]


@pytest.mark.parametrize("kind", ["vorbis", "opus", "flac"])
def test_recordings_that_are_joined_in_a_file_are_not_left_out_silently(kind: str, module) -> None:
    one = encoded(kind, RNG.uniform(-0.5, 0.5, (48000, 1)).astype(np.float32), 48000)
    other = encoded(kind, RNG.uniform(-0.5, 0.5, (48000, 1)).astype(np.float32), 48000)
    for second in (one, other):
        seconds, warnings = seconds_and_warnings(module, one + second)
        assert abs(seconds - 1) < 0.01
        assert len(warnings) == 1 and "left out" in warnings[0]


@pytest.mark.parametrize("change", ["sample rate", "channels"])
def test_mp3_that_changes_is_not_left_out_silently(change: str, module) -> None:
    noise = RNG.uniform(-0.5, 0.5, (48000, 2)).astype(np.float32)
    first = mp3_frames(noise[:, :1], 48000)
    rate, second = (16000, noise[:, :1]) if change == "sample rate" else (48000, noise)
    seconds, warnings = seconds_and_warnings(module, first + mp3_frames(second, rate))
    assert 0.95 < seconds < 1.1
    assert len(warnings) == 1 and "left out" in warnings[0]
    seconds, warnings = seconds_and_warnings(module, mp3_frames(noise, 48000) + first)  # it becomes mono
    assert 1.95 < seconds < 2.2 and not warnings
