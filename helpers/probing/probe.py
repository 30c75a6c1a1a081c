"""The shallow probe of the HEAR 2021 benchmark: how well a small network solves a task from embeddings that are already computed.

Turian et al., HEAR: Holistic Evaluation of Audio Representations, PMLR 176, 2022; numbers and rules are those of its evaluation
kit, heareval 2021.1.3, for tasks with one embedding for each recording ("scene" tasks) or each timestamp ("event" tasks). Two
differences matter only with more than a batch of training rows: they are shuffled, which the kit does not do, and cut into batches
of equal size.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

from helpers.metrics import accuracy, tagging_metrics
from helpers.probing.scoring import ClipScoring, Scoring
from helpers.seeding import derive_seed
from models.errors import UserError


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """`TaggingMetrics.mAP` of targets and scores (N, K) by one call for all classes, which is faster for hundreds of clips."""
    scored = targets.any(0)
    return float(average_precision_score(targets[:, scored], scores[:, scored])) if scored.any() else math.nan


# By HEAR's names, (targets (N, K), scores (N, K)) -> score, the higher the better. mAP, d_prime and aucroc are means over the
# classes with positives and, but for mAP, negatives; the kit counts other classes as 0 (mAP) or has no score at all.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top1_acc": accuracy,
    "pitch_acc": accuracy,
    "mAP": mean_average_precision,
    "d_prime": lambda targets, scores: tagging_metrics(targets, scores).mean_d_prime,
    "aucroc": lambda targets, scores: tagging_metrics(targets, scores).mean_roc_auc,
}
INITIALISATIONS = {"xavier_uniform": nn.init.xavier_uniform_, "xavier_normal": nn.init.xavier_normal_}


@dataclass(frozen=True)
class Configuration:
    """A point of the grid: number of hidden layers, learning rate of Adam, and which of `INITIALISATIONS` draws the weights."""

    hidden_layers: int
    lr: float
    initialisation: str


@dataclass(frozen=True)
class Protocol:
    """How networks are trained and chosen; the defaults are HEAR's."""

    hidden_layers: tuple[int, ...] = (1, 2)
    lrs: tuple[float, ...] = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    initialisations: tuple[str, ...] = tuple(INITIALISATIONS)
    grid_points: int = 8  # of all combinations, drawn at random
    hidden_size: int = 1024
    dropout: float = 0.1
    batch_size: int = 1024
    max_epochs: int = 500
    check_every: int = 3  # epochs from one validation to the next
    patience: int = 20  # checks without a better score after which training ends

    def __post_init__(self) -> None:
        if not 1 <= self.check_every <= self.max_epochs:
            raise UserError(
                f"check_every must be 1 to max_epochs, {self.max_epochs}, so that there is a check; got {self.check_every}"
            )

    def grid(self, seed: int) -> list[Configuration]:
        """Draw `grid_points` of the configurations, in a random order; a seed draws the same ones for all embeddings."""
        points = [Configuration(*values) for values in product(self.hidden_layers, self.lrs, self.initialisations)]
        random.Random(seed).shuffle(points)
        return points[: self.grid_points]


HEAR = Protocol()


@dataclass(frozen=True)
class FoldResult:
    """The score of a test split, and how the tested network was chosen."""

    test_split: str
    score: float  # of the test split
    validation_score: float  # by which the epoch (and, on the first fold, the configuration) was chosen
    epoch: int  # after which the weights were kept, counted from 1


@dataclass(frozen=True)
class ProbeResult:
    """The best configuration of the grid and its result for each fold (one without folds)."""

    configuration: Configuration
    folds: tuple[FoldResult, ...]

    @property
    def score(self) -> float:
        """Mean of the test splits' scores."""
        return float(np.mean([fold.score for fold in self.folds]))


