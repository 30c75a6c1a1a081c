"""Parts, channels, damage, batches and raw samples, through all methods of the tagger."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datasets.audio import AudioError
from helpers.tagger import AudioTagger, Failure, reading
from models.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = ROOT / "resources" / "recordings"
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 96000).astype(np.float32)


def stereo_of(left: np.ndarray, right: np.ndarray) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.stack([left, right], 1), 32000, format="WAV", subtype="FLOAT")
    return content.getvalue()


def test_a_part_is_tagged_as_if_it_were_alone(loudness: AudioTagger, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE, 32000, subtype="FLOAT")
    expected = loudness.scores(NOISE[16000:48000], 32000)
    for source, rate in ((path, None), (NOISE, 32000), (path.read_bytes(), None), (open(path, "rb"), None)):
        tags = loudness.tag(source, rate, start=0.5, end=1.5, top_k=None)
        assert (tags.start, tags.end) == (0.5, 1.5)
        assert [tags[label] for label in loudness.labels] == list(expected)
    for part in ({"start": 0.5, "end": 1.5}, {"start": 2.5}, {"end": 0.5}, {"start": 2, "end": 99}):
        first, last = (round(32000 * part.get(key, default)) for key, default in (("start", 0), ("end", 3)))
        alone, rest = NOISE[first:last], {"window": 0.3, "hop": 0.2}
        np.testing.assert_array_equal(loudness.scores(path, **part), loudness.scores(alone, 32000))
        np.testing.assert_array_equal(loudness.embed(path, **part), loudness.embed(alone, 32000))
        np.testing.assert_array_equal(loudness.embed(path, **rest, **part), loudness.embed(alone, 32000, **rest))
        line, expected_line = loudness.tag_windows(path, **rest, **part), loudness.tag_windows(alone, 32000, **rest)
        np.testing.assert_array_equal(line.scores, expected_line.scores)
        np.testing.assert_allclose(line.starts, expected_line.starts + part.get("start", 0))
        np.testing.assert_allclose(line.ends, expected_line.ends + part.get("start", 0))
        windows = list(loudness.iter_windows(path, **rest, **part))
        assert [window[0] for window in windows] == list(line.starts) and [window[1] for window in windows] == list(line.ends)
        for many in (loudness.tag_files([path], **part), loudness.embed_files([path], **part)):
            [whole] = many
            assert (whole.start, whole.end) == pytest.approx((part.get("start", 0), min(3, part.get("end", 3))))
        assert [row.start for row in loudness.embed_files([path], **rest, **part)] == list(line.starts)


@pytest.mark.parametrize(
    "part", [{"start": -1}, {"start": 2, "end": 1}, {"start": 1, "end": 1}, {"start": float("nan")}, {"channel": 0}]
)
def test_an_impossible_part_or_channel_is_one_error(loudness: AudioTagger, part: dict[str, float]) -> None:
    for method in (loudness.tag, loudness.scores, loudness.embed, loudness.tag_windows, loudness.iter_windows):
        with pytest.raises(UserError):
            method(NOISE, 32000, **part)
    for method in (loudness.tag_files, loudness.embed_files):
        with pytest.raises(UserError):
            list(method([NOISE], 32000, **part))


def test_a_part_behind_the_end_is_a_failure(loudness: AudioTagger) -> None:
    for source, rate in ((NOISE, 32000), (stereo_of(NOISE, NOISE), None)):
        [failure] = loudness.tag_files([source], rate, start=5)
        assert isinstance(failure, Failure)


def test_one_channel_or_each_of_them(loudness: AudioTagger, tmp_path: Path) -> None:
    content = stereo_of(NOISE, 0.5 * NOISE)
    path = tmp_path / "stereo.wav"
    path.write_bytes(content)
    for channel, sound in ((1, NOISE), (2, 0.5 * NOISE)):
        tags = loudness.tag(content, channel=channel)
        assert tags.channel == channel and tags.tags == loudness.tag(sound, 32000).tags
        np.testing.assert_array_equal(loudness.embed(content, channel=channel), loudness.embed(sound, 32000))
        assert loudness.tag_windows(content, channel=channel).channel == channel
        assert next(loudness.embed_files([content], window=1, channel=channel)).channel == channel
    expected = [loudness.tag(sound, 32000).tags for sound in (NOISE, 0.5 * NOISE)]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content), daemon=True)
    writer.start()
    with open(path, "rb") as file:
        for source, name in ((path, str(path)), (content, None), (file, str(path)), (tmp_path / "pipe", str(tmp_path / "pipe"))):
            found = list(loudness.tag_files([source], per_channel=True))
            assert [tags.channel for tags in found] == [1, 2] and [tags.tags for tags in found] == expected
            assert name is None or {tags.source for tags in found} == {name}
    writer.join()
    with open(path, encoding="latin-1") as file:
        [failure] = loudness.tag_files([file], per_channel=True)
        assert "binary" in str(failure.error)
    sources = [path, tmp_path / "nowhere.wav", NOISE]
    one, two, failure, mono = loudness.tag_files(sources, 32000, per_channel=True)
    assert (one.channel, two.channel, mono.channel) == (1, 2, 1) and isinstance(failure, Failure)
    [failure] = loudness.tag_files(path, channel=3)
    assert "2 channels" in str(failure.error)
    with pytest.raises(UserError, match="per_channel"):
        list(loudness.tag_files(path, channel=1, per_channel=True))


def test_warnings_reach_the_user(loudness: AudioTagger, caplog: pytest.LogCaptureFixture) -> None:
    content = stereo_of(NOISE, -NOISE)
    tags = loudness.tag(content, name="rec")
    assert tags["peak"] > 0.2 and len(tags.warnings) == 1 and tags.warnings[0].startswith("rec ")
    options = {"window": 1, "hop": 1}
    assert len(loudness.tag_windows(content, **options).warnings) == 1
    assert [len(result.warnings) for result in loudness.tag_files([content, NOISE, content], 32000)] == [1, 0, 1]
    assert [len(result.warnings) for result in loudness.embed_files([content, NOISE], 32000)] == [1, 0]
    assert [len(row.warnings) for row in loudness.embed_files([content], **options)] == [0, 0, 1]
    warnings: list[str] = []
    assert len(list(loudness.iter_windows(content, **options, warnings=warnings))) == 3 and len(warnings) == 1
    assert not caplog.records
    loudness.scores(content)
    loudness.embed(content)
    loudness.embed(content, **options)
    list(loudness.iter_windows(content, **options))
    assert len(caplog.records) == 4


def test_sound_of_which_one_channel_is_turned_round_is_tagged_as_it_is(bundled: AudioTagger) -> None:
    sound, rate = soundfile.read(RECORDINGS / "speech.ogg", dtype="float32")
    same, turned = (bundled.tag(np.stack([sound, sign * sound], 1), rate, top_k=3) for sign in (1, -1))
    assert turned.tags == same.tags and turned[0].label == "Speech"
    assert turned.warnings and not same.warnings


def test_strict_refuses_what_is_damaged(loudness: AudioTagger) -> None:
    cut = stereo_of(NOISE, NOISE)[:400_000]
    tags = loudness.tag(cut)
    assert 1.5 < tags.end < 1.6 and len(tags.warnings) == 1
    for method in (loudness.tag, loudness.scores, loudness.embed, loudness.tag_windows):
        with pytest.raises(AudioError):
            method(cut, strict=True)
    with pytest.raises(AudioError):
        list(loudness.iter_windows(cut, strict=True))
    for method in (loudness.tag_files, loudness.embed_files):
        [failure] = method([cut], strict=True)
        assert isinstance(failure, Failure)
    assert loudness.tag(cut, strict=True, end=1).end == 1  # what is asked for is there
    assert loudness.tag(stereo_of(NOISE, -NOISE), strict=True).warnings  # a remark, no damage


def test_batches_of_arrays(loudness: AudioTagger) -> None:
    batch = NOISE.reshape(6, -1)
    expected = [loudness.tag(samples, 32000).tags for samples in batch]
    for sources in (batch, list(batch), torch.from_numpy(batch), batch[:, None], np.stack([batch, batch], 1)):
        assert [tags.tags for tags in loudness.tag_files(sources, 32000)] == expected
    assert len(list(loudness.embed_files(batch[:2], 32000))) == 2
    [failure] = loudness.tag_files(batch[:1])
    assert "sample_rate" in str(failure.error)


def test_raw_pcm_in_memory(loudness: AudioTagger) -> None:
    samples = np.round(NOISE * 32767).astype("<i2")
    expected = loudness.tag(samples, 32000).tags
    for content in (samples.tobytes(), bytearray(samples), memoryview(samples.tobytes())):
        assert loudness.tag(content, 32000).tags == expected
        assert [tags.tags for tags in loudness.tag_files([(content, 32000)])] == [expected]
    assert loudness.tag(samples.tobytes(), 32000, start=1, end=2).tags == loudness.tag(samples[32000:64000], 32000).tags
    with pytest.raises(UserError, match="odd"):
        loudness.tag(samples.tobytes()[:-1], 32000)
    for format in ("WAV", "FLAC", "OGG", "MP3"):
        content = io.BytesIO()
        soundfile.write(content, NOISE, 32000, format=format)
        with pytest.raises(UserError, match="sample_rate"):
            loudness.tag(content.getvalue(), 32000)


def _send_scores(tagger: AudioTagger, sender: Connection) -> None:
    sender.send(tagger.scores(np.tile(NOISE, 5), 32000))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_tags_the_same(bundled: AudioTagger, tiny: AudioTagger) -> None:
    context = multiprocessing.get_context("fork")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # which a fork leaves behind
    try:
        for tagger in (bundled, tiny):
            expected = tagger.scores(np.tile(NOISE, 5), 32000)
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_send_scores, args=(tagger, sender))
            child.start()
            try:
                assert receiver.poll(30), "the child hangs"
                np.testing.assert_allclose(receiver.recv(), expected, atol=1e-6)
            finally:
                child.kill()
                child.join()
    finally:
        torch.set_num_threads(threads)


FORKING = """
import os, signal, sys
import numpy as np
from helpers.tagger.audio_tagger import AudioTagger
from models.errors import UserError

