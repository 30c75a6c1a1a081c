import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from helpers.probing.probe import HEAR, METRICS, Configuration, ProbeResult, Protocol, build_network, probe
from helpers.tagger.audio_tagger import AudioTagger

RECORDINGS = Path(__file__).resolve().parents[3] / "resources" / "recordings"
SMALL = Protocol(grid_points=2, hidden_size=64, max_epochs=45, patience=4)
ONE_CHECK = Protocol(grid_points=3, hidden_size=8, max_epochs=1, check_every=1)
THREE = np.array(["train", "valid", "test"])


def gaussians(noise: float, num_classes: int = 4, clips: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings (clips, 16) around one centre per class, targets, and splits f0, f1 and f2, all of them balanced."""
    rng = np.random.default_rng(0)
    classes = np.arange(clips) % num_classes
    embeddings = 3 * rng.standard_normal((num_classes, 16))[classes] + noise * rng.standard_normal((clips, 16))
    splits = np.array([f"f{i // num_classes % 3}" for i in range(clips)])
    return embeddings.astype(np.float32), np.eye(num_classes, dtype=np.uint8)[classes], splits


def classify(
    embeddings: np.ndarray, targets: np.ndarray, splits: np.ndarray, seed: int = 0, protocol: Protocol = SMALL
) -> ProbeResult:
    return probe(embeddings, targets, splits, single_label=True, metric="top1_acc", folds=True, seed=seed, protocol=protocol)


def test_metrics_against_the_definitions() -> None:
    """On random arrays with and without ties, all four gave what heareval 2021.1.3 computes (score.py), d' to 5e-16."""
    rng = np.random.default_rng(0)
    targets = (rng.random((150, 5)) < [0.1, 0.3, 0.5, 0.7, 0.9]).astype(np.uint8)
    scores = rng.standard_normal((150, 5)) + targets
    areas = roc_auc_score(targets, scores, average=None)
    expected = {
        "top1_acc": np.mean([target.argmax() == score.argmax() for target, score in zip(targets, scores, strict=True)]),
        "mAP": average_precision_score(targets, scores),
        "aucroc": np.mean(areas),
        "d_prime": np.mean([math.sqrt(2) * NormalDist().inv_cdf(area) for area in areas]),
    }
    expected["pitch_acc"] = expected["top1_acc"]
    assert {name: metric(targets, scores) for name, metric in METRICS.items()} == pytest.approx(expected)


def test_metrics_leave_out_classes_for_which_they_are_undefined() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=(50, 4)).astype(np.uint8)
    targets[:, 2], targets[:, 3] = 0, 1
    scores = rng.standard_normal((50, 4))
    for name, classes in (("mAP", [0, 1, 3]), ("aucroc", [0, 1]), ("d_prime", [0, 1])):
        assert METRICS[name](targets, scores) == pytest.approx(METRICS[name](targets[:, classes], scores[:, classes]))
        assert math.isnan(METRICS[name](targets[:, 2:3], scores[:, 2:3]))
    assert METRICS["mAP"](targets[:, :1], scores[:, :1]) == pytest.approx(average_precision_score(targets[:, 0], scores[:, 0]))


@pytest.mark.parametrize("name", ["xavier_uniform", "xavier_normal"])
def test_network_is_that_of_the_protocol(name: str) -> None:
    """With one seed, parameters and outputs equalled those of heareval 2021.1.3's FullyConnectedPrediction to the bit."""
    network = build_network(600, 50, Configuration(2, 1e-3, name))
    hidden = [nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.ReLU]
    assert [type(module) for module in network] == [*hidden, *hidden, nn.Linear]
    assert network[2].p == 0.1
    for module, (fan_in, fan_out, gain) in zip(network[::4], [(600, 1024, 1), (1024, 1024, 2), (1024, 50, 2)], strict=True):
        std = math.sqrt(gain * 2 / (fan_in + fan_out))  # gain squared: 1 behind the embedding, 2 behind ReLU
        assert module.weight.shape == (fan_out, fan_in)
        assert module.weight.std().item() == pytest.approx(std, rel=0.02)
        largest = module.weight.abs().max().item() / std
        assert (largest == pytest.approx(math.sqrt(3), rel=0.01)) if name == "xavier_uniform" else largest > 3
    assert len(build_network(600, 50, Configuration(1, 1e-3, name))) == 5


def test_grid_draws_half_of_sixteen_points() -> None:
    points = HEAR.grid(0)
    assert len(set(points)) == 8 and points == HEAR.grid(0) and points != HEAR.grid(1)
    every = {point for seed in range(20) for point in HEAR.grid(seed)}
    assert len(every) == 16 and {point.lr for point in every} == {3.2e-3, 1e-3, 3.2e-4, 1e-4}


