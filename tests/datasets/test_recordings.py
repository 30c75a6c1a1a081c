"""datasets.recordings: clips from files, and a cache that is never stale, never half written and never in the way."""

import copy
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from datasets import audio, recordings
from datasets.audio import AudioError
from datasets.recordings import Recordings, WaveformCache
from models.errors import UserError

BUNDLED = sorted((Path(__file__).resolve().parents[2] / "resources" / "recordings").glob("*.ogg"))


def noise(seed: int, seconds: float = 1.0, rate: int = 32000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(rate * seconds))).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """Noise of 1, 2 and 3 s: a wav, a stereo flac at 44.1 kHz, an mp3."""
    soundfile.write(tmp_path / "a.wav", noise(0), 32000)
    soundfile.write(tmp_path / "b.flac", np.stack([noise(1, 2.0, 44100)] * 2, axis=1), 44100)
    (tmp_path / "c.mp3").write_bytes(audio.encode_mp3(noise(2, 3.0), 32000))
    return [tmp_path / name for name in ("a.wav", "b.flac", "c.mp3")]


def clips(files, **options) -> Recordings:
    return Recordings(files, np.eye(len(files)), [f"clip {path.name}" for path in files], **options)


def decodings(monkeypatch) -> list[str]:
    """Names of the recordings that are decoded from here on."""
    decoded, load = [], audio.load
    monkeypatch.setattr(audio, "load", lambda path, *args, **options: decoded.append(path.name) or load(path, *args, **options))
    return decoded


def cached_files(cache) -> list[Path]:
    return sorted(path for path in Path(cache).rglob("*") if path.is_file())


@pytest.mark.parametrize("cached", [False, True])
def test_clips_of_every_format(files, tmp_path, cached):
    dataset = clips(files, clip_seconds=2.5, cache_dir=tmp_path / "cache" if cached else None)
    assert len(dataset) == dataset.num_classes == 3
    for _ in range(2):
        for index, path in enumerate(files):
            clip = dataset[index]
            assert (clip.name, clip.index) == (f"clip {path.name}", index)
            assert clip.target.tolist() == np.eye(3)[index].tolist() and clip.target.dtype == torch.float32
            expected = audio.crop_or_pad(audio.load(path, 32000, seconds=2.5), 80000)
            # the head that is decoded ends within the filter's reach of the whole
            np.testing.assert_allclose(clip.waveform.numpy(), expected, atol=1e-4)
    assert dataset[-1].index == 2 and dataset[np.int64(1)].index == 1
    for index in (3, -4):
        with pytest.raises(IndexError, match=str(index)):
            dataset[index]


def test_targets_and_names_serve_samplers(files):
    dataset = clips(files)
    assert dataset.names == ["clip a.wav", "clip b.flac", "clip c.mp3"]
    for bounds in ((0, None), (1, 3), (-2, None), (2, 99), (3, 3)):
        targets = dataset.targets(*bounds)
        assert targets.dtype == np.uint8
        np.testing.assert_array_equal(targets, np.eye(3)[slice(*bounds)])
    dataset.targets()[:] = 9
    assert dataset.targets().max() == 1


def test_lengths_come_from_headers(files, monkeypatch):
    dataset = clips(files, clip_seconds=None)
    whole = [len(clip.waveform) for clip in dataset]
    monkeypatch.setattr(audio, "decode", None)
    assert dataset.lengths().tolist() == whole == [32000, 64000, 96000]
    assert clips(files, sample_rate=16000).lengths().tolist() == [16000, 32000, 48000]


@pytest.mark.parametrize("cached", [False, True])
def test_random_crops_follow_the_torch_seed_cached_or_not(files, tmp_path, cached):
    options = {"clip_seconds": 1.0, "random_crop": True}
    dataset = clips(files, **options, cache_dir=tmp_path / "cache" if cached else None)
    torch.manual_seed(3)
    crops = torch.stack([dataset[2].waveform for _ in range(10)])
    assert len(crops.unique(dim=0)) == 10
    torch.manual_seed(3)
    assert torch.equal(torch.stack([clips(files, **options)[2].waveform for _ in range(10)]), crops)