def probe(
    embeddings: np.ndarray,
    targets: np.ndarray,
    splits: Sequence[str] | np.ndarray,
    *,
    single_label: bool,
    metric: str,
    folds: bool,
    scoring: Scoring | None = None,
    seed: int = 0,
    protocol: Protocol = HEAR,
) -> ProbeResult:
    """Train a grid of shallow networks on embeddings (N, D) with targets (N, K) of 0 and 1; return the scores of the best one.

    `splits` (N,) names the split of each recording. With `folds`, each of at least 3 splits in turn is the test split, the next one
    (in sorted order) validates, the others train; the grid is searched on the first fold, and the best configuration is trained
    again on the others. Without, the splits are "train", "valid" and "test".

    The networks see the embeddings as they are, without normalisation. With `single_label` each row has exactly one
    class and the loss is cross-entropy, else binary cross-entropy. `metric` is one of `METRICS`; a `scoring` is used in its place,
    as for events. Computes on the CPU with torch's current number of threads; the same seed and threads give the same result to the
    bit. Torch's own generator stays as it is.

    Raises `ValueError` for shapes that do not fit, embeddings that are not finite, missing splits, targets that no network could
    learn or for which the metric is undefined, and unknown metrics.
    """
    if scoring is None:
        if metric not in METRICS:
            raise UserError(f"unknown metric {metric!r}; use one of {', '.join(METRICS)}")
        scoring = ClipScoring(np.asarray(targets), METRICS[metric])
    task = _Task(np.array(embeddings, np.float32), np.asarray(targets), single_label, scoring, protocol)
    names = np.asarray(splits)
    if names.shape != (len(task.loss_targets),):
        raise UserError(f"{len(task.loss_targets)} embeddings need as many names of splits, got an array of shape {names.shape}")
    first, *others = parts = _folds(names) if folds else [_train_valid_test(names)]
    for part in parts:
        task.check(part)

    grid = protocol.grid(seed)
    trained: list[FoldResult] = []
    for point, configuration in enumerate(grid):
        trained.append(task.train(first, configuration, derive_seed(seed, 0, point)))
        if trained[-1].validation_score == scoring.highest(first.valid.numpy()):
            break  # of equals, the first is chosen
    best = max(range(len(trained)), key=lambda point: trained[point].validation_score)
    rest = [task.train(part, grid[best], derive_seed(seed, number, best)) for number, part in enumerate(others, start=1)]
    return ProbeResult(grid[best], (trained[best], *rest))


@dataclass(frozen=True)
class _Parts:
    """Rows that train, validate and test, each (rows,) int64."""

    train: Tensor
    valid: Tensor
    test: Tensor
    test_split: str  # its name


def _folds(names: np.ndarray) -> list[_Parts]:
    """Each split in turn tests, the next one validates, the others train."""
    folds = np.unique(names)
    if len(folds) < 3:
        raise UserError(f"folds need at least 3 splits, to train, validate and test; got {', '.join(map(str, folds)) or 'none'}")
    return [
        _parts(names, ~np.isin(names, [test, valid]), valid, test) for test, valid in zip(folds, np.roll(folds, -1), strict=True)
    ]


def _train_valid_test(names: np.ndarray) -> _Parts:
    found = set(names.tolist())
    if found != {"train", "valid", "test"}:
        raise UserError(
            f"without folds the splits must be train, valid and test; got {', '.join(sorted(map(str, found))) or 'none'}"
        )
    return _parts(names, names == "train", "valid", "test")


def _parts(names: np.ndarray, is_train: np.ndarray, valid: str, test: str) -> _Parts:
    return _Parts(*(torch.from_numpy(np.flatnonzero(rows)) for rows in (is_train, names == valid, names == test)), str(test))


