from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets.audio import AudioError
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from helpers.tagger import AudioTagger, Failure, StreamTagger, Tagging, results_file
from helpers.tagger import audio_tagger as module
from helpers.tagger.reading import in_thread
from helpers.tagger.rows import COLUMNS
from models import checkpoints
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3
from tests.loudness import Loudness

ROOT = Path(__file__).resolve().parents[3]
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 96000).astype(np.float32)


def test_every_kind_of_audio_gives_the_same_tags(tiny: AudioTagger, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE[:32000], 32000, subtype="FLOAT")
    expected = tiny.tag(path)
    assert expected.source == str(path) and (expected.start, expected.end) == (0, 1)
    with open(path, "rb") as file:
        others = [tiny.tag(str(path)), tiny.tag(path.read_bytes()), tiny.tag(file)]
    others += [tiny.tag(NOISE[:32000], 32000), tiny.tag(torch.from_numpy(NOISE[None, :32000]), sample_rate=32000)]
    for tags in others:
        assert tags.tags == expected.tags


def test_choices_of_tags(loudness: AudioTagger) -> None:
    sound = np.array([0.5, 0.9, 0.2], np.float32)
    assert [tag.label for tag in loudness.tag(sound, 32000)] == ["peak", "begin", "power", "end"]
    assert [tag.label for tag in loudness.tag(sound, 32000, top_k=2)] == ["peak", "begin"]
    assert [tag.label for tag in loudness.tag(sound, 32000, threshold=0.4)] == ["peak", "begin"]
    assert [tag.label for tag in loudness.tag(sound, 32000, labels=["END", "begin"])] == ["begin", "end"]
    for mistake in ({"top_k": 0}, {"threshold": 1.5}, {"labels": ["pek"]}, {"labels": "peak"}, {"labels": [0]}):
        with pytest.raises(ValueError):
            loudness.tag(sound, 32000, **mistake)
    with pytest.raises(ValueError, match="'peak'"):
        loudness.classes(["pek"])


def test_batches_have_no_influence_on_windows(tiny_checkpoint: Path) -> None:
    taggers = [AudioTagger(tiny_checkpoint, "cpu", batch_size=size) for size in (1, 5)]
    one, many = (tagger.tag_windows(NOISE, 32000, window=1, hop=0.3) for tagger in taggers)
    np.testing.assert_allclose(one.scores, many.scores, atol=1e-6)
    np.testing.assert_allclose(one.starts, [0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.0])
    np.testing.assert_allclose(one.ends - one.starts, 1)


def test_a_window_is_tagged_and_embedded_as_the_piece_alone(tiny: AudioTagger) -> None:
    line, embeddings = tiny.tag_windows(NOISE, 32000, window=1, hop=0.5), tiny.embed(NOISE, 32000, window=1, hop=0.5)
    assert embeddings.shape == (5, tiny.backend.embedding_size)
    for i in (0, 3):
        alone = tiny.tag(NOISE[16000 * i : 16000 * i + 32000], 32000)
        assert [tag.label for tag in line[i]] == [tag.label for tag in alone]
        np.testing.assert_allclose([tag.score for tag in line[i]], [tag.score for tag in alone], atol=1e-6)
        np.testing.assert_allclose(embeddings[i], tiny.embed(NOISE[16000 * i : 16000 * i + 32000], 32000), atol=1e-5)


