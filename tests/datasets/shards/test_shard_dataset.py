"""ShardDataset: the same clips as from HDF5, by an index that follows the files; and which shards AudioSet's parts are."""

import logging
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from datasets import audioset
from datasets.audio import encode_mp3
from datasets.audioset import NUM_CLASSES
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.prepare import audioset_shards
from datasets.prepare.audioset_shards import StoredClip, write_parquet, write_tar
from datasets.shards.clips import ShardError
from datasets.shards.dataset import ShardDataset
from models.errors import UserError

WRITE = {"parquet": write_parquet, "tar": write_tar}
KINDS = pytest.mark.parametrize("kind", ["parquet", "tar"])


def mp3(seconds: float = 0.5) -> bytes:
    return encode_mp3(np.random.default_rng(0).normal(0, 0.1, round(seconds * 32000)).astype(np.float32), 32000)


def clips(first: int, count: int, recording: bytes | None = None) -> list[StoredClip]:
    return [
        StoredClip(f"id{number:09d}", recording or mp3(0.3 + number / 20), ".mp3", (0, number))
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def hdf5_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hdf5")
    for part, first, count in (("balanced_train", 1, 3), ("unbalanced_train", 4, 5), ("eval", 9, 4)):
        with Mp3Writer(folder / f"{part}_segments_mp3.hdf", NUM_CLASSES) as writer:
            for clip in clips(first, count):
                writer.add(f"Y{clip.video_id}.mp3", clip.recording, np.isin(np.arange(NUM_CLASSES), clip.classes))
    return folder


@KINDS
def test_shards_hold_the_same_clips_as_hdf5(hdf5_folder, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(audioset_shards, "_SHARD_CLIPS", 2)
    assert audioset_shards.main(["--from", str(hdf5_folder), "--format", kind, "--output_dir", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "unbal_train").iterdir())) == 3
    for open_set in (audioset.training_set, audioset.evaluation_set):
        expected, found = (open_set(folder, clip_seconds=0.5, sample_rate=16000) for folder in (hdf5_folder, tmp_path / "out"))
        assert isinstance(expected, Mp3Dataset) and isinstance(found, ShardDataset)
        assert found.names == expected.names and found.random_crop == expected.random_crop
        np.testing.assert_array_equal(found.targets(), expected.targets())
        np.testing.assert_array_equal(found.targets(1, 3), expected.targets(1, 3))
        np.testing.assert_array_equal(found.lengths(), expected.lengths())
        for index in range(-1, len(expected)):
            torch.manual_seed(0)
            one = found[index]
            torch.manual_seed(0)
            other = expected[index]
            assert (one.name, one.index) == (other.name, other.index)
            assert torch.equal(one.waveform, other.waveform) and torch.equal(one.target, other.target)
        with pytest.raises(IndexError):
            found[len(found)]


@KINDS
def test_any_number_of_workers_reads_by_one_index(tmp_path, kind):
    WRITE[kind](tmp_path / f"eval.{kind}", clips(1, 6))
    dataset = audioset.evaluation_set(tmp_path, clip_seconds=0.5)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert [name for batch in loader for name in batch.name] == dataset.names
    assert len(pickle.dumps(dataset)) < 2000  # not the index
    assert pickle.loads(pickle.dumps(dataset))[5].name == dataset.names[5]


def test_the_index_is_built_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "eval" / "0.parquet"
    write_parquet(path, clips(1, 2))
    assert len(audioset.evaluation_set(tmp_path)) == 2
    with monkeypatch.context() as patch:
        patch.setattr("datasets.shards.dataset.read_shard", lambda path: pytest.fail("looked at the shards again"))
        assert len(audioset.evaluation_set(tmp_path)) == 2
    write_parquet(path, clips(1, 3))
    assert len(audioset.evaluation_set(tmp_path)) == 3
    for number in (5, 4):  # files of one size
        write_tar(tmp_path / "eval" / "1.tar", clips(number, 1, mp3()))
        assert audioset.evaluation_set(tmp_path).names[3:] == [f"Yid{number:09d}.mp3"]
    [index] = tmp_path.glob(".eval.*")  # the old ones are gone
    index.write_bytes(index.read_bytes()[:100])
    assert len(audioset.evaluation_set(tmp_path)) == 4


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch, caplog):
    write_tar(tmp_path / "eval.tar", clips(1, 2))

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("datasets.shards.dataset.write_atomically", refuse)
    with caplog.at_level(logging.WARNING):
        dataset = audioset.evaluation_set(tmp_path)
    assert "read-only" in caplog.text
    assert pickle.loads(pickle.dumps(dataset))[1].name == dataset.names[1]


@KINDS
def test_clips_that_cannot_be_used_are_left_out_aloud(tmp_path, kind, caplog):
    WRITE[kind](tmp_path / f"eval-0.{kind}", [*clips(2, 1), *clips(1, 1), *clips(7, 1, b"nothing of value" * 50)])
    WRITE[kind](tmp_path / f"eval-1.{kind}", clips(2, 2))  # the first one is in both
    with caplog.at_level(logging.WARNING):
        dataset = audioset.evaluation_set(tmp_path)
    assert dataset.names == [f"Yid{number:09d}.mp3" for number in (2, 1, 3)]
    assert "Yid000000007.mp3" in caplog.text and "1 repeated" in caplog.text


