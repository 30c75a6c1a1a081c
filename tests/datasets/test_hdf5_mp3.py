"""datasets.hdf5_mp3: round trips with real mp3s, damage, interruption, workers."""

import io
import logging
import multiprocessing
import os
import pickle
import signal

import h5py
import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from datasets import hdf5_mp3
from datasets.audio import AudioError, decode, encode_mp3
from datasets.hdf5_mp3 import Hdf5Error, Mp3Dataset, Mp3Writer

K = 20
FORK = multiprocessing.get_context("fork")


def tone(frequency: float, seconds: float = 1.0, rate: int = 32000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def one_hot(*classes: int) -> np.ndarray:
    target = np.zeros(K, np.uint8)
    target[list(classes)] = 1
    return target


def peak_frequency(waveform: torch.Tensor) -> float:
    return float(torch.fft.rfft(waveform).abs().argmax()) * 32000 / len(waveform)


STEREO_44K = io.BytesIO()
soundfile.write(STEREO_44K, np.stack([tone(880, rate=44100), tone(880, rate=44100) * 0], axis=1), 44100, format="MP3")


@pytest.fixture
def files(tmp_path):
    """Two files: [500 Hz, 700 Hz] and [880 Hz in stereo at 44.1 kHz]."""
    with Mp3Writer(tmp_path / "a.hdf", K) as writer:
        writer.add("Ya.mp3", encode_mp3(tone(500), 32000), one_hot(0, 9, 19))
        writer.add("Yb.mp3", encode_mp3(tone(700, 3.0), 32000), one_hot(1))
    with Mp3Writer(tmp_path / "b.hdf", K) as writer:
        writer.add("Yc.mp3", STEREO_44K.getvalue(), one_hot())
    return [tmp_path / "a.hdf", tmp_path / "b.hdf"]


def test_layout_on_disk_is_the_reference_one(files):
    with h5py.File(files[0]) as file:
        assert set(file) == {"audio_name", "mp3", "target"}
        assert file["audio_name"].dtype == "S20" and list(file["audio_name"]) == [b"Ya.mp3", b"Yb.mp3"]
        assert h5py.check_vlen_dtype(file["mp3"].dtype) == np.uint8
        assert decode(file["mp3"][0].tobytes())[1] == 32000
        assert file["target"].dtype == np.uint8
        # classes 0, 9, 19 of 20, highest bit first: 10000000 01000000 0001(0000)
        assert file["target"][0].tolist() == [0b10000000, 0b01000000, 0b00010000]


def test_round_trip_over_several_files(files):
    dataset = Mp3Dataset(files, num_classes=K, clip_seconds=2.0)
    assert len(dataset) == 3
    assert dataset.names == ["Ya.mp3", "Yb.mp3", "Yc.mp3"]
    for index, frequency, target in ((0, 500, one_hot(0, 9, 19)), (1, 700, one_hot(1)), (2, 880, one_hot())):
        clip = dataset[index]
        assert (clip.name, clip.index) == (dataset.names[index], index)
        assert clip.waveform.dtype == clip.target.dtype == torch.float32
        assert clip.waveform.shape == (64000,)
        assert peak_frequency(clip.waveform) == pytest.approx(frequency, abs=1)
        assert clip.target.tolist() == target.tolist()
    assert dataset[0].waveform[32100:].abs().max() == 0  # padded at the end
    # one silent channel of two halves the amplitude
    assert dataset[2].waveform[2000:30000].abs().max() == pytest.approx(0.25, abs=0.02)


def test_a_file_of_another_writer_is_read(tmp_path):
    with h5py.File(tmp_path / "other.hdf", "w") as file:  # as PaSST's preparation writes it: no attributes, no chunks
        file.create_dataset("audio_name", data=np.array([b"Yx.mp3"], "S20"))
        file.create_dataset("mp3", (1,), h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(STEREO_44K.getvalue(), np.uint8)
        file.create_dataset("target", data=np.packbits(one_hot(7))[None])
    clip = Mp3Dataset(tmp_path / "other.hdf", num_classes=K)[0]
    assert clip.name == "Yx.mp3" and clip.waveform.shape == (320000,) and clip.target.tolist() == one_hot(7).tolist()


def test_indices_behave_like_a_list(files):
    dataset = Mp3Dataset(files, num_classes=K)
    assert dataset[-1].name == "Yc.mp3" and dataset[-1].index == 2
    assert dataset[np.int64(1)].name == dataset[torch.tensor(1)].name == "Yb.mp3"
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]
    assert [clip.name for clip in dataset] == dataset.names


def test_lengths_crops_and_rates(files):
    whole = Mp3Dataset(files, num_classes=K, clip_seconds=None)
    assert [len(clip.waveform) for clip in whole] == [32000, 96000, pytest.approx(32000, abs=2)]
    assert len(Mp3Dataset(files, num_classes=K, sample_rate=16000, clip_seconds=1.5)[0].waveform) == 24000
    head = Mp3Dataset(files, num_classes=K, clip_seconds=1.0)
    torch.testing.assert_close(head[1].waveform, whole[1].waveform[:32000], atol=1e-4, rtol=0)


def test_random_crops_follow_the_torch_seed(tmp_path):
    ramp = np.linspace(0, 0.9, 96000, dtype=np.float32) * tone(1000, 3.0)
    with Mp3Writer(tmp_path / "ramp.hdf", K) as writer:
        writer.add("ramp", encode_mp3(ramp, 32000), one_hot())
    dataset = Mp3Dataset(tmp_path / "ramp.hdf", num_classes=K, clip_seconds=1.0, random_crop=True)
    torch.manual_seed(3)
    crops = [dataset[0].waveform for _ in range(30)]
    torch.manual_seed(3)
    assert torch.equal(dataset[0].waveform, crops[0])
    levels = [float(crop.abs().max()) for crop in crops]  # 0.15 for the first second, 0.45 for the last
    assert min(levels) < 0.25 and max(levels) > 0.35
    assert {len(crop) for crop in crops} == {32000}


@pytest.mark.parametrize("bounds", [(0, None), (0, 3), (1, 3), (2, 3), (1, 2), (0, 1), (-2, None), (2, 99), (3, 3)])
def test_targets_of_a_range(files, bounds):
    everything = np.stack([one_hot(0, 9, 19), one_hot(1), one_hot()])
    targets = Mp3Dataset(files, num_classes=K).targets(*bounds)
    assert targets.dtype == np.uint8
    np.testing.assert_array_equal(targets, everything[slice(*bounds)])


@pytest.mark.parametrize("pickled", [False, True])  # as workers that are spawned get it
def test_loader_workers_give_the_same_clips(files, pickled):
    dataset = Mp3Dataset(files * 4, num_classes=K, clip_seconds=0.5)
    expected = [dataset[index] for index in range(12)]  # the parent has its files open when the workers start
    dataset = pickle.loads(pickle.dumps(dataset)) if pickled else dataset
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert torch.equal(torch.cat([batch.waveform for batch in batches]), torch.stack([c.waveform for c in expected]))
    assert torch.equal(torch.cat([batch.target for batch in batches]), torch.stack([c.target for c in expected]))
    assert [name for batch in batches for name in batch.name] == [c.name for c in expected]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(12))
    assert torch.equal(dataset[0].waveform, expected[0].waveform)