def test_a_long_recording_is_the_mean_of_its_windows(loudness: AudioTagger) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, 8000 * 65) * np.repeat([0.1, 1], [8000 * 35, 8000 * 30])
    tags = loudness.tag(sound.astype(np.float32), 8000)
    power = {tag.label: tag.score for tag in tags}["power"]
    resampled_power = 30 / 65 / 3 + 35 / 65 / 300
    assert power == pytest.approx(resampled_power, rel=0.05)
    assert tags.end == 65 and {length for lengths in loudness.backend.batches for length in lengths} == {320000}
    loudness.backend.batches.clear()
    loudness.whole = True
    assert loudness.tag(sound.astype(np.float32), 8000).end == 65
    assert loudness.backend.batches == [(65 * 32000,)]


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [(10, [10]), (10.05, [10.05]), (11, [11]), (11.1, [10, 10]), (21, [10, 11]), (21.1, [10, 10, 10])],
)
def test_the_last_window_may_be_a_tenth_longer(loudness: AudioTagger, seconds: float, lengths: list[float]) -> None:
    sound = np.full(round(seconds * 32000), 0.1, np.float32)
    sound[-1] = 0.5
    scores = loudness.scores(sound, 32000)
    assert loudness.backend.batches == [tuple(round(length * 32000) for length in lengths)]
    covered = [*lengths[:-1], seconds - sum(lengths[:-1])]  # the last may overlap the one before
    assert scores[1] == pytest.approx((0.1 * sum(covered[:-1]) + 0.5 * covered[-1]) / seconds)


def test_scores_are_continuous_in_the_length_of_a_recording(bundled: AudioTagger) -> None:
    scene, rate = soundfile.read(ROOT / "resources" / "recordings" / "scene.ogg", dtype="float32")
    sound = np.tile(scene, 7)
    scores = {seconds: bundled.scores(sound[: round(seconds * rate)], rate) for seconds in (10, 10.1, 59.9, 60.1)}
    np.testing.assert_allclose(scores[10.1], scores[10], atol=0.05)
    np.testing.assert_allclose(scores[60.1], scores[59.9], atol=0.05)
    np.testing.assert_array_equal(scores[10], bundled.backend([scene])[0][0])  # ten seconds are one piece


@pytest.mark.parametrize("what", ["tag", "iter_windows"])
def test_long_recordings_run_in_constant_memory(loudness: AudioTagger, tmp_path: Path, what: str) -> None:
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as file:
        for _ in range(20):  # 20 minutes: 154 MB at 32 kHz
            file.write(np.random.default_rng(0).uniform(-1, 1, 8000 * 60))
    tracemalloc.start()
    try:
        if what == "tag":
            assert loudness.tag(tmp_path / "long.wav").end == 1200
        else:
            assert sum(1 for _ in loudness.iter_windows(tmp_path / "long.wav")) == 477  # of 10 s, every 2.5 s
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # a batch of four windows, copied once, and blocks in advance


def pieces_of(content: bytes, sizes: Callable[[], int]) -> list[bytes]:
    pieces, start = [], 0
    while start < len(content):
        stop = start + sizes()
        pieces.append(content[start:stop])
        start = stop
    return pieces


@pytest.mark.parametrize("largest", [3, 501, 40_001, 10**9])
@pytest.mark.parametrize(("rate", "channels"), [(32000, 1), (11025, 2)])
def test_a_stream_in_odd_pieces_gives_the_windows_of_the_file(
    loudness: AudioTagger, tmp_path: Path, largest: int, rate: int, channels: int
) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, (rate // 2, channels), dtype=np.int16)
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="PCM_16")
    line = loudness.tag_windows(tmp_path / "x.wav", window=0.2, hop=0.07)
    stream = StreamTagger(loudness, rate, channels=channels, window=0.2, hop=0.07)
    rng = np.random.default_rng(largest)
    pieces = pieces_of(samples.astype("<i2").tobytes(), lambda: int(rng.integers(1, largest + 1)))
    found = [window for piece in pieces for window in stream.windows(piece)] + list(stream.last_windows())
    np.testing.assert_array_equal([start for start, _, _ in found], line.starts)
    np.testing.assert_array_equal([end for _, end, _ in found], line.ends)
    np.testing.assert_allclose([scores for *_, scores in found], line.scores, atol=1e-6)


