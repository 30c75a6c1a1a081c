"""The HEAR interface: what evaluators rely on, and, in an environment of their own, the evaluators themselves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import hear_mn
from models import checkpoints
from models.config import Arch, MelConfig
from models.errors import UserError
from models.frame_wise import get_model
from models.network import MobileNetV3

ROOT = Path(__file__).resolve().parent.parent
HEAR_ENVIRONMENT = ROOT / ".venv-hear" / "bin"


@pytest.mark.parametrize(("layers", "pooling"), [("block11+mel", "mean"), (["se*", "logits"], "both")])
def test_shapes_types_and_times(tiny_checkpoint: Path, layers: str | list[str], pooling: str) -> None:
    model = hear_mn.load_model(str(tiny_checkpoint), layers=layers, pooling=pooling)
    assert isinstance(model, torch.nn.Module) and not model.training and model.sample_rate == 32000
    audio = 2 * torch.rand(3, 34240) - 1  # 1.07 s
    scenes = hear_mn.get_scene_embeddings(audio, model)
    embeddings, times = hear_mn.get_timestamp_embeddings(audio, model)
    assert scenes.shape == (3, model.scene_embedding_size) and embeddings.shape == (3, 22, model.timestamp_embedding_size)
    assert scenes.dtype == embeddings.dtype == times.dtype == torch.float32
    assert times.tolist() == [[50.0 * number for number in range(22)]] * 3
    assert torch.equal(scenes, hear_mn.get_scene_embeddings(audio, model))
    torch.nn.Linear(scenes.shape[1], 2)(scenes).sum().backward()  # a probe can be trained on what comes back


def test_timestamps_locate_a_sound(tiny_checkpoint: Path) -> None:
    model = hear_mn.load_model(tiny_checkpoint, "mel")
    audio = torch.zeros(1, 64000)
    audio[0, 32000:33600] = torch.randn(1600)  # from 1000 to 1050 ms
    embeddings, times = hear_mn.get_timestamp_embeddings(audio, model)
    loud = times[0][embeddings[0].mean(1) > embeddings[0].mean(1).min() + 0.01]
    assert (loud.min(), loud.max()) == (950, 1100)  # those within 80 ms


def test_timestamps_of_a_frame_wise_model_are_its_frames(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "frames.pt", get_model(num_classes=2, width_mult=0.1).eval())
    model = hear_mn.load_model(tmp_path / "frames.pt")
    audio = 2 * torch.rand(2, 16000) - 1
    embeddings, times = hear_mn.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (2, 25, model.timestamp_embedding_size) and times[1].tolist() == [40.0 * i for i in range(25)]
    assert embeddings.dtype == times.dtype == torch.float32
    torch.testing.assert_close(embeddings, model.forward_frames(audio).embedding.detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError):
        hear_mn.get_timestamp_embeddings(torch.full((1, 16000), torch.nan), model)


def test_unknown_layers_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="block99"):
        hear_mn.load_model(tiny_checkpoint, "block99")


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros((1, 8000), np.float32),
        [[0.0] * 8000],
        None,
        torch.zeros(1, 8000, dtype=torch.int16),
        torch.zeros(8000),
        torch.zeros(1, 0),
        torch.full((1, 8000), torch.nan),
        torch.full((1, 8000), torch.inf),
    ],
    ids=lambda audio: f"{type(audio).__name__} {getattr(audio, 'dtype', '')} {getattr(audio, 'shape', '')}",
)
def test_what_is_no_sound_is_one_line(audio: object, tiny_checkpoint: Path) -> None:
    model = hear_mn.load_model(tiny_checkpoint, "mel")
    for embed in (hear_mn.get_scene_embeddings, hear_mn.get_timestamp_embeddings):
        with pytest.raises(UserError) as error:
            embed(audio, model)
        assert "\n" not in str(error.value)


def test_wrong_types_are_one_line(tiny_checkpoint: Path) -> None:
    for options in ({"weights": 5}, {"layers": 5}, {"layers": [5]}, {"layers": []}, {"pooling": 5}):
        with pytest.raises(UserError):
            hear_mn.load_model(**{"weights": str(tiny_checkpoint)} | options)
    for model in (None, "mn10_as", torch.nn.Linear(2, 2)):
        for embed in (hear_mn.get_scene_embeddings, hear_mn.get_timestamp_embeddings):
            with pytest.raises(UserError):
                embed(torch.zeros(1, 8000), model)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Released models' files, with random weights."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    for name in ("mn10_as_mAP_471.pt", "mn10_as_fc_s2221_mAP_466.pt", "mn10_as_hop_25_mAP_447.pt"):
        arch = Arch(head_type="fully_convolutional", strides=(2, 2, 2, 1)) if "fc" in name else Arch()
        torch.save(MobileNetV3(arch).state_dict(), folder / name)
    checkpoints.save(folder / "own.pt", MobileNetV3(Arch(4, 0.1), MelConfig(sample_rate=22050)))
    return folder


@pytest.mark.hear
@pytest.mark.parametrize("name", ["mn04_distilled", "mn10_as", "mn10_as_fc_s2221", "mn10_as_hop_25", "own.pt"])
def test_the_public_validator_passes(name: str, release: Path) -> None:
    weights = release / name if name.endswith(".pt") else name
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'tests' / 'hear'}:{ROOT}",
        "EFFICIENTAT_RESOURCES": str(release),
        "PYTHONWARNINGS": "always::UserWarning",
    }
    command = [HEAR_ENVIRONMENT / "hear-validator", "hear_mn", "-m", str(weights), "-d", "cpu"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.endswith("Looks good!\n"), result.stdout + result.stderr
    assert result.stderr.count("UserWarning") == 1, result.stderr  # it always gives one; others would be about our timestamps


@pytest.mark.hear
def test_the_evaluation_kit_chooses_model_and_layers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Its embedding runner on a tiny task, with options instead of a module for each variant."""
    task, splits = tmp_path / "tasks" / "noises-v1-full", ["train", "valid", "test"]
    for split in splits:
        folder = task / "32000" / split
        folder.mkdir(parents=True)
        soundfile.write(folder / "noise.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 32000), 32000)
        (task / f"{split}.json").write_text(json.dumps({"noise.wav": ["noise"]}))
    metadata = {"embedding_type": "scene", "prediction_type": "multiclass", "split_mode": "trainvaltest", "sample_duration": 1.0}
    (task / "task_metadata.json").write_text(
        json.dumps(metadata | {"task_name": "noises", "splits": splits, "evaluation": ["top1_acc"]})
    )
    (task / "labelvocabulary.csv").write_text("idx,label\n0,noise\n")
    options = json.dumps({"weights": str(tiny_checkpoint), "layers": "block5+mel"})
    command = [HEAR_ENVIRONMENT / "python", "-m", "heareval.embeddings.runner", "hear_mn", "--model-options", options]
    result = subprocess.run(
        [*command, "--tasks-dir", task.parent, "--embeddings-dir", tmp_path / "embeddings"],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'tests' / 'hear'}:{ROOT}"}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    [size] = (tmp_path / "embeddings").rglob("test.embedding-dimensions.json")
    assert json.loads(size.read_text()) == [1, 8 + 128]
