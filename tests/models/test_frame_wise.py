"""Frame-wise networks: time axes, sequence models, heads, and what is loaded from released files and other networks."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from models import checkpoints
from models.checkpoints import CheckpointError
from models.config import FrameWiseArch, MelConfig, from_plain, to_plain
from models.embeddings import EmbeddingConfig, EmbeddingModel
from models.ensemble import EnsembleModel
from models.errors import UserError
from models.frame_wise import FrameWiseMobileNet, get_model
from models.MobileNetV3 import get_model as get_clip_model
from models.registry import PRETRAINED
from models.sequence_models import MinGRU, linear_recurrence
from models.waveform import WaveformModel

SEQUENCES = {"none": (), "tf": ("tf", 16, 2), "gru": ("gru", 16), "hybrid": ("hybrid", 16)}


def network(kind: str = "none", num_classes: int = 3, **arch) -> FrameWiseMobileNet:
    return FrameWiseArch(num_classes, 0.1, *SEQUENCES[kind], **arch).build().eval()


@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_step_is_a_quarter_of_the_frames_and_the_clip_their_maximum(kind):
    model = network(kind)
    x = torch.randn(2, 1, 128, 101)
    with torch.no_grad():
        frames = model.forward_frames(x)
        logits, embedding = model(x)
        alone = model.forward_frames(x[1:])
    assert frames.logits.shape == (2, 26, 3) and frames.embedding.shape == (2, 26, model.embedding_size)
    torch.testing.assert_close(frames.logits.amax(1), logits)
    torch.testing.assert_close(frames.embedding.mean(1), embedding)
    torch.testing.assert_close(frames.logits[1:], alone.logits)
    assert model.step_seconds == 0.04 and network().mel == MelConfig(128, 16000, 400, 160, 512, log_floor=1e-7)


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("heads", ["strong", "weak", "both"])
def test_every_parameter_that_is_trained_gets_a_gradient(kind, heads):
    model = network(kind, trained_heads=heads).train()
    frames = model.forward_frames(torch.randn(2, 1, 128, 40))
    (frames.clip_logits.sum() if heads == "weak" else frames.logits.sum() + frames.clip_logits.sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}
    assert not without
    frozen = {name.partition("_head")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen & {"strong", "weak"} == {"strong", "weak"} - ({heads} if heads != "both" else {"strong", "weak"})


def test_time_of_other_lengths_is_stretched_only_on_request():
    x = torch.randn(1, 1, 128, 60)
    whole, stretched = network(), network(seq_len=250)
    stretched.load_state_dict(whole.state_dict())
    with torch.no_grad():
        assert whole.forward_frames(x).logits.shape[1] == 15
        assert stretched.forward_frames(x).logits.shape[1] == 250


def test_clip_logits_are_those_of_the_weak_head_where_it_is_trained():
    model = network()
    x = torch.randn(1, 1, 128, 60)
    with torch.no_grad():
        model.set_trained_heads("both")
        logits, embedding = model(x)
        torch.testing.assert_close(logits, model.weak_head(embedding))
        torch.testing.assert_close(model.forward_frames(x).clip_logits, logits)


def test_the_recurrence_is_that_of_its_definition():
    layer = MinGRU(8).double()
    x = torch.randn(2, 37, 8, dtype=torch.float64)
    hidden, gate = layer.to_hidden_and_gate(x).chunk(2, -1)
    h, steps = torch.zeros(2, 8, dtype=torch.float64), []
    for t in range(37):
        z = gate[:, t].sigmoid()
        g = torch.where(hidden[:, t] >= 0, hidden[:, t] + 0.5, hidden[:, t].sigmoid())
        h = (1 - z) * h + z * g
        steps.append(h)
    torch.testing.assert_close(layer(x), torch.stack(steps, 1))
    decay = torch.full((1, 20_000, 1), 0.999)  # float32 over thousands of steps
    assert linear_recurrence(decay, torch.ones_like(decay))[0, -1].item() == pytest.approx(1000, rel=1e-4)


@pytest.mark.parametrize("wrong", [
    {"sequence_model": "lstm"}, {"sequence_model": "mamba"}, {"sequence_model": "tf", "sequence_size": 100},
    {"sequence_model": "tf", "sequence_size": 4}, {"sequence_size": 128}, {"sequence_model": "gru", "sequence_heads": 2},
    {"head_type": "mlp"}, {"head_type": "attention", "weak_classes": 2}, {"trained_heads": "none"},
    {"trained_heads": "both", "weak_classes": 2}, {"seq_len": 0}, {"weak_classes": 0}, {"num_classes": -1}, {"width_mult": 0},
])  # fmt: skip
def test_architectures_that_cannot_be(wrong):
    with pytest.raises(UserError):
        FrameWiseArch(**wrong)


def test_checkpoints_keep_architecture_and_front_end(tmp_path):
    model = network("hybrid", sequence_heads=4, trained_heads="both")
    model.labels = ("a", "b", "c")
    checkpoints.save(tmp_path / "best.pt", model)
    loaded = checkpoints.load_model(tmp_path / "best.pt")
    assert (loaded.arch, loaded.mel, loaded.labels) == (model.arch, model.mel, model.labels)
    x = torch.randn(1, 1, 128, 50)
    with torch.no_grad():
        torch.testing.assert_close(loaded.forward_frames(x), model.forward_frames(x))
    assert get_model(pretrained_name=tmp_path / "best.pt", seq_len=250).arch == replace(model.arch, seq_len=250)
    other = get_model(5, tmp_path / "best.pt")
    assert other.arch.num_classes == 5 and other.arch.trained_heads == "strong" and other.weak_head.out_features == 5
    torch.testing.assert_close(other.seq_model.state_dict(), model.seq_model.state_dict())


def test_front_ends_of_clip_models_are_stored_as_before():
    plain = to_plain(MelConfig())
    assert "log_floor" not in plain and from_plain(MelConfig, plain) == MelConfig()
    floored = MelConfig(log_floor=1e-7)
    assert from_plain(MelConfig, to_plain(floored)) == floored != MelConfig()
    with pytest.raises(UserError):
        from_plain(MelConfig, {**plain, "log_flour": 1e-7})


def released_file(resources, name: str, rename, **changes) -> FrameWiseMobileNet:
    """Write what the release calls `name`, with changes of its architecture and other names; return the network."""
    made = replace(PRETRAINED[name].arch, **changes).build()
    state = {rename(key): tensor for key, tensor in made.state_dict().items()}
    resources.mkdir(parents=True, exist_ok=True)
    torch.save(state, resources / PRETRAINED[name].asset)
    return made.eval()


@pytest.mark.parametrize(("name", "rename"), [
    ("fmn04_strong", lambda key: "net." + key.replace("model.fmn.", "model.")),
    ("fmn04+tf-104_strong", lambda key: "net." + key),
    ("fmn04+gru-104_strong", lambda key: key.replace("model.fmn.", "model.model.")),
    ("frame_mn06_strong_1", lambda key: key.replace("model.fmn.", "model.frame_mn.")),
])  # fmt: skip
def test_released_files_have_their_own_names(name, rename, resources):
    made = released_file(resources, name, rename)
    loaded = get_clip_model(pretrained_name=name.removesuffix("_1").removesuffix("_strong")).eval()
    assert isinstance(loaded, FrameWiseMobileNet) and loaded.arch == PRETRAINED[name].arch
    torch.testing.assert_close(loaded.state_dict(), made.state_dict())


@pytest.mark.parametrize("heads", [4, 8])
def test_the_file_says_how_many_heads_a_hybrid_has(heads, resources):
    released_file(resources, "fmn04+hybrid-104_strong", lambda key: f"net.{key}", sequence_heads=heads)
    assert checkpoints.load("fmn04+hybrid-104").arch.sequence_heads == heads


def test_heads_of_other_classes_are_random_and_needed_ones_are_required(resources, caplog):
    caplog.set_level(logging.INFO)
    made = released_file(resources, "fmn04_weak", lambda key: f"net.{key}", num_classes=5, weak_classes=527, trained_heads="strong")
    loaded = checkpoints.load_model("fmn04_weak")
    torch.testing.assert_close(loaded.weak_head.state_dict(), made.weak_head.state_dict())
    assert loaded.strong_head.out_features == 527 and "strong head" in caplog.text
    released_file(resources, "fmn04_strong", lambda key: f"net.{key}", num_classes=5, weak_classes=447)
    with pytest.raises(CheckpointError, match="strong_head"):
        checkpoints.load("fmn04_strong")


def test_a_network_starts_from_the_features_of_others(tmp_path, resources, caplog):
    clip = get_clip_model(pretrained_name="mn04_distilled")
    started = get_model(7, "mn04_distilled", sequence_model="gru", sequence_size=16, trained_heads="both")
    assert started.arch == FrameWiseArch(7, 0.4, "gru", 16, trained_heads="both") and started.mel == clip.mel
    torch.testing.assert_close(started.features.state_dict(), clip.features.state_dict())
    assert "mn04_distilled" in caplog.text
    weak = released_file(resources, "fmn04_weak", lambda key: f"net.{key}")
    started = get_model(447, "fmn04_weak", sequence_model="tf", sequence_size=104)
    assert started.arch == FrameWiseArch(447, 0.4, "tf", 104) and started.mel == weak.mel
    torch.testing.assert_close(started.features.state_dict(), weak.features.state_dict())
    with pytest.raises(UserError, match="width_mult"):
        get_model(7, "mn04_distilled", width_mult=1.0)
    checkpoints.save(tmp_path / "cft.pt", get_clip_model(3, width_mult=0.1, se_dims="f"))
    with pytest.raises(UserError, match="se_dims"):
        get_model(7, tmp_path / "cft.pt")


def test_clip_models_have_no_frames():
    with pytest.raises(UserError, match="frame-wise"):
        get_clip_model(3, width_mult=0.1).forward_frames(torch.randn(1, 1, 128, 50))


def test_no_classes_leaves_the_embeddings():
    model = network("gru")
    model.reset_classifier(0)
    x = torch.randn(1, 1, 128, 50)
    frames = model.forward_frames(x)
    assert frames.logits is frames.embedding and torch.equal(frames.clip_logits, model(x)[1])
    model.reset_classifier(4)
    assert model(x)[0].shape == (1, 4)


def test_ensembles_of_frame_wise_networks():
    members = [WaveformModel(network(kind)) for kind in ("none", "gru")]
    ensemble = EnsembleModel(members)
    x = 0.1 * torch.randn(2, 8000)
    with torch.no_grad():
        frames = ensemble.forward_frames(x)
        expected = [member.forward_frames(x) for member in members]
    torch.testing.assert_close(frames.logits, (expected[0].logits + expected[1].logits) / 2)
    assert ensemble.step_seconds == 0.04 and frames.embedding.shape[2] == ensemble.embedding_size
    mixed = EnsembleModel([members[0], WaveformModel(get_clip_model(3, width_mult=0.1), members[0].front_end)])
    assert mixed.step_seconds is None
    with pytest.raises(UserError):
        mixed.forward_frames(x)


@pytest.mark.parametrize("heads", ["strong", "weak"])
def test_layers_as_embeddings(heads):
    model = network("gru", trained_heads=heads)
    x = 0.1 * torch.randn(2, 8000)
    embedder = EmbeddingModel(model, EmbeddingConfig("block15+embedding")).eval()
    with torch.no_grad():
        expected, embedding = WaveformModel(model).eval()(x)
        logits, layers = embedder(x)
        alone = embedder.embed(x)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(layers[:, embedder.columns["embedding"]], embedding)
    torch.testing.assert_close(alone, layers)
    assert layers.shape[1] == model.stage_channels[15] + model.embedding_size
