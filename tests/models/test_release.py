"""The real release. Needs the network: make test-network."""

from pathlib import Path

import pytest
import torch

from models import checkpoints
from models.waveform import WaveformModel


@pytest.mark.network
@pytest.mark.parametrize("name", ["mn04_as", "mn10_as_hop_15", "mn10_as_fc_s2221"])
def test_a_released_checkpoint_downloads_and_loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path))
    monkeypatch.delenv("EFFICIENTAT_RELEASE_URL", raising=False)
    model = WaveformModel(checkpoints.load_model(name)).eval()
    with torch.inference_mode():
        logits, _ = model(0.3 * torch.randn(1, 320000, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (1, 527) and torch.isfinite(logits).all() and logits.std() > 0.1


@pytest.mark.network
@pytest.mark.parametrize("name", ["fmn04_weak", "fmn04+tf-104", "fmn04+hybrid-104", "fmn04+gru-104", "frame_mn06"])
def test_a_released_frame_wise_checkpoint_downloads_and_loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path))
    monkeypatch.delenv("EFFICIENTAT_RELEASE_URL", raising=False)
    model = WaveformModel(checkpoints.load_model(name)).eval()
    with torch.inference_mode():
        frames = model.forward_frames(0.3 * torch.randn(1, 160000, generator=torch.Generator().manual_seed(0)))
    assert frames.logits.shape == (1, 250, model.num_classes)
    assert torch.isfinite(frames.clip_logits).all() and frames.clip_logits.std() > 0.1