def test_a_stream_reports_each_event_once_and_with_the_stated_latency(loudness: AudioTagger) -> None:
    time = np.arange(30 * 8000) / 8000
    sound = (np.where((time > 10) & (time < 20), 0.9, 0.0) * np.sign(np.sin(2 * np.pi * 100 * time)) * 32767).astype("<i2")
    stream = StreamTagger(loudness, 8000, window=2.0, hop=0.5, threshold=0.4, labels=["power"])
    reported = []  # (seconds of sound so far, event)
    for i, piece in enumerate(pieces_of(sound.tobytes(), lambda: 1600)):
        reported += [(i / 10 + 0.1, event) for event in stream.feed(piece)]
    reported += [(30.0, event) for event in stream.finish()]
    (begin_at, begin), (end_at, end) = reported
    assert begin.end is None and (begin.label, end.label) == ("power", "power")
    assert begin.start == end.start == pytest.approx(10, abs=0.5) and end.end == pytest.approx(20, abs=0.8)
    for reported_at, time in ((begin_at, begin.start), (end_at, end.end)):
        assert reported_at - time <= (2 + 0.5) / 2 + 0.22  # a piece of 0.1 s, and the filter
    timeline = loudness.tag_windows(sound.astype(np.int16), 8000, window=2.0, hop=0.5, labels=["power"])
    assert timeline.events(0.4) == [replace(end, source="array")]


def test_one_broken_file_does_not_stop_the_others(tiny: AudioTagger, tmp_path: Path) -> None:
    names = ["a.wav", "broken.wav", "b.wav", "missing.wav", "c.wav", "long.wav"]
    for name, seconds in (("a.wav", 1), ("b.wav", 0.5), ("c.wav", 1), ("long.wav", 61)):
        soundfile.write(tmp_path / name, np.resize(NOISE, int(8000 * seconds)), 8000)
    (tmp_path / "broken.wav").write_text("nothing to hear")
    results = list(tiny.tag_files([tmp_path / name for name in names], top_k=3, workers=2))
    assert [Path(result.source).name for result in results] == names
    assert [isinstance(result, Failure) for result in results] == [False, True, False, True, False, False]
    for result in results:
        if isinstance(result, Tagging):
            alone = tiny.tag(result.source, top_k=3)
            assert [tag.label for tag in result] == [tag.label for tag in alone]
            np.testing.assert_allclose([tag.score for tag in result], [tag.score for tag in alone], atol=1e-6)


def test_each_file_gets_its_own_scores(loudness: AudioTagger, tmp_path: Path) -> None:
    levels = [0.1 * (i % 7 + 1) for i in range(20)]
    for i, level in enumerate(levels):
        soundfile.write(tmp_path / f"{i}.wav", np.full(320 * (1 + i % 3), level), 32000, subtype="FLOAT")
    results = list(loudness.tag_files((tmp_path / f"{i}.wav" for i in range(20)), labels=["peak"], workers=3))
    np.testing.assert_allclose([result[0].score for result in results], levels, rtol=1e-6)
    assert len(loudness.backend.batches) < 20


def test_short_recordings_are_padded_if_wished(loudness: AudioTagger) -> None:
    sound = np.full(320, 0.5, np.float32)
    assert loudness.embed(sound, 32000)[0] == 320
    padding = AudioTagger("any", min_seconds=0.1)
    assert padding.embed(sound, 32000)[0] == 3200 and padding.embed(np.tile(sound, 20), 32000)[0] == 6400
    scores = {tag.label: tag.score for tag in padding.tag(sound, 32000)}
    assert (scores["begin"], scores["end"]) == (0.5, 0) and padding.tag(sound, 32000).end == 0.01
    with pytest.raises(ValueError):
        AudioTagger("any", min_seconds=-1)


def test_short_recordings_get_the_length_of_the_models_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_backend", lambda *_: Loudness(clip_seconds=0.05))
    sound = np.full(320, 0.5, np.float32)
    tagger = AudioTagger("any")
    assert tagger.min_seconds == 0.05 and tagger.embed(sound, 32000)[0] == 1600
    windows = list(tagger.iter_windows(np.tile(sound, 2), 32000, window=0.01, hop=0.01))
    assert [(start, end) for start, end, _ in windows] == [(0, 0.01), (0.01, 0.02)]
    assert all(scores[3] == 0 for *_, scores in windows)  # zeros at the end
    assert AudioTagger("any", min_seconds=0).embed(sound, 32000)[0] == 320


