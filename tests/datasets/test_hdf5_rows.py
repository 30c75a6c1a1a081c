"""Damaged and hostile HDF5 files: every clip is right or an error that names the file, within seconds, and nothing else is read."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader

from datasets import hdf5_rows
from datasets.audio import AudioError, encode_mp3
from datasets.hdf5_mp3 import Hdf5Error, Mp3Dataset, Mp3Writer
from models.interrupts import kill_workers

K = 20
CLIPS = 6


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of six clips, some of which share a heap."""
    path = tmp_path_factory.mktemp("hdf5") / "whole.hdf"
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 8
    with Mp3Writer(path, K) as writer:
        for number in range(CLIPS):
            mp3 = encode_mp3(noise, 32000) if number < 4 else encode_mp3(noise[:400], 32000)
            writer.add(f"clip{number}", mp3, np.eye(K)[number])
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "a.hdf").write_bytes(content)
    return tmp_path / "a.hdf"


def outcome(path: Path) -> list[str]:
    """What reading all of a file gives: the name of each clip, or the error, which must name the file."""
    found = []
    try:
        dataset = Mp3Dataset(path, num_classes=K, clip_seconds=0.5)
        for index in range(len(dataset)):
            try:
                found.append(dataset[index].name)
            except AudioError as error:
                assert path.name in str(error)
                found.append("damaged")
        dataset.names, dataset.targets()
    except Hdf5Error as error:
        assert path.name in str(error)
        found.append("refused")
    return found


def heaps(content: bytes) -> list[int]:
    starts = [content.find(b"GCOL")]
    while starts[-1] >= 0:
        starts.append(content.find(b"GCOL", starts[-1] + 1))
    return starts[:-1]


def test_rows_are_those_that_libhdf5_reads(path: Path) -> None:
    dataset = Mp3Dataset(path, num_classes=K)
    with h5py.File(path) as file:
        assert dataset.names == [name.decode() for name in file["audio_name"]] == [f"clip{number}" for number in range(CLIPS)]
        for index in range(CLIPS):
            mp3, target, name, _ = dataset.read(index)
            assert (mp3, name) == (file["mp3"][index].tobytes(), f"clip{index}") and target.tolist() == np.eye(K)[index].tolist()


def test_other_layouts_of_the_same_rows_are_read(path: Path, tmp_path: Path) -> None:
    """Contiguous rows, chunks that cut rows, several chunks, names of variable length, gzip."""
    gzip = {"chunks": True, "compression": "gzip"}
    expected = Mp3Dataset(path, num_classes=K)
    options = {
        "contiguous": ({}, {}, {}),
        "cut": ({"chunks": (4,)}, {"chunks": (2,)}, {"chunks": (4, 2)}),
        "wide": ({}, {}, {"chunks": (4, 8), "maxshape": (None, None)}),
        "text": ({"dtype": h5py.string_dtype()}, {"chunks": True}, {"chunks": True}),
        "gzip": (gzip, gzip, gzip | {"chunks": (4, 2)}),
        "shuffled": (gzip | {"shuffle": True},) * 3,
        "compressed text": (gzip | {"dtype": h5py.string_dtype(), "shuffle": True}, gzip | {"chunks": (2,)}, gzip),
    }
    for name, of_each in options.items():
        with h5py.File(path) as source, h5py.File(tmp_path / f"{name}.hdf", "w") as file:
            for key, option in zip(("audio_name", "mp3", "target"), of_each, strict=True):
                data = file.create_dataset(key, source[key].shape, **{"dtype": source[key].dtype} | option)
                for row in range(CLIPS):
                    data[row] = source[key][row]
        dataset = Mp3Dataset(tmp_path / f"{name}.hdf", num_classes=K)
        assert dataset.names == expected.names and np.array_equal(dataset.targets(), expected.targets())
        assert Mp3Dataset([path, tmp_path / f"{name}.hdf"], num_classes=K).targets().shape == (2 * CLIPS, K)
        assert [dataset.read(index)[0] for index in range(CLIPS)] == [expected.read(index)[0] for index in range(CLIPS)]


def test_a_file_that_another_one_replaces_is_an_error(path: Path, content: bytes) -> None:
    """Its rows lie elsewhere."""
    dataset = Mp3Dataset(path, num_classes=K)
    assert dataset.read(0)[2] == "clip0"
    path.with_name("b.hdf").write_bytes(content)
    path.with_name("b.hdf").replace(path)
    with pytest.raises(AudioError, match=r"a\.hdf.*replaced"):
        dataset.read(0)
    with pytest.raises(Hdf5Error, match=r"a\.hdf.*replaced"):
        dataset.targets()


