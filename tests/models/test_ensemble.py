"""Waveform models and ensembles: each member behind its own front end, the mean of their logits."""

from __future__ import annotations

import pytest
import torch

from models import checkpoints
from models.config import Arch, MelConfig
from models.ensemble import EnsembleModel, get_ensemble_model
from models.errors import UserError
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel


def member(num_classes: int = 5, width_mult: float = 0.1, mel: MelConfig | None = None, labels=None, **arch):
    mel = mel or MelConfig()
    network = MobileNetV3(Arch(num_classes, width_mult, input_dim_f=mel.n_mels, **arch), mel, labels)
    for name, tensor in network.state_dict().items():
        if name.startswith("classifier") and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return WaveformModel(network).eval()


def members():
    return [
        member(),
        member(mel=MelConfig(n_mels=40, hop_size=480), head_type="fully_convolutional"),
        member(width_mult=0.3, mel=MelConfig(hop_size=800), head_type="multihead_attention_pooling"),
    ]


def by_hand(model: WaveformModel, waveform: torch.Tensor):
    spectrogram = AugmentMelSTFT.from_config(model.network.mel).eval()(waveform)
    return model.network(spectrogram[:, None])


@pytest.mark.parametrize(("seconds", "expected"), [((3.0, 10.0), 3.0), ((None, 10.0), 10.0), ((None, None), None)])
def test_clip_seconds_of_an_ensemble_are_the_shortest(seconds, expected):
    models = [member(), member()]
    for model, value in zip(models, seconds, strict=True):
        model.network.clip_seconds = value
    assert EnsembleModel(models).clip_seconds == expected


def test_get_model_with_its_front_end():
    model = get_model(5, width_mult=0.1, input_dim_f=64, waveform=True).eval()
    waveform = torch.randn(2, 9000)
    for result, expected in zip(model(waveform), by_hand(model, waveform), strict=True):
        assert torch.equal(result, expected)
    assert model.front_end.config == MelConfig(n_mels=64) and (model.num_classes, model.sample_rate) == (5, 32000)
    assert len(repr(model).splitlines()) == 1
    assert (model.arch, model.mel) == (model.network.arch, model.network.mel)
    features = model.forward_features(waveform)
    assert torch.equal(model.forward_head(features), model(waveform)[0])
    assert torch.equal(model.forward_head(features, pre_logits=True), model(waveform)[1])
    model.reset_classifier(3)
    assert model(waveform)[0].shape == (2, 3) and model.num_classes == 3


def test_waveform_model_in_half_precision():
    model = member().to(torch.bfloat16)
    with torch.no_grad():
        logits, embedding = model(torch.randn(1, 9000))
    assert torch.isfinite(logits).all() and torch.isfinite(embedding).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ensemble_is_the_mean_of_its_members(batch, count):
    parts = members()[:count]
    waveform = torch.randn(batch, 12000) * 0.1
    with torch.no_grad():
        logits, embedding = EnsembleModel(parts).eval()(waveform)
        expected = [by_hand(part, waveform) for part in parts]
    assert logits.shape == (batch, 5)
    torch.testing.assert_close(logits, sum(one for one, _ in expected) / count)
    torch.testing.assert_close(embedding, torch.cat([one for _, one in expected], dim=1))


def test_an_ensemble_with_one_front_end_takes_its_spectrograms():
    parts = [member(), member(width_mult=0.3, head_type="fully_convolutional")]
    ensemble, waveform = EnsembleModel(parts).eval(), torch.randn(2, 9000) * 0.1
    with torch.no_grad():
        of_spectrogram = ensemble(parts[0].front_end(waveform)[:, None])
        for result, expected in zip(of_spectrogram, ensemble(waveform), strict=True):
            assert torch.equal(result, expected)
        with pytest.raises(ValueError, match="different front ends.*waveforms"):
            EnsembleModel(members()).eval()(torch.zeros(1, 1, 128, 60))


def test_each_distinct_front_end_computes_once_except_in_training():
    parts = [member(), member(width_mult=0.3), member(mel=MelConfig(hop_size=800)), member()]
    calls = []
    for number, part in enumerate(parts):
        part.front_end.register_forward_hook(lambda *_, number=number: calls.append(number))
    ensemble = EnsembleModel(parts).eval()
    with torch.no_grad():
        ensemble(torch.randn(2, 9000))
        assert calls == [0, 2]
        calls.clear()
        ensemble.train()(torch.randn(2, 9000))  # each draws its own augmentation
    assert calls == [0, 1, 2, 3]


def test_ensemble_answers_for_its_members():
    labels = ("a", "b")
    ensemble = EnsembleModel([member(2, labels=labels), member(2, labels=labels)])
    assert ensemble.labels == labels
    assert (ensemble.num_classes, ensemble.sample_rate, ensemble.device) == (2, 32000, torch.device("cpu"))
    assert EnsembleModel([member(2), member(2, labels=labels)]).labels == labels  # of the member that names them
    assert EnsembleModel([member(2), member(2)]).labels is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: [],
        lambda: [member(0), member(0, width_mult=0.3)],
        lambda: [member(5), member(6)],
        lambda: [member(), member(mel=MelConfig(sample_rate=16000))],
        lambda: [member(2, labels=("a", "b")), member(2, labels=("b", "a"))],
    ],
    ids=["no member", "no classes", "class count", "sample rate", "label order"],
)
def test_members_that_disagree_are_refused(make):
    with pytest.raises(ValueError):
        EnsembleModel(make())


def test_one_name_is_no_ensemble():
    with pytest.raises(UserError, match="list"):
        get_ensemble_model("mn04_distilled")


def test_ensemble_by_names_is_in_evaluation_mode_and_uses_each_front_end(tmp_path):
    parts = members()
    paths = [tmp_path / f"{index}.pt" for index in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        checkpoints.save(path, part.network)
    ensemble = get_ensemble_model([str(path) for path in paths])
    assert not any(module.training for module in ensemble.modules())
    waveform = torch.randn(2, 12000)
    with torch.no_grad():
        torch.testing.assert_close(ensemble(waveform)[0], EnsembleModel(parts).eval()(waveform)[0])
    assert [part.front_end.config for part in ensemble.members] == [part.network.mel for part in parts]
    with pytest.raises(ValueError):
        get_ensemble_model([])