@pytest.mark.parametrize("part", ["eval", "hdf5"])
def test_a_damaged_recording_is_told_once_and_not_in_every_epoch(tmp_path, part, monkeypatch):
    whole = mp3(1.0)
    write_tar(tmp_path / "eval.tar", [*clips(1, 1), *clips(2, 1, whole[: len(whole) // 2])])
    log = logging.FileHandler(tmp_path / "log")  # to which workers write as well
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    dataset = audioset.evaluation_set(tmp_path, clip_seconds=1.0)
    if part == "hdf5":
        with Mp3Writer(tmp_path / "eval.hdf", NUM_CLASSES) as writer:
            for index in range(2):
                writer.add(dataset.names[index], dataset.read(index)[0], np.zeros(NUM_CLASSES))
        dataset = Mp3Dataset(tmp_path / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=1.0)
    for num_workers in (1, 1, 0, 0):  # epochs
        list(DataLoader(dataset, num_workers=num_workers, multiprocessing_context="fork" if num_workers else None))
    log.close()
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("Yid000000002.mp3, clip 1")


def test_nothing_usable_is_an_error_with_its_reason(tmp_path):
    write_parquet(tmp_path / "eval.parquet", clips(1, 2, b"nothing of value" * 50))
    with pytest.raises(UserError, match=r"no clip can be used.*Yid000000001\.mp3"):
        audioset.evaluation_set(tmp_path)
    pq.write_table(pa.table({"video_id": ["a"], "audio": [mp3()], "labels": [[0]]}), tmp_path / "eval.parquet")
    with pytest.raises(UserError, match="a has no labels"):
        audioset.evaluation_set(tmp_path)
    pq.write_table(pa.table({"video_id": ["a"], "audio": [mp3()], "labels": [[0]]})[:0], tmp_path / "eval.parquet")
    with pytest.raises(UserError, match="no clips"):
        audioset.evaluation_set(tmp_path)
    (tmp_path / "eval.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ShardError, match=r"eval\.parquet"):
        audioset.evaluation_set(tmp_path)


def test_a_shard_that_shrinks_later_names_the_clip(tmp_path):
    write_tar(tmp_path / "eval.tar", clips(1, 2))
    dataset = audioset.evaluation_set(tmp_path)
    (tmp_path / "eval.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"Yid000000002.*eval\.tar"):
        dataset[1]
    (tmp_path / "eval.tar").unlink()
    with pytest.raises(UserError, match=r"Yid000000002.*eval\.tar"):
        dataset[1]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("eval", "eval/00.parquet"),
        ("eval", "data/eval/00.parquet"),
        ("eval", "data/eval-00000-of-00012.parquet"),
        ("eval", "eval_segments.tar"),
        ("eval", "test-003.tar"),
        ("training", "bal_train/00.tar"),
        ("training", "data/unbal_train/000.parquet"),
        ("training", "balanced_train_segments_01.tar"),
        ("training", "train-00000-of-00012.parquet"),
        (None, "evaluation_of_something.parquet"),
        (None, "bal_training.tar"),
        (None, "eval.tar.gz"),
        (None, "eval/._00.parquet"),
        (None, "evaluation/00.parquet"),
    ],
)
def test_names_of_shards(tmp_path, part, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (write_parquet if name.endswith(".parquet") else write_tar)(tmp_path / name, clips(1, 1))
    for other, open_set in (("eval", audioset.evaluation_set), ("training", audioset.training_set)):
        if other == part:
            assert len(open_set(tmp_path)) == 1
        else:
            with pytest.raises(FileNotFoundError, match=name.split("/")[0]):  # it says what is there
                open_set(tmp_path)


def test_hdf5_comes_first_and_parts_of_two_kinds_are_refused(hdf5_folder, tmp_path):
    for path in hdf5_folder.iterdir():
        os.link(path, tmp_path / path.name)
    write_tar(tmp_path / "eval.tar", clips(1, 1))
    assert isinstance(audioset.evaluation_set(tmp_path), Mp3Dataset)
    (tmp_path / "unbalanced_train_segments_mp3.hdf").unlink()
    write_tar(tmp_path / "unbal_train" / "0.tar", clips(1, 1))
    with pytest.raises(UserError, match=r"balanced_train_segments_mp3\.hdf"):
        audioset.training_set(tmp_path)


def test_sampling_weights_are_the_same(hdf5_folder, tmp_path):
    audioset_shards.main(["--from", str(hdf5_folder), "--format", "tar", "--output_dir", str(tmp_path)])
    weights = [audioset.class_balanced_weights(audioset.training_set(folder)) for folder in (hdf5_folder, tmp_path)]
    torch.testing.assert_close(*weights)


def test_shards_are_not_written_over_others(hdf5_folder, tmp_path):
    command = ["--from", str(hdf5_folder), "--output_dir", str(tmp_path), "--format"]
    audioset_shards.main([*command, "tar"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.tar")}
    audioset_shards.main([*command, "tar"])
    with pytest.raises(FileExistsError):
        audioset_shards.main([*command, "parquet"])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
