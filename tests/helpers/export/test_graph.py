"""Exported graphs compute what PyTorch computes, for every head, resolution, batch and length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import export as script
from datasets.labels import audioset_labels
from helpers.export.cache import FORMAT_VERSION, METADATA_KEY
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from helpers.export.runtime import BackendError, OnnxBackend, new_session
from models import checkpoints
from models.config import HEAD_TYPES, Arch, MelConfig
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel
from tests.golden import fill

ROOT = Path(__file__).resolve().parents[3]
SMALL = Arch(num_classes=20, width_mult=0.1)
RATE = 32000  # Hz
RECORDINGS = ROOT / "resources" / "recordings"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "golden.json").read_text())


def network(arch: Arch = SMALL, mel: MelConfig | None = None, **options) -> MobileNetV3:
    """Random weights behind statistics of spectrograms, so that outputs depend on the input; scores of about a half."""
    torch.manual_seed(0)
    made = MobileNetV3(arch, mel, **options)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
        if isinstance(module, torch.nn.Linear):
            module.weight.data.mul_(5)
    waveforms = torch.randn(4, RATE) * torch.tensor([[0.01], [0.1], [0.2], [0.4]])
    with torch.no_grad():
        made.train()(AugmentMelSTFT.from_config(made.mel).eval()(waveforms)[:, None])
    return made.eval()


def noise(batch: int, seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (batch, round(seconds * RATE))).astype(np.float32)


def backend_of(made: MobileNetV3, folder: Path) -> OnnxBackend:
    write(folder / "made.onnx", to_onnx(made, "made"))
    return OnnxBackend(folder / "made.onnx", threads=1)


@torch.inference_mode()
def assert_equal(backend: OnnxBackend, made: MobileNetV3, waveforms: np.ndarray, tolerance: float = 1e-3) -> None:
    model = WaveformModel(made).eval()
    logits, embeddings = model(torch.from_numpy(waveforms))
    as_one_batch = new_session(backend.path, threads=1).run(["scores", "embedding"], {"waveform": waveforms})
    clip_by_clip = (np.stack(parts) for parts in zip(*backend(waveforms), strict=True))
    for scores, ours in (clip_by_clip, as_one_batch):
        assert scores.dtype == ours.dtype == np.float32
        assert scores.shape == tuple(logits.shape) and ours.shape == tuple(embeddings.shape)
        np.testing.assert_allclose(scores, model.scores(logits).numpy(), atol=tolerance)
        np.testing.assert_allclose(ours, embeddings.numpy(), atol=tolerance * max(1.0, float(embeddings.std())))


@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("single_label", [False, True])
def test_heads(head_type: str, single_label: bool, tmp_path: Path) -> None:
    made = network(replace(SMALL, head_type=head_type), single_label=single_label)
    backend = backend_of(made, tmp_path)
    assert backend.single_label == single_label
    for batch, seconds in ((1, 2.0), (7, 0.3)):
        assert_equal(backend, made, noise(batch, seconds))


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (2, 2, 2, 1), "head_type": "fully_convolutional"}, {"strides": (2, 2, 1, 1)},
        {"se_dims": "none"}, {"se_dims": "f"},
        *({"se_dims": "cf", "se_agg": one} for one in ("max", "avg", "add", "min")), {"reduced_tail": True, "dilated": True},
        {"num_classes": 1}, {"width_mult": 0.4},
    ],
    ids=str,
)  # fmt: skip
def test_architectures(options: dict, tmp_path: Path) -> None:
    made = network(replace(SMALL, **options))
    assert_equal(backend_of(made, tmp_path), made, noise(3, 1.0))


def test_the_shortest_clips(tmp_path: Path) -> None:
    made = network()
    backend = backend_of(made, tmp_path)
    for samples in (1, 513, 514, 800, 801, 1121):
        assert_equal(backend, made, noise(2, samples / RATE))


def test_the_bundled_file_is_the_bundled_checkpoint(tmp_path: Path) -> None:
    """In float16: the same as exported again, but for the last digit of weights, and near the checkpoint."""
    backend, model = OnnxBackend(ROOT / "resources" / "mn04_distilled.onnx", threads=1), checkpoints.load_model("mn04_distilled")
    write(tmp_path / "again.onnx", to_onnx(model, "mn04_distilled", weights="float16"))
    again = OnnxBackend(tmp_path / "again.onnx", threads=1)
    assert backend.metadata == again.metadata
    for waveforms in (noise(2, 10.0), noise(1, 30.0), np.zeros((1, RATE), np.float32)):
        for (scores, embedding), (expected, expected_embedding) in zip(backend(waveforms), again(waveforms), strict=True):
            np.testing.assert_allclose(scores, expected, atol=1e-4)
            np.testing.assert_allclose(embedding, expected_embedding, atol=1e-3 * expected_embedding.std())
        assert_equal(backend, model, waveforms, tolerance=5e-3)


@pytest.mark.parametrize("name", [name for name, entry in GOLDEN.items() if "get_model" in entry])
def test_golden_outputs(name: str, tmp_path: Path) -> None:
    entry = GOLDEN[name]
    made = get_model(**entry["get_model"]).eval()
    made.load_state_dict(fill.fill_state_dict(made.state_dict()))
    write(tmp_path / "golden.onnx", to_onnx(made, name, network_only=True))
    session = onnxruntime.InferenceSession(tmp_path / "golden.onnx")
    scores, embedding = session.run(["scores", "embedding"], {"spectrogram": fill.spectrogram(entry["input_shape"]).numpy()})
    with np.load(ROOT / "tests" / "golden" / "golden.npz") as stored:
        logits, expected = stored[f"{name}/logits"], stored[f"{name}/embedding"]
    np.testing.assert_allclose(scores, torch.from_numpy(logits).sigmoid(), atol=1e-4)
    np.testing.assert_allclose(embedding, expected, atol=1e-4 * expected.std())


def test_norms_are_folded_and_the_network_is_left_as_it_was() -> None:
    made = network()
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    model = to_onnx(made, "made")
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert made.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in made.state_dict().items())


def test_channels_come_in_whole_groups() -> None:
    made = network(replace(SMALL, width_mult=0.4))
    model = to_onnx(made, "made", network_only=True)
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    outputs = [shapes[node.input[1]][0] for node in model.graph.node if node.name.startswith("Conv_")]
    assert all(channels % 16 == 0 for channels in outputs[:-1])
    assert outputs[-1] == made.embedding_size


def test_network_only(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    assert script.main(["--model_name", str(tiny_checkpoint), "--output", str(path), "--network_only"]) == 0
    session = onnxruntime.InferenceSession(path)
    spectrogram = torch.randn(3, 1, 128, 77)
    scores, embedding = session.run(["scores", "embedding"], {"spectrogram": spectrogram.numpy()})
    with torch.inference_mode():
        logits, ours = checkpoints.load_model(tiny_checkpoint)(spectrogram)
    np.testing.assert_allclose(scores, logits.sigmoid(), atol=1e-4)
    np.testing.assert_allclose(embedding, ours, atol=1e-4)
    with pytest.raises(BackendError, match="network_only"):
        OnnxBackend(path)


def test_metadata(tmp_path: Path) -> None:
    checkpoints.save(
        tmp_path / "pets.pt", MobileNetV3(Arch(num_classes=2, width_mult=0.1), labels=["cat", "dög"], single_label=True)
    )
    script.main(["--model_name", str(tmp_path / "pets.pt"), "--output", str(tmp_path / "out" / "pets.onnx")])
    backend = OnnxBackend(tmp_path / "out" / "pets.onnx")
    assert (backend.name, backend.labels, backend.single_label) == ("pets", ("cat", "dög"), True)
    assert (backend.sample_rate, backend.num_classes, backend.embedding_size) == (32000, 2, 96)
    [(scores, embedding)] = backend(noise(1, 1.0))
    assert scores.sum() == pytest.approx(1) and embedding.shape == (96,)
    stored = {entry.key: entry.value for entry in onnx.load(tmp_path / "out" / "pets.onnx").metadata_props}
    assert json.loads(stored[METADATA_KEY])["format_version"] == FORMAT_VERSION
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pets.onnx"]


def test_classes_without_names(tmp_path: Path) -> None:
    assert backend_of(network(), tmp_path).labels[:2] == ("class 0", "class 1")
    assert backend_of(network(Arch(width_mult=0.1)), tmp_path).labels == audioset_labels()


def test_a_network_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="headless has no classes"):
        to_onnx(MobileNetV3(replace(SMALL, num_classes=0)), "headless")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    made = network()
    made.features[3].block[1][1].running_var[2] = value
    checkpoints.save(tmp_path / "diverged.pt", made)
    message = failing_message(script.main, "--model_name", tmp_path / "diverged.pt", "--output", tmp_path / "x.onnx")
    assert "diverged" in message and "features.3.block.1.1.running_var" in message and not (tmp_path / "x.onnx").exists()


def test_squeeze_and_excitation_over_time_is_refused(tmp_path: Path, failing_message: Callable[..., str]) -> None:
    checkpoints.save(tmp_path / "t.pt", MobileNetV3(replace(SMALL, se_dims="ct")))
    message = failing_message(script.main, "--model_name", tmp_path / "t.pt", "--output", tmp_path / "t.onnx")
    assert "over time" in message and not (tmp_path / "t.onnx").exists()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--model_name", "mn11_as", "--output", "x.onnx"], "mn10_as"),
        (["--model_name", "nowhere.pt", "--output", "x.onnx"], "nowhere.pt"),
        (["--model_name", "tiny", "--output", "x.pt"], ".onnx"),
        (["--model_name", "tiny", "--output", "folder.onnx"], "folder"),
        (["--model_name", "tiny", "--output", "text/x.onnx"], "text"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(
    argv: list[str], part: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    failing_message: Callable[..., str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "text").write_text("a file")
    assert part in failing_message(script.main, *(str(tiny_checkpoint) if one == "tiny" else one for one in argv))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "text"]


def test_the_example_in_the_docstring_works_without_this_project(tmp_path: Path) -> None:
    lines = [line[4:] for line in script.__doc__.splitlines() if line.startswith("    ")]
    code = "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("import")) :])
    code = code.replace("mn10_as.onnx", str(ROOT / "resources" / "mn04_distilled.onnx"))
    code = code.replace("recording.wav", str(RECORDINGS / "speech.ogg"))
    assert len([line for line in code.splitlines() if line]) <= 10
    code += "\nimport sys\nassert not {'torch', 'models', 'helpers'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 10 and "Speech" in result.stdout.splitlines()[0]
