"""Models for clips of one length compute what the network and its front end compute, in PyTorch and in the runtimes of phones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import export as script
from helpers.export import comparison, static_model
from helpers.export.executorch import executorch_metadata, load_executorch
from helpers.export.litert import litert_metadata, load_litert, with_files
from helpers.export.static_front_end import StaticFrontEnd
from helpers.export.static_model import StaticModel, StaticNetwork, clip_samples
from models import checkpoints
from models.config import HEAD_TYPES, Arch, FrameWiseArch, MelConfig
from models.errors import UserError
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel
from tests.helpers.export.test_graph import network

BUNDLED = "mn04_distilled"
RATE = 32000  # Hz


@pytest.mark.parametrize(
    "mel",
    [
        MelConfig(),
        MelConfig(hop_size=500, win_length=801, n_mels=40),
        MelConfig(n_mels=64, sample_rate=8000, hop_size=81, win_length=200, n_fft=256, fmax=4000),
        FrameWiseArch.default_mel,
    ],
)
@pytest.mark.parametrize("samples", [514, 641, 9999])
def test_the_front_end_is_that_of_training(mel: MelConfig, samples: int) -> None:
    waveform = torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        exact = AugmentMelSTFT.from_config(mel).eval()(waveform)
        found = StaticFrontEnd(mel, samples)(waveform)
    assert found.shape == (1, 1, *exact.shape[1:])
    assert (found[0, 0] - exact[0]).abs().max() < 1e-4


@pytest.mark.parametrize("se_dims", ["c", "f", "t", "none"])
@pytest.mark.parametrize("head", HEAD_TYPES)
def test_the_model_is_the_network_behind_its_front_end(head: str, se_dims: str) -> None:
    arch = Arch(num_classes=20, width_mult=0.1, head_type=head, se_dims=se_dims, input_dim_t=100)
    made = network(arch, single_label=head == "mlp")
    samples = clip_samples(made, "it", 1.0)
    waveform = torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        logits, exact = WaveformModel(made).eval()(waveform)
        scores, embedding = StaticModel(made, samples)(waveform)
    assert (scores - made.scores(logits)).abs().max() < 1e-4
    assert (embedding - exact).abs().max() < 1e-3 * exact.abs().max()


def test_rounded_weights_are_multiples_of_the_largest_of_their_channel() -> None:
    """So a quantizer that takes the largest value for the scale changes nothing, and small tensors keep their values."""
    made = network(Arch(num_classes=20, width_mult=0.4))
    exact, rounded = StaticNetwork(made), StaticNetwork(made)
    with torch.no_grad():
        rounded.round_weights()
    changed = 0
    for (name, before), after in zip(exact.named_parameters(), rounded.parameters(), strict=True):
        if name.endswith("bias") or before.numel() < 4096:
            assert torch.equal(before, after), name
            continue
        rows = after.flatten(1)
        steps = rows / rows.abs().amax(1, keepdim=True) * 127
        assert (steps - steps.round()).abs().max() < 1e-3, name
        assert 0 < (before - after).abs().max() < 0.2 * before.abs().max(), name
        changed += 1
    assert changed > 5


def test_litert_files_hold_labels_behind_the_model() -> None:
    made = network(labels=["a", "ü"] + [str(k) for k in range(18)])
    content = with_files(b"model", static_model.about(made, "it", 32000, "int8"))
    assert content.startswith(b"model")
    about = litert_metadata(content)
    assert about["labels"][1] == "ü" and about["samples"] == 32000 and about["weights"] == "int8" and about["sample_rate"] == 32000


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--format", "litert", "--output", "x.onnx"], ".tflite"),
        (["--format", "executorch", "--output", "x.onnx"], ".pte"),
        (["--format", "litert", "--output", "x.tflite", "--network_only"], "--network_only"),
        (["--format", "executorch", "--output", "x.pte", "--weights", "float16"], "float16"),
        (["--format", "litert", "--output", "x.tflite", "--clip_seconds", "0.01"], "too short"),
        (["--output", "x.onnx", "--clip_seconds", "5"], "--clip_seconds"),
    ],
)
def test_what_a_format_does_not_have_is_refused(options: list[str], reason: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=reason):
        script.main(["--model_name", BUNDLED, *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["litert", "executorch"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(form: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(static_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"requirements-{form}.txt"):
        script.main(["--model_name", BUNDLED, "--format", form, "--output", str(tmp_path / f"x{script.SUFFIXES[form]}")])


def test_frame_wise_networks_are_for_onnx() -> None:
    with pytest.raises(UserError, match="onnx"):
        clip_samples(FrameWiseArch(3, 0.1).build(), "fmn", 10)


def test_a_network_for_one_number_of_frames_is_refused_for_another() -> None:
    made = MobileNetV3(Arch(num_classes=20, width_mult=0.1, se_dims="t", input_dim_t=100))
    with pytest.raises(UserError, match="give 1 s"):
        clip_samples(made, "it", 2.0)


@pytest.mark.mobile
@pytest.mark.parametrize(("weights", "tolerance"), [("float32", 1e-4), ("float16", 0.01), ("int8", 0.05)])
def test_litert_computes_what_pytorch_computes(weights: str, tolerance: float, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    path = tmp_path / "model.tflite"
    assert script.main(["--model_name", BUNDLED, "--format", "litert", "--weights", weights, "--output", str(path)]) == 0
    content = path.read_bytes()
    assert litert_metadata(content)["labels"][0] == "Speech"
    check(load_litert(content), tolerance)


@pytest.mark.mobile
@pytest.mark.parametrize(("weights", "tolerance"), [("float32", 1e-4), ("int8", 0.05)])
def test_executorch_computes_what_pytorch_computes(weights: str, tolerance: float, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    path = tmp_path / "model.pte"
    assert script.main(["--model_name", BUNDLED, "--format", "executorch", "--weights", weights, "--output", str(path)]) == 0
    content = path.read_bytes()
    assert executorch_metadata(content)["labels"][0] == "Speech"
    check(load_executorch(content), tolerance)


def check(compute, tolerance: float) -> None:
    """Compare scores of the bundled recordings, and scores and embedding of a sound at full scale."""
    made = checkpoints.load_model(BUNDLED)
    difference = comparison.compare(compute, made, [comparison.RECORDINGS], samples=10 * RATE)
    assert difference.largest < tolerance
    assert difference.same_first >= 0.75  # of four recordings; the first two scores of wind.ogg are 0.01 apart
    loud = np.sin(2 * np.pi * 1000 / RATE * np.arange(10 * RATE)).astype(np.float32)
    scores, embedding = compute(loud)
    with torch.inference_mode():
        logits, exact = WaveformModel(made).eval()(torch.from_numpy(loud)[None])
    assert np.abs(scores - logits.sigmoid()[0].numpy()).max() < tolerance
    assert np.abs(embedding - exact[0].numpy()).max() < tolerance * exact.abs().max()
