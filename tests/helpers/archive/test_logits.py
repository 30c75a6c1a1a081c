"""helpers.archive.logits and helpers.archive.packing: the files are those of the commands that need no engine."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datasets.audio import encode_mp3
from datasets.hdf5_mp3 import Mp3Writer, read_entries
from datasets.prepare import audioset
from datasets.prepare.conversion import Source
from datasets.shards.stored import Stored
from helpers.archive import logits, ordered, packing
from helpers.archive import pool as pool_module
from helpers.archive.attempts import Attempts
from helpers.archive.engine import TaskKey, Work, Written
from helpers.archive.output import Output
from helpers.archive.parcels import Address
from helpers.archive.plan import Plan
from helpers.archive.pool import DecodeStep, NetworkStep, WriteStep, to_row, unpacked
from helpers.distillation import __main__ as distillation
from models import checkpoints
from models.MobileNetV3 import get_model


class LocalPool:
    """What Ray's workers do, one task after the other; interrupts itself after some tasks."""

    decoders = 1
    interrupt_after: int | None = None
    tasks = 0  # that were done

    def written(self, work: Work, plan: Plan, output: Output, tasks: Sequence[TaskKey]) -> Iterator[Written]:
        os.chdir("/")  # workers of a cluster have another working directory
        work = pickle.loads(pickle.dumps(work))
        attempts = Attempts()
        decoder, network = DecodeStep(work, plan, output, attempts), NetworkStep(work, 1, attempts)
        for task in tasks:
            if LocalPool.tasks == LocalPool.interrupt_after:
                raise KeyboardInterrupt
            for computed in (computed for decoded in decoder(to_row(task)) for computed in network(decoded)):
                yield from (written for row in WriteStep(output)(computed) for written, _ in unpacked(row))
            LocalPool.tasks += 1

    def compact(self, output: Output, shard: int) -> None:
        output.compact(shard)

    def finish(self) -> None: ...


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> type[LocalPool]:
    @contextmanager
    def started(_: object) -> Iterator[LocalPool]:
        yield LocalPool()

    monkeypatch.setattr(ordered, "started", started)
    monkeypatch.setattr(ordered, "SHARD_TASKS", 2)
    monkeypatch.chdir(Path.cwd())  # and back
    monkeypatch.setattr(LocalPool, "interrupt_after", None)
    monkeypatch.setattr(LocalPool, "tasks", 0)
    return LocalPool


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Teacher logits


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of several lengths, one that cannot be decoded."""
    path = tmp_path_factory.mktemp("clips") / "clips.hdf"
    rng = np.random.default_rng(0)
    with Mp3Writer(path, 527) as writer:
        for number, seconds in enumerate([1.0, 0.3, 2.5, 1.0, 3.0, 0.7, 1.2]):
            sound = (0.5**number * rng.standard_normal(round(32000 * seconds)).cumsum() / 200).astype(np.float32)
            writer.add(f"c{number}", encode_mp3(sound, 32000) if number != 3 else b"no mp3", np.zeros(527))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "random.pt"
    checkpoints.save(path, get_model(width_mult=0.1).eval())
    return path


def arguments(model: Path, clips: Path, output: Path, *more: object) -> list[str]:
    fixed = ["--clip_seconds", 1, "--batch_size", 2, "--num_workers", 0]
    return list(map(str, ["--models", model, "--hdf", clips, "--output", output, *fixed, *more]))


@pytest.fixture(scope="module")
def serial(model: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the command without the engine writes."""
    folder = tmp_path_factory.mktemp("serial")
    assert distillation.main(arguments(model, clips, folder / "teacher.npy")) == 0
    return contents(folder)


def test_logits_are_those_of_the_serial_command(model, clips, serial, tmp_path, capsys, caplog) -> None:
    folder = tmp_path / "out"
    assert logits.main(arguments(model, clips, folder / "teacher.npy")) == 0
    assert contents(folder) == serial
    assert "6 rows of 527" in (out := capsys.readouterr().out) and "1 clips that cannot be decoded" in out
    assert any("c3" in message for message in caplog.messages)


def test_interrupted_logits_resume(model, clips, serial, tmp_path, pool) -> None:
    folder = tmp_path / "out"
    pool.interrupt_after = 3
    with pytest.raises(KeyboardInterrupt):
        logits.main(arguments(model, clips, folder / "teacher.npy"))
    assert not (folder / "teacher.npy").exists()
    pool.interrupt_after = None
    assert logits.main(arguments(model, clips, folder / "teacher.npy")) == 0
    assert contents(folder) == serial and pool.tasks == 4  # 7 clips in twos: none was computed twice


def test_other_settings_and_other_clips_do_not_resume(model, clips, serial, tmp_path, pool, failing_message) -> None:
    copy = tmp_path / "clips.hdf"
    shutil.copy(clips, copy)
    output = tmp_path / "out" / "teacher.npy"
    pool.interrupt_after = 1
    with pytest.raises(KeyboardInterrupt):
        logits.main(arguments(model, copy, output))
    pool.interrupt_after = None
    message = failing_message(logits.main, *arguments(model, copy, output, "--clip_seconds", 2))
    assert "other settings (clip_seconds)" in message
    copy.write_bytes(clips.read_bytes().replace(b"c6", b"d6"))
    assert "other clips" in failing_message(logits.main, *arguments(model, copy, output))
    assert not output.exists()