@pytest.mark.parametrize("cached", [False, True])
def test_segments(files, tmp_path, cached):
    bounds = np.sort(np.random.default_rng(0).uniform(0, 2, (60, 2)).round(6)).tolist()
    dataset = Recordings(
        [files[1]] * 60, np.ones((60, 1)), list(map(str, range(60))), segments=list(map(tuple, bounds)), clip_seconds=None,
        cache_dir=tmp_path / "cache" if cached else None,
    )  # fmt: skip
    lengths = dataset.lengths()
    for clip, length, (start, end) in zip(dataset, lengths, bounds, strict=True):
        assert length - 2 <= len(clip.waveform) <= length == max(1, round(32000 * (end - start)))
        np.testing.assert_array_equal(clip.waveform, audio.load(files[1], 32000, start=start, end=end)[: len(clip.waveform)])
    with pytest.raises(UserError, match="1 segments"):
        Recordings(files, np.eye(3), list("abc"), segments=[None])


def test_bad_files_are_named(files, tmp_path):
    files[1].write_bytes(b"no sound at all")
    dataset = clips(files, cache_dir=tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(AudioError) as caught:
            dataset[1]
        for part in ("clip b.flac", "clip 1", str(files[1])):
            assert part in str(caught.value)
    assert not cached_files(tmp_path / "cache")
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match="a.wav"):
        dataset[0]


def test_missing_files_are_counted_before_training(files, tmp_path):
    missing = [tmp_path / f"missing{i}.wav" for i in range(5)]
    with pytest.raises(FileNotFoundError, match=r"5 of 8 recordings are missing: \S*missing0.wav, \S*missing1.wav, .*\.\.\.;"):
        clips([*files, *missing])


def test_contradictions_are_refused(files):
    for targets, names, options in (
        (np.eye(2), "abc", {}),
        (np.ones(3), "abc", {}),
        (np.eye(3), "ab", {}),
        (0.5 * np.eye(3), "abc", {}),
        (np.eye(3), "abc", {"clip_seconds": 0}),
        (np.eye(3), "abc", {"clip_seconds": None, "random_crop": True}),
    ):
        with pytest.raises(ValueError):
            Recordings(files, targets, list(names), **options)
    with pytest.raises(ValueError):
        Recordings([], np.zeros((0, 3)), [])


# The cache


def test_the_cache_gives_what_decoding_gives_without_decoding(tmp_path, monkeypatch):
    paths = [*BUNDLED]
    plain = [clip.waveform for clip in clips(paths, clip_seconds=None)]
    decoded = decodings(monkeypatch)
    for _ in range(3):
        for clip, expected in zip(clips(paths, clip_seconds=None, cache_dir=tmp_path), plain, strict=True):
            assert torch.equal(clip.waveform, expected)
    assert decoded == [path.name for path in BUNDLED]
    stored = [np.load(path) for path in cached_files(tmp_path)]  # ordinary .npy files
    assert sorted(map(len, stored)) == sorted(map(len, plain)) and {array.dtype for array in stored} == {np.dtype(np.float32)}


def test_what_is_yielded_can_be_changed(files, tmp_path):
    dataset = clips(files, clip_seconds=None, cache_dir=tmp_path / "cache")
    expected = dataset[0].waveform.clone()
    dataset[0].waveform.zero_()
    assert torch.equal(dataset[0].waveform, expected)