def test_separable_classes_are_learned_and_constant_embeddings_are_not() -> None:
    embeddings, targets, splits = gaussians(noise=0.5)
    assert classify(embeddings, targets, splits).score == 1
    constant = classify(np.ones_like(embeddings), targets, splits)
    assert constant.score == pytest.approx(0.25) and [fold.test_split for fold in constant.folds] == ["f0", "f1", "f2"]


@pytest.mark.parametrize(("metric", "chance"), [("mAP", 0.5), ("aucroc", 0.5), ("d_prime", 0)])
def test_multi_label_tasks_with_fixed_splits(metric: str, chance: float) -> None:
    rng = np.random.default_rng(0)
    targets = rng.permuted(np.arange(180)[:, None] % 2 * np.ones((180, 3), np.uint8), axis=0).astype(np.uint8)
    embeddings = (targets @ rng.standard_normal((3, 16)) + 0.3 * rng.standard_normal((180, 16))).astype(np.float32)
    splits = THREE[np.arange(180) % 3]
    how = {"single_label": False, "metric": metric, "folds": False, "protocol": SMALL}
    result = probe(embeddings, targets, splits, **how)
    assert result.score > (2 if metric == "d_prime" else 0.95)
    assert len(result.folds) == 1 and result.folds[0].test_split == "test"
    constant = probe(np.zeros_like(embeddings), targets, splits, **how)
    assert constant.score == pytest.approx(chance, abs=0.3 if metric == "d_prime" else 0.1)


def test_no_fold_is_tested_by_who_trained_on_it() -> None:
    """Classes mean something else in fold f0."""
    embeddings, targets, splits = gaussians(noise=0.5)
    targets[splits == "f0"] = np.roll(targets[splits == "f0"], 1, axis=1)
    result = classify(embeddings, targets, splits)
    assert (result.folds[0].validation_score, result.folds[0].score) == (1, 0)
    assert max(fold.validation_score for fold in result.folds[1:]) < 0.6  # f0 trains, or validates
    assert result.score == pytest.approx(np.mean([fold.score for fold in result.folds]))


def test_a_seed_gives_one_result_whatever_came_before() -> None:
    noisy = gaussians(noise=8)
    one_point = replace(SMALL, hidden_layers=(1,), lrs=(1e-3,), initialisations=("xavier_normal",))
    first = classify(*noisy, protocol=one_point)
    classify(*gaussians(noise=4), seed=3)
    torch.manual_seed(17)
    before = torch.get_rng_state()
    assert classify(*noisy, protocol=one_point) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert classify(*noisy, seed=1, protocol=one_point).folds[0] != first.folds[0]


