"""Conversion of public ImageNet weights, against MobileNetV3-Large written out again here, in torchvision's and timm's names.

Names and shapes are those of torchvision 0.29.1's `mobilenet_v3_large` and timm 1.0's `mobilenetv3_large_100` (tests/golden).
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models import checkpoints, convert
from models.errors import UserError
from models.MobileNetV3 import get_model

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"
LAYOUTS = {"torchvision": "torchvision_mobilenet_v3_large", "timm": "timm_mobilenetv3_large_100"}
BLOCKS = (  # kernel, squeeze-and-excitation, Hardswish (else ReLU), stride: Howard et al., Table 1, without its first and last rows
    (3, 0, 0, 1), (3, 0, 0, 2), (3, 0, 0, 1), (5, 1, 0, 2), (5, 1, 0, 1), (5, 1, 0, 1), (3, 0, 1, 2), (3, 0, 1, 1), (3, 0, 1, 1),
    (3, 0, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (5, 1, 1, 2), (5, 1, 1, 1), (5, 1, 1, 1),
)  # fmt: skip
NORM = "features.7.block.1.1.weight"
TIMM_BLOCKS = "0.0 1.0 1.1 2.0 2.1 2.2 3.0 3.1 3.2 3.3 4.0 4.1 5.0 5.1 5.2".split()


def random_state(layout: str) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in _random_state(layout).items()}


@functools.cache
def _random_state(layout: str) -> dict[str, Tensor]:
    """Random weights in a layout, whose norms hold the statistics of images as those of a trained network do."""
    with open(GOLDEN_DIR / f"state_dict_{LAYOUTS[layout]}.tsv", newline="") as file:
        shapes = {
            row["name"]: tuple(map(int, row["shape"].split(","))) if row["shape"] else ()
            for row in csv.DictReader(file, delimiter="\t")
        }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            gain = 1.0 if ".fc" in name or ".se." in name else 0.1  # small variances distinguish one epsilon from another
            state[name] = gain * noise / noise[0].numel() ** 0.5
        else:
            state[name] = 0.2 * noise + (1 if name.endswith("weight") else 0)
    images = torch.randn(4, 3, 96, 64, generator=generator)
    for _ in reference(state, layout, images, functional.hardsigmoid, set_statistics=True):
        pass
    return state


def reference(
    state: dict[str, Tensor], layout: str, images: Tensor, gate: Callable[[Tensor], Tensor], *, set_statistics: bool = False
) -> Iterator[Tensor]:
    """Features behind the stem and each block, the last convolution, and the hidden layer: colour images (B, 3, H, W) in."""
    timm, epsilon = layout == "timm", 1e-5 if layout == "timm" else 1e-3

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
        if set_statistics:
            state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = x.mean((0, 2, 3)), x.var((0, 2, 3))
        mean, variance, scale, shift = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean[:, None, None]) / (variance[:, None, None] + epsilon).sqrt() * scale[:, None, None] + shift[:, None, None]

    stem, last = (("conv_stem", "bn1"), ("blocks.6.0.conv", "blocks.6.0.bn1")) if timm else (
        ("features.0.0", "features.0.1"), ("features.16.0", "features.16.1"),
    )  # fmt: skip
    x = functional.hardswish(conv_norm(images, *stem, stride=2))
    yield x
    for number, (kernel, has_se, hard, stride) in enumerate(BLOCKS):
        activation = functional.hardswish if hard else torch.relu
        block = f"blocks.{TIMM_BLOCKS[number]}" if timm else f"features.{number + 1}.block"
        expands, shift = number > 0, int(number > 0)
        if timm:
            wide, deep, narrow = (
                ("conv_pw", "bn1"),
                ("conv_dw", f"bn{1 + shift}"),
                ("conv_pwl" if expands else "conv_pw", f"bn{2 + shift}"),
            )
            squeeze, excite = "se.conv_reduce", "se.conv_expand"
        else:
            wide, deep, narrow = ((f"{i}.0", f"{i}.1") for i in (0, shift, shift + 1 + has_se))
            squeeze, excite = f"{shift + 1}.fc1", f"{shift + 1}.fc2"
        y = x
        if expands:
            y = activation(conv_norm(y, f"{block}.{wide[0]}", f"{block}.{wide[1]}"))
        assert state[f"{block}.{deep[0]}.weight"].shape[-1] == kernel
        y = activation(conv_norm(y, f"{block}.{deep[0]}", f"{block}.{deep[1]}", stride))
        if has_se:
            weights = [(state[f"{block}.{part}.weight"], state[f"{block}.{part}.bias"]) for part in (squeeze, excite)]
            scale = functional.conv2d(torch.relu(functional.conv2d(y.mean((2, 3), keepdim=True), *weights[0])), *weights[1])
            y = y * gate(scale)
        y = conv_norm(y, f"{block}.{narrow[0]}", f"{block}.{narrow[1]}")
        x = x + y if stride == 1 and x.shape == y.shape else y
        yield x
    x = functional.hardswish(conv_norm(x, *last))
    yield x
    hidden = "conv_head" if timm else "classifier.0"
    yield functional.hardswish(functional.linear(x.mean((2, 3)), state[f"{hidden}.weight"].flatten(1), state[f"{hidden}.bias"]))


def converted(state: dict[str, Tensor], folder: Path, *options: object) -> checkpoints.Checkpoint:
    torch.save(state, folder / "source.pth")
    assert convert.main([str(folder / "source.pth"), "--output", str(folder / "out" / "mn.pt"), *map(str, options)]) == 0
    return checkpoints.load(folder / "out" / "mn.pt")


def features(checkpoint: checkpoints.Checkpoint, images: Tensor) -> list[Tensor]:
    """What `reference` yields, of the converted network: grey images (B, 1, H, W) in."""
    network = checkpoints.build(checkpoint).eval().to(images.dtype)
    result = []
    x = images
    for module in network.features:
        result.append(x := module(x))
    for module in network.classifier[:4]:
        x = module(x)
    return [*result, x]


def largest(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the features' standard deviation."""
    return ((ours - theirs).abs().max() / theirs.std()).item()


