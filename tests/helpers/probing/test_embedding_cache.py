"""Embeddings of data sets: what is kept, what is read, when it is computed again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datasets.recordings import Recordings
from helpers.probing import embedding_cache
from helpers.probing.embedding_cache import embed_clips
from models import checkpoints
from models.embeddings import EmbeddingConfig, EmbeddingModel


@pytest.fixture
def clips(tmp_path: Path) -> Recordings:
    """Ten recordings of three lengths."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(10)]
    for number, path in enumerate(paths):
        soundfile.write(path, rng.uniform(-0.3, 0.3, 3200 * (1 + number % 3)), 32000)
    return Recordings(paths, np.ones((10, 1)), [path.name for path in paths], clip_seconds=None)


@pytest.fixture
def model(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingModel:
    """A model whose `computed` counts the clips that it has embedded."""
    model = EmbeddingModel(checkpoints.load_model(tiny_checkpoint), EmbeddingConfig("block5+mel")).eval()
    model.computed, scenes = 0, model.scenes

    def counting(waveforms: torch.Tensor) -> torch.Tensor:
        model.computed += len(waveforms)
        return scenes(waveforms)

    monkeypatch.setattr(model, "scenes", counting)
    monkeypatch.setattr(embedding_cache, "CHUNK_CLIPS", 4)
    monkeypatch.setattr(embedding_cache, "CLIPS_AT_ONCE", 3)
    return model


@pytest.mark.parametrize("num_workers", [0, 1])
def test_columns_are_those_of_each_clip(model: EmbeddingModel, clips: Recordings, tmp_path: Path, num_workers: int) -> None:
    stored = embed_clips(model, clips, tmp_path / "cache", num_workers)
    expected = np.concatenate([model.scenes(clip.waveform[None]).numpy() for clip in clips])
    np.testing.assert_allclose(stored.read(["block5", "mel"]), expected, atol=1e-5)
    np.testing.assert_array_equal(stored.read(["mel"]), stored.read(["block5", "mel"])[:, 8:])
    info = json.loads((stored.folder / "info.json").read_text())
    assert info == stored.info and info["layers"] == ["block5", "mel"] and info["clips"] == 10


def test_nothing_is_computed_twice_and_an_interrupted_run_resumes(
    model: EmbeddingModel, clips: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed_clips(model, clips, tmp_path / "whole").read(["block5"])
    scenes, model.computed = model.scenes, 0

    def killed(waveforms: torch.Tensor) -> torch.Tensor:
        if model.computed >= 5:
            raise KeyboardInterrupt
        return scenes(waveforms)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model, "scenes", killed)
        embed_clips(model, clips, tmp_path / "cache")
    model.computed = 0
    stored = embed_clips(model, clips, tmp_path / "cache")
    assert model.computed == 6  # of ten, the first four were there
    np.testing.assert_allclose(stored.read(["block5"]), whole, atol=1e-5)
    embed_clips(model, clips, tmp_path / "cache")
    assert model.computed == 6
    path = stored.folder / "000000004.npy"
    path.write_bytes(path.read_bytes()[:-3])  # damaged
    np.testing.assert_allclose(embed_clips(model, clips, tmp_path / "cache").read(["block5"]), whole, atol=1e-5)
    assert model.computed == 10


def test_what_embeddings_depend_on(model: EmbeddingModel, clips: Recordings, tmp_path: Path) -> None:
    folders = [embed_clips(model, clips, tmp_path / "cache").folder]
    for pooling in ("max", "both"):
        config = EmbeddingConfig("block5+mel", pooling)
        folders.append(embed_clips(EmbeddingModel(model.network, config).eval(), clips, tmp_path / "cache").folder)
    for start in (0.0, 0.01):
        segments = [(start, 0.1)] * len(clips)
        parts = Recordings(clips.paths, clips.targets(), clips.names, segments=segments, clip_seconds=None)
        folders.append(embed_clips(model, parts, tmp_path / "cache").folder)
    os.utime(clips.paths[3], ns=(1, 1))
    folders.append(embed_clips(model, clips, tmp_path / "cache").folder)
    with torch.no_grad():
        model.network.features[0][0].weight[0, 0, 0, 0] += 1
    folders.append(embed_clips(model, clips, tmp_path / "cache").folder)
    assert len(set(folders)) == len(folders)