tagger = AudioTagger("mn04_distilled", backend="onnx", batch_size=2)
clips = [np.full(32000, 0.1, np.float32)] * 6
begun = tagger.tag_files(clips, 32000)
next(begun)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(30)  # ends a process that hangs
try:
    list(begun)
except UserError:
    sys.exit(len(list(tagger.tag_files(clips, 32000))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_of_a_process_that_tags_ends_with_its_own_exit_code() -> None:
    """It tags, cannot go on with what the other began, and does not wait for threads that it does not have."""
    assert subprocess.run([sys.executable, "-c", FORKING], cwd=ROOT).returncode == 6


@pytest.mark.parametrize(("seconds_ahead", "taken"), [(60.0, 10), (0.1, 2)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_few_long_recordings_are_begun_in_advance(
    seconds_ahead: float, taken: int, per_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short ones: as many as are wished."""
    monkeypatch.setattr(reading, "SECONDS_AHEAD", seconds_ahead)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 32000)).astype(np.float32)
    begun = []

    def sources() -> Iterator[tuple[np.ndarray, float]]:
        for number in range(30):
            begun.append(number)
            yield samples, 32000.0

    done = 0
    for recording in reading.read_ahead(sources(), 32000, reading.ReadOptions(), 1, 10, per_channel):
        channel = samples.mean(0) if recording.channel is None else samples[recording.channel - 1]
        np.testing.assert_allclose(np.concatenate(list(recording.blocks)), channel, atol=1e-6)
        done += recording.channel in (None, 2)
        assert len(begun) <= done + 1 + max(taken, 2)
        if 3 < done < 15 and recording.channel in (None, 2):
            assert len(begun) - done == taken
    assert done == 30


def test_a_named_pipe_that_nobody_writes_to_costs_itself_alone(loudness: AudioTagger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    rescue = threading.Timer(15, lambda: os.close(os.open(tmp_path / "pipe.wav", os.O_RDWR)))  # ends a wait without limit
    rescue.start()
    silent, tagged = loudness.tag_files([tmp_path / "pipe.wav", tmp_path / "x.wav"], time_limit=1.0)
    assert rescue.is_alive()
    rescue.cancel()
    assert isinstance(silent, Failure) and "pipe.wav" in str(silent.error)
    assert not isinstance(tagged, Failure)


def test_a_named_pipe_is_read_among_files(loudness: AudioTagger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    content = (tmp_path / "x.wav").read_bytes()
    threading.Thread(target=(tmp_path / "pipe.wav").write_bytes, args=(content,), daemon=True).start()
    piped, tagged = loudness.tag_files([tmp_path / "pipe.wav", tmp_path / "x.wav"], time_limit=20.0)
    assert [tag.score for tag in piped] == [tag.score for tag in tagged]