def test_models_know_the_length_of_their_clips(tiny: AudioTagger, bundled: AudioTagger) -> None:
    assert tiny.min_seconds == 0
    assert bundled.min_seconds == AudioTagger(["mn04_distilled"]).min_seconds == 5


@pytest.mark.parametrize("model", ["resources/mn04_distilled.onnx", ["mn04_distilled", "resources/mn04_distilled.onnx"]])
def test_exported_models_need_the_onnx_backend(model: str | list[str]) -> None:
    with pytest.raises(ValueError, match="onnx backend"):
        AudioTagger(model)


def test_scores_of_classes_that_exclude_each_other_add_up_to_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MobileNetV3(Arch(num_classes=3, width_mult=0.1), labels=["a", "b", "c"], single_label=True).eval()
    checkpoints.save(tmp_path / "exclusive.pt", model)
    write(tmp_path / "exclusive.onnx", to_onnx(model, "exclusive"))
    for backend, name in (("torch", "exclusive.pt"), ("onnx", "exclusive.onnx")):
        tags = AudioTagger(tmp_path / name, backend=backend).tag(NOISE[:8000], 8000)
        assert sum(tag.score for tag in tags) == pytest.approx(1, abs=1e-5)


def test_files_are_taken_as_they_are_needed(loudness: AudioTagger, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE[:3200], 32000)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield tmp_path / "a.wav"

    results = loudness.tag_files(endless(), workers=2)
    next(results)
    results.close()
    assert len(taken) < 20


def test_errors_arrive_from_the_thread_in_their_place() -> None:
    def items():
        yield 1
        raise KeyError("here")

    found = in_thread(items(), 3)
    assert next(found) == 1
    with pytest.raises(KeyError):
        next(found)


def test_tags_by_label(loudness: AudioTagger) -> None:
    tags = loudness.tag(np.array([0.5, 0.9, 0.2], np.float32), 32000, top_k=2)
    assert tags["begin"] == 0.5 and "begin" in tags and tags[1] in tags and "end" not in tags
    with pytest.raises(KeyError, match="top_k=None"):
        tags["end"]


def test_results_are_short_to_read(loudness: AudioTagger, tiny: AudioTagger) -> None:
    line, tags = tiny.tag_windows(NOISE, 32000, window=0.01, hop=0.01), tiny.tag(NOISE, 32000, top_k=None)
    [embedding] = tiny.embed_files((NOISE, 32000))
    for result in (tiny, line, tags, tags[0], line.events(0.1)[0], embedding, Failure("x.wav", ValueError("bad"))):
        assert repr(result).startswith(type(result).__name__) and len(repr(result)) < 250
    assert "array" in repr(line) and tags[0].label in repr(tags)
    for result in (line, tags, embedding):
        assert "warning" not in repr(result) and "channel" not in repr(result)
        assert "2 warnings" in repr(replace(result, warnings=("cut", "odd"))) and "channel 2" in repr(replace(result, channel=2))
    assert tags[0].label in line._repr_html_() + tags._repr_html_() and len(line._repr_html_()) < 5000
    loudness.labels = ("<b>power</b>", "peak", "begin", "end")
    for result in (loudness.tag(NOISE, 32000, name="<i>"), loudness.tag_windows(NOISE, 32000, name="<i>", labels=["<b>power</b>"])):
        assert "&lt;b&gt;" in result._repr_html_() and "&lt;i&gt;" in result._repr_html_()
        assert "<b>" not in result._repr_html_() and "<i>" not in result._repr_html_()