def test_a_corrupt_entry_is_named(tmp_path, files):
    with Mp3Writer(tmp_path / "c.hdf", K) as writer:
        writer.add("Ygood.mp3", encode_mp3(tone(500), 32000), one_hot())
        writer.add("Ybad.mp3", b"not an mp3 at all" * 100, one_hot())
    dataset = Mp3Dataset([files[0], tmp_path / "c.hdf"], num_classes=K)
    assert dataset[2].name == "Ygood.mp3"
    with pytest.raises(AudioError) as caught:
        dataset[3]
    for part in ("c.hdf", "3", "Ybad.mp3"):
        assert part in str(caught.value)


def test_unusable_files_are_refused_when_opened(tmp_path, files):
    with pytest.raises(FileNotFoundError, match="nowhere.hdf"):
        Mp3Dataset([files[0], tmp_path / "nowhere.hdf"], num_classes=K)
    with pytest.raises(FileNotFoundError):
        Mp3Dataset(tmp_path, num_classes=K)
    (tmp_path / "text.hdf").write_text("not HDF5 " * 100)
    (tmp_path / "cut.hdf").write_bytes(files[0].read_bytes()[:2000])
    with h5py.File(tmp_path / "keys.hdf", "w") as file:
        file["audio_name"] = np.array([b"a"], "S20")
    with h5py.File(tmp_path / "uneven.hdf", "w") as file:
        file["audio_name"] = np.array([b"a", b"b"], "S20")
        file.create_dataset("mp3", (1,), h5py.vlen_dtype(np.uint8))
        file["target"] = np.zeros((2, 3), np.uint8)
    with h5py.File(tmp_path / "types.hdf", "w") as file:
        file["audio_name"] = np.array([b"a"], "S20")
        file["mp3"] = np.zeros(1)
        file["target"] = np.zeros((1, 3), np.uint8)
    for name in ("text.hdf", "cut.hdf", "keys.hdf", "uneven.hdf", "types.hdf"):
        with pytest.raises(Hdf5Error, match=name):
            Mp3Dataset(tmp_path / name, num_classes=K)
    for num_classes in (200, 8, 21):  # 21 also needs 3 bytes; the file states that it has 20
        with pytest.raises(Hdf5Error, match=str(num_classes)):
            Mp3Dataset(files, num_classes=num_classes)