def test_a_changed_file_rate_or_version_is_decoded_again(files, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    options = {"clip_seconds": None, "cache_dir": cache}
    before = clips(files, **options)[0].waveform
    status = files[0].stat()
    soundfile.write(files[0], noise(9), 32000)  # as many bytes, other samples
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = clips(files, **options)[0].waveform
    assert not torch.equal(after, before)
    np.testing.assert_allclose(after, noise(9), atol=1e-4)

    assert len(clips(files, sample_rate=16000, **options)[0].waveform) == 16000
    assert torch.equal(clips(files, **options)[0].waveform, after)

    soundfile.write(files[0], noise(10, 0.5), 32000)  # other size, same time
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len(clips(files, **options)[0].waveform) == 16000

    decoded = decodings(monkeypatch)
    clips(files, **options)[0]
    assert decoded == []
    monkeypatch.setattr(recordings, "_CACHE_VERSION", recordings._CACHE_VERSION + 1)
    clips(files, **options)[0]
    assert decoded == ["a.wav"]


def test_files_of_one_name_size_and_time_are_distinguished(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", noise(ord(folder)), 32000)
        os.utime(tmp_path / folder / "a.wav", (1, 1))
    waveforms = [clips([tmp_path / folder / "a.wav"], cache_dir=tmp_path / "cache")[0].waveform for folder in ("x", "y")]
    assert not torch.equal(*waveforms)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-4],
        lambda content: content[:-2],
        lambda content: content + b"\0" * 4,
        lambda content: b"text instead of samples" * 100,
        lambda content: b"PK\3\4" + content,
        lambda content: content.replace(b"<f4", b"<i4"),
        lambda content: content.replace(b"'shape': (32000,)", b"'shape': (16000,)"),
        lambda content: bytes(len(content)),
    ],
)
def test_damaged_cache_files_are_written_again(files, tmp_path, monkeypatch, damage):
    dataset = clips(files, clip_seconds=None, cache_dir=tmp_path / "cache")
    expected = dataset[0].waveform
    (cached,) = cached_files(tmp_path / "cache")
    whole = cached.read_bytes()
    cached.write_bytes(damage(whole))
    decoded = decodings(monkeypatch)
    assert torch.equal(dataset[0].waveform, expected) and torch.equal(dataset[0].waveform, expected)
    assert decoded == ["a.wav"] and cached.read_bytes() == whole


def test_a_full_disk_is_logged_once_and_training_continues(files, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    dataset = clips(files, cache_dir=tmp_path / "cache")
    dataset[0]
    monkeypatch.setattr(recordings.os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [clip.index for clip in dataset] == [0, 1, 2]
    (record,) = caplog.records
    assert "No space left" in record.getMessage() and "\n" not in record.getMessage()
    assert len(cached_files(tmp_path / "cache")) == 1  # what was there before is still used
    assert [clip.index for clip in pickle.loads(pickle.dumps(dataset))] == [0, 1, 2]
    assert [clip.index for clip in copy.deepcopy(dataset)] == [0, 1, 2]
    assert len(caplog.records) == 1


def test_a_failed_write_of_one_worker_stops_writing_in_all(files, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    dataset = clips(files, cache_dir=tmp_path / "cache")
    for _ in DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork"):
        pass
    assert dataset._cache._broken  # set by the worker, known to the parent and so to the workers of the next epoch


def test_a_folder_that_cannot_be_made_is_logged_once(files, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    dataset = clips(files, cache_dir=tmp_path / "cache")
    assert [clip.index for clip in dataset] == [0, 1, 2]
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


@pytest.mark.parametrize("pickled", [False, True])  # as workers that are spawned get it
def test_loader_workers_give_the_same_clips(files, tmp_path, pickled):
    dataset = clips(files, clip_seconds=0.5, cache_dir=tmp_path / "cache")
    dataset = pickle.loads(pickle.dumps(dataset)) if pickled else dataset
    (batch,) = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(batch.waveform, torch.stack([clip.waveform for clip in clips(files, clip_seconds=0.5)]))
    assert list(batch.name) == dataset.names and batch.index.tolist() == [0, 1, 2]
    assert len(cached_files(tmp_path / "cache")) == 3


def test_cached_crops_read_only_what_they_need(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(0, 20.0), 32000)
    waveform = WaveformCache(tmp_path / "cache", 32000)
    waveform.load(tmp_path / "long.wav", "long")
    assert isinstance(waveform.load(tmp_path / "long.wav", "long"), np.memmap)