class _Task:
    """Embeddings and targets of all splits, and how networks are trained and scored on some of their rows."""

    def __init__(
        self,
        embeddings: np.ndarray,
        targets: np.ndarray,
        single_label: bool,
        scoring: Scoring,
        protocol: Protocol,
    ) -> None:
        if embeddings.ndim != 2 or targets.ndim != 2 or len(embeddings) != len(targets) or 0 in embeddings.shape:
            raise UserError(f"expected embeddings (N, D) and targets (N, K), got {embeddings.shape} and {targets.shape}")
        damaged = np.flatnonzero(~np.isfinite(embeddings).all(1))
        if len(damaged):
            raise UserError(f"{len(damaged)} of {len(embeddings)} embeddings are not finite, the first in row {damaged[0]}")
        if not np.isin(targets, (0, 1)).all():
            raise UserError("targets must be 0 or 1")
        if single_label and (targets.sum(1) != 1).any():
            row = np.flatnonzero(targets.sum(1) != 1)[0]
            raise UserError(f"row {row} has {targets[row].sum()} classes, not exactly one; such tasks are multi-label")
        if (targets == targets[:1]).all():
            raise UserError("all targets are the same, so there is nothing to learn; at least two classes need recordings")
        self.embeddings = torch.from_numpy(embeddings)
        self.num_classes = targets.shape[1]
        self.loss = functional.cross_entropy if single_label else functional.binary_cross_entropy_with_logits
        self.loss_targets = torch.from_numpy(targets.astype(np.float32))  # of classes, (N, K), or probabilities
        self.single_label = single_label
        self.scoring = scoring
        self.protocol = protocol

    def check(self, parts: _Parts) -> None:
        """Raise ValueError unless a network can be trained, chosen and tested on these rows."""
        if len(parts.train) < 2:
            raise UserError(f"test split {parts.test_split!r} leaves {len(parts.train)} recordings to train on; use at least 2")
        if any(math.isnan(self.scoring.highest(rows.numpy())) for rows in (parts.valid, parts.test)):
            raise UserError(
                f"test split {parts.test_split!r} or its validation split has no class with the positives and negatives "
                "that the metric needs; use larger splits or top1_acc"
            )

    @torch.inference_mode()
    def outputs(self, network: nn.Module, rows: Tensor) -> np.ndarray:
        """Outputs (n, K) of a network for some rows."""
        network.eval()
        logits = torch.cat([network(self.embeddings[batch]) for batch in rows.split(self.protocol.batch_size)])
        # Logarithms order the clips of a class as the probabilities do that the kit ranks, but do not saturate.
        return (logits.log_softmax(1) if self.single_label else logits).numpy()

    def train(self, parts: _Parts, configuration: Configuration, seed: int) -> FoldResult:
        """Train a network until validation no longer improves, and test it with the weights that were best."""
        protocol, highest = self.protocol, self.scoring.highest(parts.valid.numpy())
        steps = math.ceil(len(parts.train) / protocol.batch_size)
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            network = build_network(self.embeddings.shape[1], self.num_classes, configuration, protocol)
            optimizer = torch.optim.Adam(network.parameters(), lr=configuration.lr, fused=True)
            best, best_epoch, weights, choice = -math.inf, 0, None, None
            for epoch in range(1, protocol.max_epochs + 1):
                network.train()
                shuffled = parts.train[torch.randperm(len(parts.train))]
                for batch in shuffled.tensor_split(steps):  # equal parts, as batch norm cannot train on a last clip alone
                    loss = self.loss(network(self.embeddings[batch]), self.loss_targets[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                if epoch % protocol.check_every:
                    continue
                score, chosen = self.scoring.choose(parts.valid.numpy(), self.outputs(network, parts.valid))
                score = -math.inf if math.isnan(score) else score
                if weights is None or score > best:
                    best, best_epoch, weights, choice = score, epoch, copy.deepcopy(network.state_dict()), chosen
                if best == highest or epoch - best_epoch >= protocol.patience * protocol.check_every:
                    break  # nothing beats a perfect score
        network.load_state_dict(weights)
        score = self.scoring.score(parts.test.numpy(), self.outputs(network, parts.test), choice)
        return FoldResult(parts.test_split, score, best, best_epoch)


def build_network(in_features: int, num_classes: int, configuration: Configuration, protocol: Protocol = HEAR) -> nn.Sequential:
    """The network of a probe, (B, in_features) -> logits (B, num_classes): hidden layers with batch norm, dropout and ReLU, in this
    order; weights are drawn by torch's generator with the gain of what comes before, biases are torch's.
    """
    initialise, layers = INITIALISATIONS[configuration.initialisation], []
    sizes = [in_features, *[protocol.hidden_size] * configuration.hidden_layers, num_classes]
    for number, (size, next_size) in enumerate(pairwise(sizes)):
        linear = nn.Linear(size, next_size)
        initialise(linear.weight, gain=nn.init.calculate_gain("relu" if number else "linear"))
        layers += [linear, nn.BatchNorm1d(next_size), nn.Dropout(protocol.dropout), nn.ReLU()]
    return nn.Sequential(*layers[:-3])  # the last linear layer gives the logits