def test_contradictory_options_are_refused(files):
    for options in ({"clip_seconds": None, "random_crop": True}, {"clip_seconds": 0}, {"clip_seconds": -1.0}):
        with pytest.raises(ValueError):
            Mp3Dataset(files, num_classes=K, **options)
    with pytest.raises(ValueError):
        Mp3Dataset([], num_classes=K)


def test_writer_refuses_what_does_not_fit(tmp_path):
    with Mp3Writer(tmp_path / "a.hdf", K) as writer:
        writer.add("exactly20bytes-of-it", b"x", one_hot())
        for name, mp3, target in (
            ("one-and-twenty-bytes-", b"x", one_hot()),
            ("ten-umlauts-" + "ä" * 5, b"x", one_hot()),
            ("", b"x", one_hot()),
            ("exactly20bytes-of-it", b"x", one_hot()),
            ("empty", b"", one_hot()),
            ("short", b"x", one_hot()[:-1]),
            ("soft", b"x", one_hot() + 0.5),
        ):
            with pytest.raises(Hdf5Error):
                writer.add(name, mp3, target)
        assert list(writer.names) == ["exactly20bytes-of-it"]
        writer.add("tensor", b"x", torch.from_numpy(one_hot(3)).float())
    assert Mp3Dataset(tmp_path / "a.hdf", num_classes=K).targets(1).tolist() == [one_hot(3).tolist()]
    with pytest.raises(FileExistsError), Mp3Writer(tmp_path / "a.hdf", K):
        pass


@pytest.mark.parametrize("commit_entries", [1, 4, 256])
def test_an_interrupted_writer_leaves_no_file_and_resumes(tmp_path, monkeypatch, commit_entries):
    monkeypatch.setattr(hdf5_mp3, "_COMMIT_ENTRIES", commit_entries)
    path = tmp_path / "new_folder" / "a.hdf"
    with pytest.raises(KeyboardInterrupt), Mp3Writer(path, K) as writer:
        for i in range(6):
            writer.add(f"clip{i}", bytes([i + 1]) * 100, one_hot(i))
        raise KeyboardInterrupt
    assert [p.name for p in path.parent.iterdir()] == ["a.hdf.part"]
    with pytest.raises(Hdf5Error, match="20"), Mp3Writer(path, 40):
        pass
    with Mp3Writer(path, K) as writer:
        assert list(writer.names) == [f"clip{i}" for i in range(6)]
        with pytest.raises(Hdf5Error):
            writer.add("clip5", b"x", one_hot())
        writer.add("clip6", bytes([7]) * 100, one_hot(6))
    assert [p.name for p in path.parent.iterdir()] == ["a.hdf"]
    with h5py.File(path) as file:
        assert [mp3.tobytes() for mp3 in file["mp3"]] == [bytes([i + 1]) * 100 for i in range(7)]
        assert set(file.attrs) == {"num_classes"}
    np.testing.assert_array_equal(Mp3Dataset(path, num_classes=K).targets(), np.eye(K, dtype=np.uint8)[:7])