def typical(ours: Tensor, theirs: Tensor) -> float:
    """Root of the mean squared difference as a share of the features' standard deviation."""
    return ((ours - theirs).square().mean().sqrt() / theirs.std()).item()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def check(checkpoint: checkpoints.Checkpoint, images: Tensor, theirs: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in float64, in which rounding does not add up over the blocks; `theirs` has hard sigmoids."""
    ours = features(checkpoint, images)
    assert all(largest(*pair) < 1e-5 for pair in zip(ours[:4], theirs[:4], strict=True))  # stem, blocks 1 to 3: without gates
    moved = [typical(*pair) for pair in zip(ours, theirs, strict=True)]
    assert moved[4] > 0.01  # the sigmoid moves the features of block 4, and of all that follow
    monkeypatch.setattr(torch, "sigmoid", functional.hardsigmoid)
    assert all(typical(*pair) < 1e-5 for pair in zip(features(checkpoint, images), theirs, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_features_are_those_of_the_source(layout: str, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_state(layout)
    checkpoint = converted(state, tmp_path)
    doubled = {name: tensor.double() for name, tensor in state.items()}
    check(checkpoint, images, list(reference(doubled, layout, images.expand(-1, 3, -1, -1), functional.hardsigmoid)), monkeypatch)


@torch.inference_mode()
def test_features_are_those_of_torchvision_itself(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.mobilenet_v3_large().eval()
    state = random_state("torchvision")
    network.load_state_dict(state)
    theirs, x = [], images.expand(-1, 3, -1, -1)
    for module in network.double().features:
        theirs.append(x := module(x))
    theirs.append(network.classifier[:2](x.mean((2, 3))))
    check(converted(state, tmp_path), images, theirs, monkeypatch)


def test_other_widths_of_torchvision(tmp_path: Path) -> None:
    mobilenetv3 = pytest.importorskip("torchvision.models.mobilenetv3")
    rows, last_channel = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=0.4)
    checkpoint = converted(mobilenetv3.MobileNetV3(rows, last_channel).state_dict(), tmp_path, "--width", 0.4)
    assert checkpoint.arch.width_mult == 0.4 and checkpoint.state["classifier.2.weight"].shape == (512, 384)


def test_the_report_names_every_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = random_state("timm")
    checkpoint = converted(state, tmp_path)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["layout"] == "timm" and lines["copied"] == "309 tensors of 312"
    assert lines["summed over the colours"] == "conv_stem.weight (16, 3, 3, 3)"
    assert lines["rescaled for another epsilon of the batch norms"] == "46"
    assert lines["initialised"] == "classifier.5.weight (527, 1280), classifier.5.bias (527,)"
    assert lines["ignored"] == "classifier.weight (1000, 1280), classifier.bias (1000,)"
    assert checkpoint.args == {"source": "source.pth"} and checkpoint.labels is None and checkpoint.arch.num_classes == 527
    torch.testing.assert_close(checkpoint.state["features.0.0.weight"], state["conv_stem.weight"].sum(1, keepdim=True))


def test_variants_that_change_no_shapes(tmp_path: Path) -> None:
    state = random_state("torchvision")
    options = ("--strides", 2, 2, 1, 1, "--n_mels", 64, "--hop_size", 480, "--head_type", "fully_convolutional")
    checkpoint = converted(state, tmp_path, *options)
    assert (checkpoint.arch.strides, checkpoint.arch.input_dim_f) == ((2, 2, 1, 1), 64)
    assert (checkpoint.mel.n_mels, checkpoint.mel.hop_size) == (64, 480)
    model = get_model(pretrained_name=str(tmp_path / "out" / "mn.pt"), head_type="fully_convolutional").eval()
    logits, embedding = model(torch.randn(1, 1, 64, 67))
    assert logits.shape == (1, 527) and embedding.isfinite().all()


def test_batch_norm_eps_names_the_epsilon_of_the_source(tmp_path: Path) -> None:
    """timm's models tf_* have its names and torchvision's epsilon."""
    state = random_state("timm")
    checkpoint = converted(state, tmp_path, "--batch_norm_eps", 1e-3)
    assert torch.equal(checkpoint.state["features.0.1.weight"], state["bn1.weight"])


def test_safetensors_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="pip install safetensors"):
        convert.main([str(tmp_path / "x.safetensors"), "--output", str(tmp_path / "mn.pt")])


UNFIT = {  # what a file may hold, given weights of torchvision, and a part of the message
    "missing": (lambda state: {name: state[name] for name in state if name != NORM}, f"{NORM} is missing"),
    "unknown": (lambda state: state | {"features.17.weight": torch.ones(1)}, "features.17.weight"),
    "own": (lambda _: get_model(width_mult=0.1).state_dict(), "colour"),
    "not a state dict": (lambda state: {"model": state, "epoch": 3}, "state dict"),
    "pickle": (lambda _: Path, "not a readable"),  # a class, which would have to be imported
    "web page": (lambda _: b"<!doctype html>", "web page"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_in_one_line(case: str, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    path, output = tmp_path / "source.pth", tmp_path / "mn.pt"
    content_of, named = UNFIT[case]
    content = content_of(random_state("torchvision"))
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert named in failing_message(convert.main, path, "--output", output)
    assert not output.exists()


def test_another_width_and_no_file_are_refused_in_one_line(tmp_path: Path, failing_message: Callable[..., str]) -> None:
    argv = (tmp_path / "source.pth", "--output", tmp_path / "mn.pt")
    assert "not found" in failing_message(convert.main, *argv)
    torch.save(random_state("torchvision"), argv[0])
    assert "features.2.block.0.1.weight (64,) should be (48,)" in failing_message(convert.main, *argv, "--width", "0.75")
    assert not argv[2].exists()
