"""Taps against hooks on the plain network, sizes against published ones, scenes and time stamps against windows cut by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datasets import audio
from models.config import Arch, MelConfig
from models.embeddings import PUBLISHED_BEST, EmbeddingConfig, EmbeddingModel, forward_layers, layer_sizes
from models.MobileNetV3 import get_model
from models.network import MobileNetV3

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "resources" / "recordings"
PUBLISHED_SIZES = {0.1: 184, 0.2: 224, 0.4: 320, 0.5: 368, 1: 600, 2: 1072, 3: 1544, 4: 2016}
ARCHS = [
    Arch(7, 0.1),
    Arch(7, 0.4, head_type="fully_convolutional", se_dims="cf"),
    Arch(7, 0.1, head_type="multihead_attention_pooling", se_dims="none", input_dim_f=40),
    Arch(7, 0.1, reduced_tail=True, dilated=True, se_dims="cft", input_dim_t=101),
]


def network_of(arch: Arch, **mel: int) -> MobileNetV3:
    """A network whose batch norms have seen something, so that no two layers give the same."""
    torch.manual_seed(0)
    network = MobileNetV3(arch, MelConfig(n_mels=arch.input_dim_f, **mel))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return EmbeddingModel(network_of(Arch(7, 0.1))).eval()


@pytest.fixture(scope="module")
def scene() -> Tensor:
    """(1, samples): 10 s of speech and music."""
    return torch.from_numpy(audio.load(RECORDINGS / "scene.ogg", 32000))[None]


@pytest.mark.parametrize(("width", "size"), PUBLISHED_SIZES.items())
def test_the_published_best_has_the_published_size(width: float, size: int) -> None:
    with torch.device("meta"):  # without weights, so nothing can have been computed
        network = get_model(width_mult=width)
    assert sum(columns.stop - columns.start for columns in EmbeddingConfig().columns(network).values()) == size


@pytest.mark.parametrize("pooling", ["mean", "max", "both"])
@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: f"{arch.head_type}-{arch.se_dims}")
def test_layers_are_what_hooks_on_the_plain_network_see(arch: Arch, pooling: str) -> None:
    network = network_of(arch)
    x = torch.randn(2, 1, arch.input_dim_f, 101)
    expected: dict[str, Tensor] = {}

    def pool(maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        parts = {"mean": flat.sum(2) / flat.shape[2], "max": flat.sort(2).values[..., -1]}
        return torch.cat(list(parts.values()), 1) if pooling == "both" else parts[pooling]

    def keep(name: str, function=lambda value: value):
        return lambda _, __, output: expected.__setitem__(name, function(output.detach().clone()))

    def keep_squeezed(name: str):
        return lambda _, __, y: expected.update({name: torch.cat([expected.get(name, y[:, :0]), y.clamp(min=0)], 1)})

    expected["mel"] = pool(x[:, 0])
    hooks = []
    for number, stage in enumerate(network.features):
        hooks.append(stage.register_forward_hook(keep(f"block{number}", pool)))
        squeezing = [module for name, module in stage.named_modules() if name.endswith("fc1")]
        hooks += [module.register_forward_hook(keep_squeezed(f"se{number}")) for module in squeezing]
    if arch.head_type == "mlp":
        hooks.append(network.classifier[3].register_forward_hook(keep("hidden")))
    with torch.no_grad():
        expected["logits"], expected["embedding"] = network(x)
        for hook in hooks:
            hook.remove()
        found = forward_layers(network, x, list(layer_sizes(network)), pooling)
    assert set(found) == set(expected)
    for name, size in layer_sizes(network, pooling).items():
        assert found[name].shape == expected[name].shape == (2, size), name
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5, msg=name)
    assert torch.equal(found["logits"], expected["logits"]) and torch.equal(found["embedding"], expected["embedding"])


def test_nothing_behind_the_last_layer_is_computed(model: EmbeddingModel, scene: Tensor) -> None:
    calls = []
    hooks = [
        stage.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, stage in enumerate(model.network.features)
    ]
    for layers, last in ((["mel"], -1), (["block5"], 5), (["block2", "mel"], 2), (["embedding"], 16)):
        calls.clear()
        with torch.no_grad():
            EmbeddingModel(model.network, EmbeddingConfig(layers)).eval().embed(scene[:, :9000])
        assert calls == list(range(last + 1)), layers
    for hook in hooks:
        hook.remove()


def test_the_same_bits_each_time_whatever_else_is_asked_for(model: EmbeddingModel, scene: Tensor) -> None:
    everything = EmbeddingModel(model.network, EmbeddingConfig("*")).eval()
    with torch.no_grad():
        first, again = model.embed(scene), model.embed(scene)
        all_layers = everything.embed(scene)
        logits, embedding = everything(scene)
        plain = model.network(model.front_end(scene)[:, None])
    assert torch.equal(first, again) and torch.equal(embedding, all_layers) and torch.equal(logits, plain[0])
    for layer in PUBLISHED_BEST:
        assert torch.equal(first[:, model.columns[layer]], all_layers[:, everything.columns[layer]])


def test_columns_are_in_the_order_of_the_names(model: EmbeddingModel) -> None:
    columns = EmbeddingConfig(("mel", "block5", "se1?"), "both").columns(model.network)
    assert list(columns) == ["mel", "block5", "se11", "se12", "se13", "se14", "se15"]
    starts = [part.start for part in columns.values()]
    assert starts == [0, 256, 272, *(272 + sum(layer_sizes(model.network)[f"se{n}"] for n in range(11, k)) for k in range(12, 16))]
    assert str(EmbeddingConfig(" mel + block5 ")) == "mel+block5" and EmbeddingConfig("mel+block5").layers == ("mel", "block5")


@pytest.mark.parametrize(
    ("layers", "pooling", "message"),
    [
        ("block17", "mean", "block17.*block16"),
        ("", "mean", "unknown layer"),
        ("mel+mel", "mean", "twice"),
        ("mel", "median", "median.*mean, max, both"),
    ],
)
def test_wrong_choices_are_refused(model: EmbeddingModel, layers: str, pooling: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingConfig(layers, pooling).columns(model.network)


def test_a_head_without_a_hidden_layer_has_none() -> None:
    network = network_of(Arch(7, 0.1, head_type="fully_convolutional"))
    with pytest.raises(ValueError, match="hidden"):
        EmbeddingModel(network, EmbeddingConfig("hidden"))


def test_a_scene_is_the_mean_of_its_windows(model: EmbeddingModel, scene: Tensor) -> None:
    sound = scene[:, :79999]
    starts = (0, 16000, 32000, 47999)  # windows of 1 s every 0.5 s; the last one is moved back
    with torch.no_grad():
        expected = sum(model.embed(sound[:, start : start + 32000]) for start in starts) / len(starts)
        torch.testing.assert_close(model.scenes(sound, 1.0, 0.5), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(model.scenes(scene[:, :32000], 1.0, 0.5), model.embed(scene[:, :32000]))  # exactly one window
        assert torch.equal(model.scenes(scene[:, :300]), model.embed(scene[:, :300]))  # shorter than a window
        torch.testing.assert_close(model.scenes(torch.cat([sound, sound.flip(1)]), 1.0, 0.5)[:1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rate", [32000, 22050])  # at 22,050 Hz a hop is no whole number of samples
def test_time_stamps_alone_in_a_batch_and_window_by_window(scene: Tensor, rate: int) -> None:
    model = EmbeddingModel(network_of(Arch(7, 0.4), sample_rate=rate)).eval()
    clips = scene[0, : 3 * 33000].reshape(3, 33000)
    embeddings, times = model.timestamps(clips)
    assert embeddings.shape == (3, int(33000 / rate / 0.05) + 1, model.embedding_size)
    assert not embeddings.requires_grad and times.shape == embeddings.shape[:2] and times.dtype == embeddings.dtype == torch.float32
    torch.testing.assert_close(times[1], 50.0 * torch.arange(times.shape[1]))
    for clip, expected in zip(clips, embeddings, strict=True):
        torch.testing.assert_close(model.timestamps(clip[None])[0][0], expected, atol=1e-4, rtol=0)
    length = round(0.16 * rate)
    sound = torch.cat([torch.zeros(length // 2), clips[2], torch.zeros(length)])
    with torch.no_grad():
        for number in range(times.shape[1]):
            start = round(number * 0.05 * rate)  # of the window around the time, in the padded clip
            alone = model.embed(sound[None, start : start + length])[0]
            torch.testing.assert_close(embeddings[2, number], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(embeddings[:, 5], embeddings[:, 6], atol=1e-3)


def test_time_stamps_do_not_drift_and_end_with_the_sound() -> None:
    model = EmbeddingModel(network_of(Arch(7, 0.1), sample_rate=22050), EmbeddingConfig("mel")).eval()
    for samples in (1, 1102, 1103, 22050, 600 * 22050 + 100):
        _, times = model.timestamps(torch.zeros(1, samples), window=0.01)
        seconds = samples / 22050
        assert times[0, 0] == 0 and times[0, -1] <= 1000 * seconds < times[0, -1] + 50


@pytest.mark.parametrize("arguments", [{"window": 0}, {"hop": -1}, {"hop": float("nan")}, {"window": float("inf")}])
def test_impossible_windows_are_refused(model: EmbeddingModel, arguments: dict[str, float]) -> None:
    for method in (model.scenes, model.timestamps):
        with pytest.raises(ValueError, match="seconds"):
            method(torch.zeros(1, 1000), **arguments)


@pytest.mark.parametrize("shape", [(1000,), (1, 0), (0, 1000), (1, 2, 1000)])
def test_wrong_waveforms_are_refused(model: EmbeddingModel, shape: tuple[int, ...]) -> None:
    for method in (model.scenes, model.timestamps):
        with pytest.raises(ValueError, match="shape"):
            method(torch.zeros(shape))
