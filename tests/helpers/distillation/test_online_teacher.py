"""helpers.distillation.online_teacher and feature_matching: teachers that hear what the student hears."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.labels import audioset_labels
from helpers.distillation.feature_matching import block_outputs, check_blocks, relative_errors
from helpers.distillation.online_teacher import OnlineTeacher, matched_classes
from helpers.training.mixing import Mix, Style
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


def test_feature_maps_are_kept_only_to_be_learnt(teachers: list[Path], waveforms: torch.Tensor) -> None:
    """They take as much memory as the teacher's activations in training."""
    kept = [len(OnlineTeacher(teachers, model(7), feature_weight=weight)(waveforms, None).features) for weight in (0.0, 1.0)]
    assert kept == [0, 17]


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


# Classes that exclude each other


def exclusive(student: WaveformModel) -> WaveformModel:
    student.network.single_label = True
    return student


def test_classes_that_exclude_each_other_are_learnt_by_softmax(teachers: list[Path], waveforms: torch.Tensor) -> None:
    """Over the two classes that both have, at one temperature on both sides; the third gets nothing."""
    student = exclusive(model(7, 3).eval())
    student.network.labels = ("class 4", "own", "class 1")
    teacher = OnlineTeacher(teachers[:1], student, temperature=2.0)
    theirs = WaveformModel(checkpoints.load_model(teachers[0])).eval()(waveforms)[0][:, [4, 1]].detach().double()
    logits, losses = teacher.losses(student.network, student.front_end(waveforms), waveforms, None)
    own = logits.detach().double()[:, [0, 2]]
    p, q = ((x / 2).exp() / (x / 2).exp().sum(1, keepdim=True) for x in (theirs, own))
    assert losses["distillation_loss"].item() == pytest.approx(-4 * (p * q.log()).sum(1).mean().item(), rel=1e-4)
    assert losses["divergence"].item() == pytest.approx(4 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-3, abs=1e-6)
    (gradient,) = torch.autograd.grad(losses["distillation_loss"], logits)
    assert (gradient[:, 1] == 0).all() and (gradient[:, [0, 2]] != 0).all()


def test_a_teacher_may_say_more_than_one_class_to_a_student_of_one(teachers: list[Path], waveforms: torch.Tensor) -> None:
    """Its logits are taken as they are; the teacher may have learnt classes that exclude each other as well."""
    student = exclusive(WaveformModel(checkpoints.load_model(teachers[0])).eval())
    checkpoints.save(teachers[0].with_name("exclusive.pt"), student.network)
    for name in (teachers[0], teachers[0].with_name("exclusive.pt")):
        losses = OnlineTeacher([name], student).losses(student.network, student.front_end(waveforms), waveforms, None)[1]
        assert abs(losses["divergence"].item()) < 1e-5 and losses["distillation_loss"].item() > 0.01


def test_one_class_of_those_that_exclude_each_other_says_nothing(teachers: list[Path]) -> None:
    student = model(7, 2)
    student.network.labels = ("class 4", "own")
    OnlineTeacher(teachers, student)
    with pytest.raises(UserError, match="shares 1 ") as error:
        OnlineTeacher(teachers, exclusive(student))
    assert "'class 0'" in str(error.value) and "'own'" in str(error.value)


def test_names_are_matched_as_they_are_then_as_fsd50k_spells_them() -> None:
    audioset = ("Speech", "Male speech, man speaking", "Acoustic guitar", "dog", "Dog")
    assert matched_classes(("Male_speech_and_man_speaking", "Acoustic_guitar", "own"), audioset) == {0: 1, 1: 2}
    assert matched_classes(("speech", "Dog", "DOG"), audioset) == {0: 0, 1: 4, 2: 3}
    assert matched_classes(("dog", "Dog", "rain"), audioset) == {0: 3, 1: 4}
    assert matched_classes(audioset_labels(), audioset_labels()) == {k: k for k in range(527)}


# The training step


def test_the_teacher_hears_freq_mixstyle_and_then_mixup(teachers: list[Path], waveforms: torch.Tensor) -> None:
    teacher = OnlineTeacher(teachers[:1], model(7))
    mix = Mix(torch.tensor([1, 2, 3, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6]))
    style = Style(torch.tensor([3, 2, 0, 1]), torch.tensor([0.1, 0.5, 0.2, 0.3])[:, None, None])
    member = WaveformModel(checkpoints.load_model(teachers[0])).eval()
    with torch.no_grad():
        mixed = mix.apply(style.apply(member.front_end(waveforms)))
        expected = member.network(mixed.unsqueeze(1))[0]
    torch.testing.assert_close(teacher(waveforms, mix, style).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("label_share", [0.0, 0.3])
def test_the_loss_is_the_weighted_sum_of_its_parts(label_share: float, teachers: list[Path], waveforms: torch.Tensor) -> None:
    """Without a share, the labels are not asked for: there may be none."""
    student = model(7).eval()
    asked: list[torch.Tensor] = []

    def label_loss(logits: torch.Tensor) -> torch.Tensor:
        asked.append(logits)
        return torch.tensor(5.0)

    teacher = OnlineTeacher(teachers, student, label_share=label_share, feature_weight=2.0)
    losses = detached(teacher.training_losses(student.network, student.front_end(waveforms), waveforms, None, label_loss))
    expected = (1 - label_share) * losses["distillation_loss"] + 2 * losses["feature_loss"] + label_share * 5
    assert losses["loss"] == pytest.approx(expected, rel=1e-5) and len(asked) == (label_share > 0) == ("label_loss" in losses)