def test_tables_of_pandas(loudness: AudioTagger) -> None:
    pytest.importorskip("pandas")
    line = loudness.tag_windows(NOISE, 32000, window=1, hop=0.5, top_k=2)
    table = line.to_pandas()
    assert tuple(table.columns) == COLUMNS and len(table) == 10
    assert loudness.tag(NOISE, 32000, labels=["peak"]).to_pandas().score[0] == pytest.approx(0.3, abs=0.01)
    assert tuple(loudness.tag(NOISE, 32000, threshold=1).to_pandas().columns) == COLUMNS  # no rows


def test_without_pandas_the_error_names_it(loudness: AudioTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="pip install pandas"):
        loudness.tag(NOISE, 32000).to_pandas()


def test_events_turn_into_plain_data(loudness: AudioTagger, tmp_path: Path) -> None:
    events = loudness.tag_windows(NOISE, 32000, window=1, hop=0.5, name="x.wav", labels=["peak"]).events(0.1)
    near = pytest.approx(0.3, abs=0.01)
    expected = {"source": "x.wav", "start": 0, "end": 3, "label": "peak", "score": near, "mean": near}
    assert [event.to_dict() for event in events] == [expected]
    for suffix in (".jsonl", ".csv"):
        with results_file(tmp_path / f"events{suffix}") as file:
            file.write(events)
    assert json.loads((tmp_path / "events.jsonl").read_text()) == expected
    [row] = csv.DictReader(io.StringIO((tmp_path / "events.csv").read_text()))
    assert (row["source"], row["end"], row["label"]) == ("x.wav", "3.0", "peak")


def test_results_turn_into_plain_data(loudness: AudioTagger, tmp_path: Path) -> None:
    line = loudness.tag_windows(NOISE, 32000, window=1, hop=0.5, top_k=2, name="a, b\n.wav")
    single = loudness.tag(NOISE, 32000, name="ä.wav")
    rows = line.to_rows()
    assert len(line) == 5 and len(rows) == 10 and all(tuple(row) == COLUMNS for row in rows + single.to_rows())
    assert list(csv.DictReader(io.StringIO(line.to_csv())))[3]["source"] == "a, b\\n.wav"  # in one line
    assert json.loads(line.to_json())["windows"][1] == {
        "start": 0.5, "end": 1.5, "tags": [tag.to_dict() for tag in line[1]]
    }  # fmt: skip
    failure = Failure("x.wav", ValueError("bad"))
    for suffix in (".jsonl", ".csv"):
        with results_file(tmp_path / f"r{suffix}") as file:
            file.write([single, failure, *line])
    parsed = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert parsed[0] == single.to_dict() and parsed[1] == {"source": "x.wav", "error": "bad"} and len(parsed) == 7
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 + 10