Scripted = Callable[[list[float]], list[np.ndarray]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A metric that returns the given values one after the other, and a list of the scores it was called with."""

    def script(values: list[float]) -> list[np.ndarray]:
        calls: list[np.ndarray] = []
        rest: Iterator[float] = iter(values)

        def metric(targets: np.ndarray, scores: np.ndarray) -> float:
            if scores is targets:
                return 1.0  # the highest possible value
            calls.append(scores)
            return next(rest)

        monkeypatch.setitem(METRICS, "scripted", metric)
        return calls

    return script


def probe_scripted(protocol: Protocol) -> ProbeResult:
    """The splits hold the same clips."""
    embeddings, targets, _ = gaussians(noise=3)
    return probe(
        np.tile(embeddings, (3, 1)), np.tile(targets, (3, 1)), np.repeat(THREE, len(targets)),
        single_label=True, metric="scripted", folds=False, protocol=protocol,
    )  # fmt: skip


def test_training_ends_without_improvement_and_the_best_weights_are_tested(scripted: Scripted) -> None:
    calls = scripted([math.nan, 0.1, 0.5, 0.4, 0.5, math.nan, 0.7])
    result = probe_scripted(Protocol(grid_points=1, hidden_size=8, patience=3))
    (fold,) = result.folds
    assert (fold.epoch, fold.validation_score, fold.score) == (9, 0.5, 0.7)  # checks after each third epoch
    assert np.array_equal(calls[-1], calls[2]) and not np.array_equal(calls[-1], calls[-2])


def test_training_ends_at_a_perfect_score(scripted: Scripted) -> None:
    calls = scripted([0.1, 1.0, 0.7])
    (fold,) = probe_scripted(Protocol(grid_points=2, hidden_size=8)).folds
    assert (fold.epoch, fold.score, len(calls)) == (6, 0.7, 3)


def test_training_ends_at_the_last_epoch(scripted: Scripted) -> None:
    scripted([0.1, 0.2, 0.3, 0.9])
    (fold,) = probe_scripted(Protocol(grid_points=1, hidden_size=8, max_epochs=11)).folds
    assert (fold.epoch, fold.validation_score, fold.score) == (9, 0.3, 0.9)


def test_the_next_fold_validates(scripted: Scripted) -> None:
    calls = scripted([0.5] * 20)
    embeddings, targets, _ = gaussians(noise=3)
    splits = np.repeat(["d", "a", "b", "c"], [40, 17, 30, 33])
    protocol = Protocol(grid_points=2, hidden_size=8, max_epochs=1, check_every=1)
    probe(embeddings, targets, splits, single_label=True, metric="scripted", folds=True, protocol=protocol)
    clips = [len(scores) for scores in calls]  # that validate and that test, in turn
    assert clips == [30, 17, 30, 17, 33, 30, 40, 33, 17, 40]  # a is tested at each of both points, then b, c and d


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.2, 0.9, 0.6, 0.3, 0.6, 0.8], 1),  # validation and test in turn; the first of equals
        ([0.2, 0.9, 0.3, 0.1, 0.6, 0.3], 2),
        ([0.2, 0.9, 1.0, 0.3], 1),  # perfect: the rest need not be trained
    ],
)
def test_the_best_point_in_validation_is_chosen(scripted: Scripted, scores: list[float], chosen: int) -> None:
    calls = scripted(scores)
    result = probe_scripted(ONE_CHECK)
    assert result.configuration == ONE_CHECK.grid(0)[chosen]
    assert result.score == 0.3 and len(calls) == len(scores)


def test_batches_of_equal_size_leave_no_clip_alone() -> None:
    embeddings, targets, splits = gaussians(noise=0.5)  # 40 clips train: batches of 39 would leave one to batch norm
    protocol = Protocol(grid_points=1, hidden_size=64, max_epochs=30, batch_size=39)
    assert classify(embeddings, targets, splits, protocol=protocol).score == 1


def test_pieces_of_real_recordings_are_distinguished() -> None:
    tagger = AudioTagger("mn04_distilled")
    names = ("rock", "speech", "wind")
    parts = [tagger.embed(RECORDINGS / f"{name}.ogg", window=1.0, hop=1.0) for name in names]
    classes = np.repeat(range(3), [len(part) for part in parts])
    splits = np.array([f"third {i * 3 // len(part)}" for part in parts for i in range(len(part))])
    assert classify(np.concatenate(parts), np.eye(3, dtype=np.uint8)[classes], splits).score > 0.8


GOOD = gaussians(noise=1)


def bad_input() -> dict[str, dict[str, object]]:
    """Arguments in place of good ones."""
    embeddings, targets, splits = GOOD
    nan, two_classes = embeddings.copy(), targets.copy()
    nan[7, 3], two_classes[5] = np.nan, 1
    no_positives = targets * (splits != "f1")[:, None]
    return {
        "not finite": {"embeddings": nan},
        "no clips": {"embeddings": embeddings[:0], "targets": targets[:0], "splits": splits[:0]},
        "one axis": {"embeddings": embeddings[:, 0]},
        "fewer targets": {"targets": targets[1:]},
        "two classes": {"targets": two_classes},
        "probabilities": {"targets": targets * 0.5, "single_label": False},
        "undefined": {"targets": no_positives, "single_label": False, "metric": "mAP"},
        "fewer splits": {"splits": splits[1:]},
        "two folds": {"splits": np.where(splits == "f0", "f1", splits)},
        "one training clip": {"splits": np.where(np.arange(120) == 0, "a", np.where(splits == "f0", "b", "c"))},
        "no validation": {"splits": np.where(splits == "f0", "train", "test"), "folds": False},
        "unknown metric": {"metric": "accuracy"},
    }


@pytest.mark.parametrize("changes", bad_input().values(), ids=bad_input())
@pytest.mark.filterwarnings("error")
def test_bad_input(changes: dict[str, object]) -> None:
    arguments = dict(zip(("embeddings", "targets", "splits"), GOOD, strict=True))
    arguments |= {"single_label": True, "metric": "top1_acc", "folds": True, **changes}
    with pytest.raises(ValueError) as error:
        probe(**arguments, protocol=SMALL)
    assert "\n" not in str(error.value)


def test_a_protocol_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError):
        Protocol(max_epochs=2)
