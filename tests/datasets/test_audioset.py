"""datasets.audioset: which files are found, and the sampling weights by hand."""

import logging

import numpy as np
import pytest
import torch

from datasets import audioset
from datasets.audio import encode_mp3
from datasets.hdf5_mp3 import Mp3Writer

NOISE = encode_mp3(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32), 32000)


def write(path, *classes_of_clips):
    with Mp3Writer(path, audioset.NUM_CLASSES) as writer:
        for i, classes in enumerate(classes_of_clips):
            target = np.zeros(audioset.NUM_CLASSES)
            target[list(classes)] = 1
            writer.add(f"{path.name[:4]}{i}.mp3", NOISE, target)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "balanced_train_segments_mp3.hdf", [0], [0, 1])
    write(tmp_path / "unbalanced_train_segmenets_mp3.hdf", [526], [0, 1, 526], [])
    write(tmp_path / "eval_segments_mp3.hdf", [7])
    return tmp_path


def test_sets_find_both_spellings(folder, caplog):
    with caplog.at_level(logging.WARNING):
        training = audioset.training_set(folder, clip_seconds=0.25)
    assert not caplog.records
    assert training.names == ["bala0.mp3", "bala1.mp3", "unba0.mp3", "unba1.mp3", "unba2.mp3"]
    assert training.random_crop and training[3].waveform.shape == (8000,)
    assert training[3].target.nonzero().flatten().tolist() == [0, 1, 526]
    evaluation = audioset.evaluation_set(folder)
    assert evaluation.names == ["eval0.mp3"] and not evaluation.random_crop
    assert evaluation[0].waveform.shape == (320000,)


def test_one_training_file_will_do_but_is_mentioned(folder, caplog):
    (folder / "unbalanced_train_segmenets_mp3.hdf").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(audioset.training_set(folder)) == 2
    assert "unbalanced_train" in caplog.text


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="balanced_train_segments_mp3.hdf"):
        audioset.training_set(tmp_path)
    with pytest.raises(FileNotFoundError, match="eval_segments_mp3.hdf"):
        audioset.evaluation_set(tmp_path)


# clips per class: 0 -> 3, 1 -> 2, 526 -> 2
WEIGHTS = [1000 / 103, 1000 / 103 + 1000 / 102, 1000 / 102, 1000 / 103 + 2000 / 102, 0]


@pytest.mark.parametrize("chunk", [1, 2, 16384])
def test_weights_follow_the_formula(folder, monkeypatch, chunk):
    monkeypatch.setattr(audioset, "_CHUNK", chunk)
    weights = audioset.class_balanced_weights(audioset.training_set(folder))
    assert weights.dtype == torch.float64
    torch.testing.assert_close(weights, torch.tensor(WEIGHTS, dtype=torch.float64))


def test_sampler_draws_without_replacement_by_weight(folder, caplog):
    dataset = audioset.training_set(folder)
    with caplog.at_level(logging.WARNING):
        assert set(audioset.balanced_sampler(dataset, 4)) == {0, 1, 2, 3}
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        sampler = audioset.balanced_sampler(dataset, 1000)
    assert "1000" in caplog.text and "4" in caplog.text
    assert len(sampler) == 4 and sorted(sampler) == [0, 1, 2, 3]  # the clip without labels is never drawn

    one = audioset.balanced_sampler(dataset, 1, torch.Generator().manual_seed(0))
    drawn = np.bincount([next(iter(one)) for _ in range(3000)], minlength=5) / 3000
    np.testing.assert_allclose(drawn, np.array(WEIGHTS) / sum(WEIGHTS), atol=0.03)