def test_an_interrupted_commit_is_repeated(tmp_path, monkeypatch):
    path = tmp_path / "a.hdf"
    stack, calls = np.stack, []

    def break_once(arrays):
        if not calls:
            calls.append(1)
            raise KeyboardInterrupt  # after names and mp3s were written, before the targets
        return stack(arrays)

    monkeypatch.setattr(hdf5_mp3, "_COMMIT_ENTRIES", 2)
    monkeypatch.setattr(hdf5_mp3.np, "stack", break_once)
    with pytest.raises(KeyboardInterrupt), Mp3Writer(path, K) as writer:
        writer.add("a", b"a", one_hot(1))
        writer.add("b", b"b", one_hot(2))
    with Mp3Writer(path, K) as writer:
        assert list(writer.names) == ["a", "b"]
    np.testing.assert_array_equal(Mp3Dataset(path, num_classes=K).targets(), np.eye(K, dtype=np.uint8)[1:3])


def test_a_failed_writer_without_entries_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Mp3Writer(tmp_path / "a.hdf", K):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def write_and_wait(path, ready, done):
    with Mp3Writer(path, K) as writer:
        writer.add("a", b"x", one_hot())
        ready.set()
        done.wait(20)


def test_two_writers_do_not_share_a_file(tmp_path):
    ready, done = FORK.Event(), FORK.Event()
    other = FORK.Process(target=write_and_wait, args=(tmp_path / "a.hdf", ready, done), daemon=True)
    other.start()
    assert ready.wait(20)
    with pytest.raises(Hdf5Error, match="a.hdf.part"), Mp3Writer(tmp_path / "a.hdf", K):
        pass
    done.set()
    other.join(20)
    assert Mp3Dataset(tmp_path / "a.hdf", num_classes=K).names == ["a"]


def write_and_die(path, within_a_commit):
    hdf5_mp3._COMMIT_ENTRIES = 4
    set_writing, marks = Mp3Writer._set_writing, []

    def count_marks(writer, writing):
        marks.append(writing)
        if marks == [False, True, False, True, False]:  # created, first commit, second commit all but finished
            os.kill(os.getpid(), signal.SIGKILL)
        set_writing(writer, writing)

    if within_a_commit:
        Mp3Writer._set_writing = count_marks
    with Mp3Writer(path, K) as writer:
        for i in range(10):
            writer.add(f"clip{i}", bytes([i + 1]) * 1000, one_hot(i))
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("within_a_commit", "kept"), [(False, 8), (True, 0)])
def test_a_killed_writer_resumes_or_restarts(tmp_path, caplog, within_a_commit, kept):
    path = tmp_path / "a.hdf"
    killed = FORK.Process(target=write_and_die, args=(path, within_a_commit), daemon=True)
    killed.start()
    killed.join(20)
    assert killed.exitcode == -signal.SIGKILL
    assert not path.exists()
    with caplog.at_level(logging.WARNING), Mp3Writer(path, K) as writer:
        assert list(writer.names) == [f"clip{i}" for i in range(kept)]
        assert bool(caplog.records) == (kept == 0)
        for i in range(kept, 10):
            writer.add(f"clip{i}", bytes([i + 1]) * 1000, one_hot(i))
    np.testing.assert_array_equal(Mp3Dataset(path, num_classes=K).targets(), np.eye(K, dtype=np.uint8)[:10])
    with h5py.File(path) as file:
        assert [mp3.tobytes() for mp3 in file["mp3"]] == [bytes([i + 1]) * 1000 for i in range(10)]


def test_a_damaged_part_is_restarted(tmp_path):
    (tmp_path / "a.hdf.part").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(3000))
    with Mp3Writer(tmp_path / "a.hdf", K) as writer:
        assert not writer.names
        writer.add("a", b"x", one_hot())
    assert Mp3Dataset(tmp_path / "a.hdf", num_classes=K).names == ["a"]


def test_a_full_disk_is_noticed_before_anything_is_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.hdf"
    monkeypatch.setattr(hdf5_mp3, "_COMMIT_ENTRIES", 2)
    usage = hdf5_mp3.shutil.disk_usage(tmp_path)
    with pytest.raises(OSError, match="space"), Mp3Writer(path, K) as writer:
        writer.add("a", b"x", one_hot())
        writer.add("b", b"x", one_hot())
        monkeypatch.setattr(hdf5_mp3.shutil, "disk_usage", lambda _: usage._replace(free=0))
        writer.add("c", b"x", one_hot())
        writer.add("d", b"x", one_hot())
    monkeypatch.setattr(hdf5_mp3.shutil, "disk_usage", lambda _: usage)
    with Mp3Writer(path, K) as writer:
        assert list(writer.names) == ["a", "b"]
