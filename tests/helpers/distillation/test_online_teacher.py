"""helpers.distillation.online_teacher and feature_matching: teachers that hear what the student hears."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.distillation.feature_matching import block_outputs, check_blocks, relative_errors
from helpers.distillation.online_teacher import OnlineTeacher
from helpers.training.mixing import Mix
from models import checkpoints
from models.errors import UserError
from models.MobileNetV3 import get_model
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel

SAMPLES = 16000


@pytest.fixture(scope="module")
def waveforms() -> torch.Tensor:
    levels = torch.tensor([[0.001], [0.01], [0.1], [1.0]])
    return levels * torch.randn(4, SAMPLES, generator=torch.Generator().manual_seed(0))


def model(seed: int, num_classes: int = 5, width: float = 0.1, **options: object) -> WaveformModel:
    """A network with the statistics of noise and large weights in its last layer, so that its logits depend on what it hears."""
    torch.manual_seed(seed)
    student = WaveformModel(get_model(num_classes, width_mult=width, **options))
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(student.network.classifier[-1].weight)
    with torch.no_grad():
        student.train()(torch.randn(4, SAMPLES) * torch.tensor([[0.001], [0.01], [0.1], [1.0]]))
    return student


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    paths = [folder / "one.pt", folder / "two.pt"]
    for seed, path in enumerate(paths):
        checkpoints.save(path, model(seed).network.eval())
    return paths


def detached(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def test_soft_targets_are_the_mean_of_the_teachers_on_the_mixed_view(teachers: list[Path], waveforms: torch.Tensor) -> None:
    student = model(7)
    teacher = OnlineTeacher(teachers, student)
    mix = Mix(torch.tensor([1, 2, 3, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6]))
    members = [WaveformModel(checkpoints.load_model(path)).eval() for path in teachers]
    with torch.no_grad():
        mixed = mix.apply(members[0].front_end(waveforms))
        expected = torch.stack([member.network(mixed.unsqueeze(1))[0] for member in members]).mean(0)
    torch.testing.assert_close(teacher(waveforms, mix).logits, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(teacher(waveforms, None).logits, expected, atol=1e-3)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(teachers: list[Path], waveforms: torch.Tensor) -> None:
    student = WaveformModel(checkpoints.load_model(teachers[0])).eval()
    teacher = OnlineTeacher(teachers[:1], student, feature_weight=1.0)
    spectrogram = student.front_end(waveforms)
    for blockwise in (False, True):
        losses = detached(teacher.losses(student.network, spectrogram, waveforms, None, blockwise=blockwise)[1])
        assert abs(losses["divergence"]) < 1e-5 and losses["feature_loss"] < 1e-6
        assert losses["distillation_loss"] > 0.1  # the teacher's own uncertainty
    losses = detached(teacher.losses(model(7).network.eval(), spectrogram, waveforms, None)[1])
    assert losses["divergence"] > 1e-5 and losses["feature_loss"] > 0.1
    assert losses["feature_loss"] == pytest.approx(sum(losses[f"block_{k}"] for k in range(18)) / 18, rel=1e-5)


def test_temperature_divides_the_teachers_logits(teachers: list[Path], waveforms: torch.Tensor) -> None:
    student = WaveformModel(checkpoints.load_model(teachers[0])).eval()
    spectrogram = student.front_end(waveforms)
    _, losses = OnlineTeacher(teachers[:1], student, temperature=4.0).losses(student.network, spectrogram, waveforms, None)
    assert losses["divergence"] > 1e-5


def test_blocks_learn_apart_from_each_other(teachers: list[Path], waveforms: torch.Tensor) -> None:
    """Block-wise, the error of one block depends on the weights of this block alone; else on all before it."""
    student = model(7)
    teacher = OnlineTeacher(teachers[:1], student, feature_weight=1.0)
    for blockwise in (True, False):
        student.zero_grad()
        _, losses = teacher.losses(student.network, student.front_end(waveforms), waveforms, None, blockwise=blockwise)
        losses["block_9"].backward()
        learning = {name.split(".")[1] for name, weight in student.network.named_parameters() if weight.grad is not None}
        assert learning == ({"9"} if blockwise else {str(number) for number in range(10)})
    assert all(parameter.grad is None for parameter in teacher.models.parameters())
    with block_outputs(student.network) as outputs:
        student.network(student.front_end(waveforms).unsqueeze(1))
    student.network(student.front_end(waveforms).unsqueeze(1))
    assert len(outputs) == 17  # nothing is collected outside of the context


def test_features_are_learnt_without_dropout(teachers: list[Path], waveforms: torch.Tensor) -> None:
    student = model(7)
    spectrogram = student.front_end(waveforms)
    for with_features in (True, False):
        teacher = OnlineTeacher(teachers[:1], student, feature_weight=float(with_features))
        student.train()
        first, again = (teacher.losses(student.network, spectrogram, waveforms, None)[0] for _ in range(2))
        assert torch.allclose(first, again, atol=1e-5) == with_features


def test_relative_error_of_features() -> None:
    torch.manual_seed(0)
    target = torch.randn(4, 3, 5, 6) * torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    same, mean, half = relative_errors([target, target.mean((0, 2, 3), keepdim=True).expand_as(target), target / 2], [target] * 3)
    assert same < 1e-9 and 0.6 < mean < 1 and float(half) == pytest.approx(float(mean) / 4, rel=0.1)


def test_rare_logits_weigh_no_more_than_others() -> None:
    target = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    (error,) = relative_errors([target + torch.tensor([0.5, 0.0])], [target])
    assert float(error) == pytest.approx(0.125 / 2)


def test_other_widths_are_compared_by_the_best_linear_map() -> None:
    torch.manual_seed(0)
    target = torch.randn(4, 6, 8, 8)
    wider = torch.einsum("bcft,dc->bdft", target, torch.randn(9, 6)) + 1
    assert relative_errors([wider], [target])[0] < 0.01
    noise = torch.randn(4, 9, 8, 8, requires_grad=True)
    (error,) = relative_errors([noise], [target])
    assert 0.8 < error < 1.0
    error.backward()
    assert noise.grad.abs().sum() > 0


def test_classes_are_matched_by_their_names(teachers: list[Path], waveforms: torch.Tensor) -> None:
    """The student has two of the teacher's five classes, in another order, and one of its own, which nobody teaches."""
    student = model(7, 3)
    student.network.labels = ("class 4", "own", "class 1")
    teacher = OnlineTeacher(teachers[:1], student)
    whole = WaveformModel(checkpoints.load_model(teachers[0])).eval()(waveforms)[0]
    torch.testing.assert_close(teacher(waveforms, None).logits, whole[:, [4, 1]], atol=1e-5, rtol=1e-4)
    logits, losses = teacher.losses(student.network.eval(), student.front_end(waveforms), waveforms, None)
    expected = nn.functional.binary_cross_entropy_with_logits(logits[:, [0, 2]], whole[:, [4, 1]].sigmoid())
    assert losses["distillation_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_teacher_must_fit_the_student(teachers: list[Path], tmp_path: Path) -> None:
    strangers, slow = model(0), model(0)
    strangers.network.labels = tuple("abcde")
    slow.front_end = AugmentMelSTFT(sr=16000)
    single = model(0).network
    single.single_label = True
    checkpoints.save(tmp_path / "single.pt", single)
    for names, student, named in (
        (teachers, strangers, "names"),
        (teachers, slow, "16000"),
        ([tmp_path / "single.pt"], model(0), "exclude"),
    ):
        with pytest.raises(UserError, match=named):
            OnlineTeacher(names, student)


def test_blocks_must_fit_the_teachers(teachers: list[Path]) -> None:
    student = model(0, width=0.2)
    teacher = OnlineTeacher(teachers, student, feature_weight=1.0)
    check_blocks(student.network, teacher.network, blockwise=False)
    with pytest.raises(UserError, match="width"):
        check_blocks(student.network, teacher.network, blockwise=True)
    with pytest.raises(UserError, match="strides"):
        check_blocks(model(0, strides=(2, 2, 2, 1)).network, teacher.network, blockwise=False)


def test_the_fingerprint_is_that_of_the_weights(teachers: list[Path]) -> None:
    student = model(7)
    one, two, again = (OnlineTeacher(names, student).fingerprint() for names in (teachers[:1], teachers[1:], teachers[:1]))
    assert one == again != two
