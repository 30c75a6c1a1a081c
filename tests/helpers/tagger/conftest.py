"""Taggers: one without a model, a tiny one, and the bundled one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.tagger import AudioTagger
from helpers.tagger import audio_tagger as module
from tests.loudness import Loudness


@pytest.fixture
def loudness(monkeypatch: pytest.MonkeyPatch) -> AudioTagger:
    monkeypatch.setattr(module, "load_backend", lambda *_: Loudness())
    return AudioTagger("any", batch_size=4)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> AudioTagger:
    return AudioTagger(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def bundled() -> AudioTagger:
    return AudioTagger("mn04_distilled", backend="onnx")