def test_logits_of_frames_are_refused(model, clips, tmp_path, failing_message) -> None:
    assert "python -m helpers.distillation --frames" in failing_message(
        logits.main, *arguments(model, clips, tmp_path / "teacher.hdf5", "--frames")
    )


def test_what_is_computed_does_not_outlive_its_settings(model, clips, serial, tmp_path, pool) -> None:
    output = tmp_path / "out" / "teacher.npy"
    pool.interrupt_after = 1
    with pytest.raises(KeyboardInterrupt):
        logits.main(arguments(model, clips, output, "--clip_seconds", 2))
    for part in output.parent.glob("*.part"):
        part.unlink()
    pool.interrupt_after = None
    assert logits.main(arguments(model, clips, output)) == 0
    assert contents(output.parent) == serial


# Packing


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list and recordings of it: good ones of several formats, two copies of one, a damaged, a missing, and an unreadable one."""
    folder = tmp_path_factory.mktemp("downloads")
    names = [f"{letter * 11}" for letter in "abcdefg"]
    (folder / "list.csv").write_text("".join(f'{name}, 0.000, 10.000, "/m/09x0r"\n' for name in names))
    (folder / "audio").mkdir()
    for number, name in enumerate(names[:4]):
        sound = 0.5 * np.sin(np.arange(16000) * 0.02 * (number + 1)).astype(np.float32)
        if number < 2:
            (folder / "audio" / f"{name}.mp3").write_bytes(encode_mp3(sound, 32000))
        if number > 0:
            soundfile.write(folder / "audio" / f"{name}.wav", sound[: 4000 * (number + 1)], 16000)
    damaged = encode_mp3(np.sin(np.arange(32000)).astype(np.float32), 32000)
    (folder / "audio" / f"{names[4]}.mp3").write_bytes(damaged[: len(damaged) // 2])
    (folder / "audio" / f"{names[5]}.mp3").write_bytes(b"no mp3" * 100)
    return folder


def packing_arguments(downloads: Path, output: Path) -> list[str]:
    return list(map(str, ["--csv", downloads / "list.csv", "--audio_dir", downloads / "audio", "--output", output]))


@pytest.fixture(scope="module")
def packed(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("packed")
    assert audioset.main(packing_arguments(downloads, folder / "eval.hdf")) == 0
    return contents(folder)


def test_packing_gives_the_bytes_of_the_serial_command(downloads, packed, tmp_path, capsys) -> None:
    assert packing.main(packing_arguments(downloads, tmp_path / "out" / "eval.hdf")) == 0
    assert contents(tmp_path / "out") == packed
    assert "5 of 7 clips (5 written now, 0 in an earlier run); 1 missing, 1 unreadable, 1 damaged, 1 duplicate" in (
        capsys.readouterr().out
    )


def test_interrupted_packing_resumes(downloads, packed, tmp_path, monkeypatch, pool) -> None:
    monkeypatch.setattr(packing, "TASK_RECORDINGS", 2)
    output = tmp_path / "out" / "eval.hdf"
    pool.interrupt_after = 2
    with pytest.raises(KeyboardInterrupt):
        packing.main(packing_arguments(downloads, output))
    pool.interrupt_after = None
    add = Mp3Writer.add

    def interrupt(self, name, *values):
        if name.startswith("Yddd"):
            raise KeyboardInterrupt
        add(self, name, *values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # while the file is written
        patch.setattr(Mp3Writer, "add", interrupt)
        packing.main(packing_arguments(downloads, output))
    assert packing.main(packing_arguments(downloads, output)) == 0
    assert pool.tasks == 3
    resumed = contents(tmp_path / "out")
    assert set(resumed) == set(packed) and resumed["eval.hdf.report.tsv"] == packed["eval.hdf.report.tsv"]
    (tmp_path / "serial.hdf").write_bytes(packed["eval.hdf"])
    clips, expected = (list(read_entries(path, 527)) for path in (output, tmp_path / "serial.hdf"))
    assert [clip[:2] for clip in clips] == [clip[:2] for clip in expected]
    assert all(np.array_equal(clip[2], other[2]) for clip, other in zip(clips, expected, strict=True))


def test_paths_hold_in_another_working_directory(model, clips, downloads, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(clips.parent)
    name = os.path.relpath(model, clips.parent)
    assert logits.main(arguments(name, Path(clips.name), tmp_path / "teacher.npy")) == 0
    monkeypatch.chdir(downloads)
    assert packing.main(packing_arguments(Path(), tmp_path / "eval.hdf")) == 0


def test_recordings_that_end_their_worker_are_unreadable(downloads, packed, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pool_module, "ATTEMPTS", 0)
    monkeypatch.setattr(packing, "TASK_RECORDINGS", 4)
    attempts = iter([1, 0])
    monkeypatch.setattr(Attempts, "begin", lambda _, what: next(attempts) if isinstance(what, Address) else 1)
    assert packing.main(packing_arguments(downloads, tmp_path / "eval.hdf")) == 0
    assert "1 of 7 clips (1 written now, 0 in an earlier run); 1 missing, 5 unreadable" in capsys.readouterr().out


def test_sources_are_written_and_read() -> None:
    sources = (
        Source(Path("ä/b.mp3")),
        Source(Path("video.mp4"), (30.0, 40.0)),
        Source(Stored(Path("shard.tar"), 512, 10, 0, 10, 0, 10), (1.5, 2.0)),
    )
    assert packing.read_sources(packing.write_sources(sources)) == sources