DTYPES = ("float16", "float32", "float64", "int16", "int32", "uint8", "int8", "int64", "complex64")
FLAWS = ("none", "silent", "clipped", "constant", "nan", "inf", "huge")


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.one_of(st.integers(-1, 400_000), st.sampled_from([8000, 16000, 22050, 32000, 44100, 48000, 192000])),
    length=st.one_of(st.integers(0, 3), st.integers(0, 20_000)),
    channels=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    flaw=st.sampled_from(FLAWS),
    layout=st.sampled_from(["channels last", "channels first", "torch"]),
    windows=st.booleans(),
)
@example(rate=16000, length=3000, channels=2, dtype="float32", flaw="nan", layout="channels last", windows=False)
@example(rate=16000, length=3000, channels=0, dtype="float64", flaw="nan", layout="torch", windows=True)
@example(rate=32000, length=3000, channels=1, dtype="float32", flaw="inf", layout="channels first", windows=True)
@example(rate=32000, length=3000, channels=0, dtype="float32", flaw="huge", layout="channels last", windows=False)
@example(rate=8000, length=9000, channels=2, dtype="int16", flaw="clipped", layout="channels first", windows=True)
@example(rate=44100, length=9000, channels=1, dtype="float16", flaw="silent", layout="channels last", windows=False)
def test_any_input_gives_finite_scores_or_one_clear_error(
    tiny: AudioTagger, rate: int, length: int, channels: int, dtype: str, flaw: str, layout: str, windows: bool
) -> None:
    length = min(length, 3 * max(rate, 1))  # 3 s at most, to be quick
    shape = (length, channels) if channels else (length,)
    sound = np.random.default_rng(length).uniform(-1, 1, shape)
    sound = {"silent": 0 * sound, "clipped": np.sign(sound), "constant": 0 * sound + 0.7, "huge": 1e30 * sound}.get(flaw, sound)
    with np.errstate(all="ignore"):
        samples = sound.astype(dtype) if dtype[0] in "fc" else (sound * 100).clip(-100, 100).astype(dtype)
    if flaw in ("nan", "inf") and samples.dtype.kind == "f" and samples.size:
        samples.flat[samples.size // 2] = float(flaw)
    samples = samples.T if layout == "channels first" else torch.from_numpy(samples) if layout == "torch" else samples
    wrong = (flaw in ("nan", "inf", "huge") and dtype[0] == "f") or dtype in ("int64", "complex64") or rate < 1 or length == 0
    refused = min(channels, length) > 2 or channels == length == 2
    try:
        if windows:
            scores = tiny.tag_windows(samples, rate, window=0.7, hop=0.5).scores
            assert scores.ndim == 2 and scores.shape[1] == 527
        else:
            tags = tiny.tag(samples, rate, top_k=600)
            scores = np.array([tag.score for tag in tags])
            assert scores.shape == (527,)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        assert wrong or refused or "shorter than one sample" in str(error), error
    else:
        assert not (wrong or refused)
        assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


def test_a_stream_that_ended_takes_no_more(loudness: AudioTagger) -> None:
    stream = StreamTagger(loudness, 32000, window=1, hop=1)
    stream.feed(bytes(101))  # and half a frame
    stream.finish()
    for again in (lambda: stream.feed(bytes(100)), stream.finish):
        with pytest.raises(ValueError):
            again()


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (2**31, 1), (32000, 0), (32000, 10**12)])
def test_impossible_streams_are_refused(rate: int, channels: int, loudness: AudioTagger) -> None:
    with pytest.raises(ValueError):
        StreamTagger(loudness, rate, channels=channels)


def test_a_device_that_is_not_there_is_a_users_mistake(tiny_checkpoint: Path) -> None:
    for device in ["nowhere"] + ["cuda"] * (not torch.cuda.is_available()):
        with pytest.raises(UserError, match=device):
            AudioTagger(tiny_checkpoint, device)


def test_a_tagger_can_be_pickled(bundled: AudioTagger, tiny: AudioTagger) -> None:
    for tagger in (bundled, tiny):
        again = pickle.loads(pickle.dumps(tagger))
        np.testing.assert_allclose(again.scores(NOISE, 32000), tagger.scores(NOISE, 32000), atol=1e-6)


def test_a_gpu_computes_where_there_is_one(tiny_checkpoint: Path) -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert AudioTagger(tiny_checkpoint).backend.device.type == expected


def test_scores_of_all_classes(tiny: AudioTagger) -> None:
    scores, tags = tiny.scores(NOISE, 32000), tiny.tag(NOISE, 32000, top_k=None)
    assert scores.shape == (527,) and scores.dtype == np.float32 and len(tags) == 527
    assert all(tags[label] == score for label, score in zip(tiny.labels, scores, strict=True))


def test_a_model_without_classes_gives_embeddings_alone(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "features.pt", MobileNetV3(Arch(0, width_mult=0.1)))
    tagger = AudioTagger(tmp_path / "features.pt", "cpu")
    assert tagger.embed(NOISE, 32000).shape == (tagger.backend.embedding_size,)
    for method in (tagger.tag, tagger.scores, tagger.tag_windows, tagger.iter_windows, tagger.tag_files):
        with pytest.raises(UserError, match="no classes"):
            method(NOISE, 32000)