def test_reads_that_return_less_than_there_is_are_continued() -> None:
    """As those of more than 2 GiB, and of some network drives."""

    class Short(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            return super().read(min(size, 3))

    file = Short(b"0123456789")
    assert hdf5_rows._read(file, 1, 8) == b"12345678"
    assert hdf5_rows._read(file, 5, 8, short=True) == b"56789"
    with pytest.raises(ValueError, match="ends"):
        hdf5_rows._read(file, 5, 8)


def test_damaged_gzip_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        rows = file["target"][:]
        del file["target"]
        data = file.create_dataset("target", data=rows, compression="gzip")
        place = data.id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[place.byte_offset + place.size - 2] ^= 255  # of the checksum
    path.write_bytes(damaged)
    assert outcome(path) == ["refused"]


def test_compressed_rows_are_unpacked_up_to_a_size(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["audio_name"]
        file.create_dataset("audio_name", (CLIPS,), "S50000000", chunks=(1,), compression="gzip")[:] = b"x"
    assert outcome(path) == ["refused"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_heaps_in_which_libhdf5_loops_cost_a_clip_each(path: Path, num_workers: int) -> None:
    damaged = bytearray(path.read_bytes())
    starts = heaps(damaged)
    damaged[starts[0] + 16 : starts[0] + 32] = bytes(16)
    path.write_bytes(damaged)
    assert outcome(path)[0] == "damaged" and outcome(path)[-1] == f"clip{CLIPS - 1}"
    for start in starts:
        damaged[start + 16 : start + 32] = bytes(16)
    path.write_bytes(damaged)
    assert outcome(path) == ["damaged"] * CLIPS
    with pytest.raises(AudioError, match="clip0.*a.hdf"):
        list(
            DataLoader(
                Mp3Dataset(path, num_classes=K), num_workers=num_workers, multiprocessing_context="fork" if num_workers else None
            )
        )
    kill_workers()  # the loader that the error has left waits for them


def test_a_cut_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 50, 700, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert outcome(path) == ["refused"]
    dataset_path = path.with_name("b.hdf")
    dataset_path.write_bytes(whole)
    dataset = Mp3Dataset(dataset_path, num_classes=K)
    os.truncate(dataset_path, heaps(whole)[0] + 20)  # after it was opened
    with pytest.raises(AudioError, match=r"clip 0.*b\.hdf"):
        dataset[0]


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_is_an_error_or_harmless(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    damaged = np.frombuffer(path.read_bytes(), np.uint8).copy()
    structure = np.flatnonzero(damaged) if seed % 2 else np.arange(5000)  # the latter: tables of the file
    places = rng.choice(structure[structure < 12000], 20)
    damaged[places] = rng.integers(0, 256, len(places))
    path.write_bytes(damaged.tobytes())
    started = time.monotonic()
    outcome(path)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("kill", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_libhdf5_is_an_error(path: Path, kill: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_rows, "_describe", lambda *_: os.kill(os.getpid(), kill))
    assert outcome(path) == ["refused"]


def test_a_file_on_which_libhdf5_hangs_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_rows, "TIME_LIMIT_S", 1)
    monkeypatch.setattr(hdf5_rows, "_describe", lambda *_: time.sleep(60))
    with pytest.raises(TimeoutError, match="a.hdf.* 1 s"):
        Mp3Dataset(path, num_classes=K)


def link(file: h5py.File, secret: Path) -> None:
    del file["target"]
    file["target"] = h5py.ExternalLink(str(secret), "target")


def soft_link(file: h5py.File, secret: Path) -> None:
    file.move("target", "elsewhere")
    file["target"] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File, secret: Path) -> None:
    del file["target"]
    file.create_dataset("target", (CLIPS, 3), np.uint8, external=[(str(secret), 0, 3 * CLIPS)])


def virtual(file: h5py.File, secret: Path) -> None:
    del file["target"]
    layout = h5py.VirtualLayout((CLIPS, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "target", (CLIPS, 3))
    file.create_virtual_dataset("target", layout)


def compressed(file: h5py.File, secret: Path) -> None:
    rows = file["target"][:]
    del file["target"]
    file.create_dataset("target", data=rows, compression="lzf")


def never_written(file: h5py.File, secret: Path) -> None:
    del file["target"]
    file.create_dataset("target", (CLIPS, 3), np.uint8, chunks=(2, 3))[:2] = 1


@pytest.mark.parametrize("change", [link, soft_link, external_storage, virtual, compressed, never_written])
def test_data_in_other_places_are_refused(path: Path, change: object) -> None:
    secret = path.with_name("secret")
    with h5py.File(secret, "w") as file:
        file["target"] = np.full((CLIPS, 3), 255, np.uint8)
    with h5py.File(path, "r+") as file:
        change(file, secret)
    with pytest.raises(Hdf5Error, match="target") as caught:
        Mp3Dataset(path, num_classes=K)
    assert "\n" not in str(caught.value) and "a.hdf" in str(caught.value)


def test_a_damaged_part_does_not_crash_its_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = path.with_name("b.hdf.part")
    part.write_bytes(path.read_bytes())
    monkeypatch.setattr(hdf5_rows, "_describe", lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
    with Mp3Writer(path.with_name("b.hdf"), K) as writer:
        assert not writer.names
        writer.add("new", b"x", np.eye(K)[0])
    monkeypatch.undo()
    assert Mp3Dataset(path.with_name("b.hdf"), num_classes=K).names == ["new"]


def test_a_part_whose_reader_is_killed_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where memory is full: that says nothing about the file."""
    part = path.with_name("b.hdf.part")
    part.write_bytes(path.read_bytes())
    monkeypatch.setattr(hdf5_rows, "_describe", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match="b.hdf.part"), Mp3Writer(path.with_name("b.hdf"), K):
        pass
    assert part.read_bytes() == path.read_bytes()