def test_samples_among_the_files(loudness: AudioTagger, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE[:800], 8000)
    sources = [NOISE[:3200], (NOISE[:1600], 16000), tmp_path / "x.wav", (torch.from_numpy(NOISE[:800]), 8000.0)]
    found = list(loudness.tag_files(sources, 32000))
    assert [result.end for result in found] == [0.1] * 4
    assert [result.source for result in found] == ["array", "array", str(tmp_path / "x.wav"), "array"]
    assert [row.end for row in loudness.embed_files(sources, 32000, window=0.05, hop=0.05)] == [0.05, 0.1] * 4
    [failure] = loudness.tag_files([NOISE])
    assert isinstance(failure, Failure) and "sample_rate" in str(failure.error)


def test_one_recording_alone_is_one_recording(loudness: AudioTagger, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE[:800], 8000)
    for alone in (str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes()), (NOISE[:800], 8000)):
        [tags] = loudness.tag_files(alone)
        assert tags.end == 0.1
    assert len(list(loudness.tag_files(NOISE[:800], 8000))) == len(list(loudness.embed_files(str(path)))) == 1
    with pytest.raises(ValueError, match=r"\[samples\]"):
        loudness.tag_files(np.zeros((8000, 2)), 8000)


@pytest.mark.parametrize(("min_seconds", "expected"), [(0, 20), (2.0, 5), (10.0, 4)])
def test_a_batch_of_short_windows_holds_ten_seconds_padding_included(
    monkeypatch: pytest.MonkeyPatch, min_seconds: float, expected: int
) -> None:
    backend = Loudness()
    monkeypatch.setattr(module, "load_backend", lambda *_: backend)
    tagger = AudioTagger("any", batch_size=4, min_seconds=min_seconds)
    tagger.embed(np.tile(NOISE, 6), 32000, window=0.5, hop=0.5)
    assert len(backend.batches[0]) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": 5},
        {"model": None},
        {"model": []},
        {"model": ["mn04_distilled", 5]},
        {"batch_size": "8"},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"min_seconds": "1"},
        {"min_seconds": float("nan")},
        {"device": 3.5},
        {"device": {}.keys()},
        {"backend": 5},
        {"layers": 5},
        {"layers": [None]},
        {"pooling": None},
    ],
    ids=str,
)
def test_arguments_of_wrong_types_are_one_line(wrong: dict[str, object], tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError) as error:
        AudioTagger(**{"model": tiny_checkpoint, "device": "cpu"} | wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": "3"},
        {"top_k": 2.5},
        {"threshold": None},
        {"threshold": "0.5"},
        {"labels": 5},
        {"labels": [5]},
        {"start": "0"},
        {"start": None},
        {"end": "1"},
        {"end": float("nan")},
        {"channel": "1"},
        {"sample_rate": "32000"},
        {"audio": 5},
        {"audio": ["a.wav"]},
        {"audio": np.zeros((2, 3, 4))},
        {"audio": np.array(["a"])},
        {"audio": np.full(100, np.nan)},
        {"audio": torch.full((100,), torch.inf)},
    ],
    ids=str,
)
def test_what_cannot_be_tagged_is_one_line(wrong: dict[str, object], loudness: AudioTagger) -> None:
    with pytest.raises((UserError, AudioError)) as error:
        loudness.tag(**{"audio": np.zeros(100, np.float32), "sample_rate": 32000} | wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"window": "1"}, {"window": None}, {"hop": float("inf")}, {"hop": [1]}], ids=str)
def test_windows_of_wrong_types_are_one_line(wrong: dict[str, object], loudness: AudioTagger) -> None:
    with pytest.raises(UserError):
        loudness.tag_windows(np.zeros(100, np.float32), 32000, **wrong)


@pytest.mark.parametrize("wrong", [{"workers": "2"}, {"workers": 1.5}, {"time_limit": "5"}, {"time_limit": -1}], ids=str)
def test_options_of_several_files_are_checked(wrong: dict[str, object], loudness: AudioTagger) -> None:
    with pytest.raises(UserError):
        list(loudness.tag_files([(np.zeros(100, np.float32), 32000)], **wrong))
