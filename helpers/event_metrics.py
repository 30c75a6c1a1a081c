"""Metrics of sound events in time, computed by the field's library sed_scores_eval (requirements-events.txt).

All functions take the same five inputs:

- `scores`: (T, K) of each clip, by its name. Only their order counts, but for thresholds. Frame t lasts from t * step to
  (t + 1) * step; what is beyond the clip's end is left out. Median filters belong before this.
- `step`: of a frame, in seconds
- `truth`: the events of each clip. A clip that is missing has none. Events of one class that overlap or touch count as one.
- `durations`: of each clip, in seconds, or one for all
- `labels`: the K class names, which must differ

Classes without an event in the truth have no metric: they are left out, of the means too.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from datasets.strong_labels import LabelledEvent, merged
from models.errors import UserError, install_command

ONSET_COLLAR = OFFSET_COLLAR = 0.2  # seconds, of event-based F1 in DCASE
OFFSET_RATE = 0.2  # of the event's length, where that is more
SEGMENT_SECONDS = 1.0
MAX_FALSE_ALARMS = 100.0  # an hour, the end of the curve that PSDS is the area of
AUROC_RATE = 0.1  # the end of the curve that the partial AUROC is the area of


@dataclass(frozen=True)
class PsdsParameters:
    """When a detection counts: Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, ICASSP 2020."""

    dtc: float  # share of a detection that must be within truth of its class (detection tolerance criterion)
    gtc: float  # share of an event that counted detections must cover (ground truth intersection criterion)
    cttc: float | None = None  # share of a false detection within another class's truth that makes it a cross trigger
    alpha_ct: float = 0.0  # weight of cross triggers
    alpha_st: float = 1.0  # weight of the standard deviation over classes


PSDS1 = PsdsParameters(dtc=0.7, gtc=0.7)  # DCASE's scenario 1: events must be found when they are
PSDS2 = PsdsParameters(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5)  # scenario 2: classes must not be confused


@dataclass(frozen=True)
class Psds:
    """Polyphonic sound detection score, in [0, 1], without a threshold to choose (Ebbers et al., ICASSP 2022)."""

    penalised: float  # with `alpha_st`: at each rate of false alarms, the mean over classes minus the standard deviation
    by_class: dict[str, float]

    @property
    def macro(self) -> float:
        """Mean over classes. With `PSDS1`, what is published for AudioSet Strong (there times 100)."""
        return float(np.mean([*self.by_class.values()]))


@dataclass(frozen=True)
class FScores:
    """F1 in [0, 1], by class, and of all counts together."""

    micro: float
    by_class: dict[str, float]

    @property
    def macro(self) -> float:
        """Mean over classes."""
        return float(np.mean([*self.by_class.values()]))


Scores = Mapping[str, np.ndarray]
Truth = Mapping[str, Sequence[LabelledEvent]]
Durations = Mapping[str, float] | float
Threshold = float | Sequence[float] | np.ndarray  # active is what is above; one, or one for each of the K classes


def psds(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], parameters: PsdsParameters = PSDS1
) -> Psds:
    """Area under the curve of found events against false alarms, up to `MAX_FALSE_ALARMS` an hour.

    Raises UserError for unusable inputs and where the library is missing, as all functions here do.
    """
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    crosses = parameters.alpha_ct > 0 and len(inputs.classes) > 1
    value, by_class, *_ = library.intersection_based.psds(
        inputs.scores,
        inputs.truth,
        inputs.durations,
        dtc_threshold=parameters.dtc,
        gtc_threshold=parameters.gtc,
        cttc_threshold=parameters.cttc if crosses else None,
        alpha_ct=parameters.alpha_ct if crosses else 0.0,
        alpha_st=parameters.alpha_st,
        max_efpr=MAX_FALSE_ALARMS,
    )
    return Psds(float(value), inputs.by_label(by_class))


def published_psds1(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], classes: Collection[int]
) -> Psds:
    """PSDS1 as it is published for AudioSet Strong, whose number is `Psds.macro`.

    It counts the `classes` that training and evaluation have in common. Events of others are removed, and so are clips that then
    have none.
    """
    kept = {clip: [event for event in events if event.class_index in classes] for clip, events in truth.items()}
    kept = {clip: events for clip, events in kept.items() if events}
    if missing := kept.keys() - scores.keys():
        raise UserError(f"clip {min(missing)} has events and no scores; give scores of all clips")
    return psds({clip: scores[clip] for clip in kept}, step, kept, durations, labels, PSDS1)


def event_f1(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], threshold: Threshold = 0.5
) -> FScores:
    """F1 of events whose onset is right within 200 ms, and whose offset is right within 200 ms or 20 % of the event's length."""
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    return inputs.f_scores(library.collar_based, threshold, **_COLLARS)


def best_thresholds(scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str]) -> np.ndarray:
    """Threshold of each class, (K,), with the highest event-based F1; to be found on other clips than those that are reported.

    A class without events, and one of which no event is ever found, gets the median of the others' thresholds, or 0.5.
    """
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    f1, _, _, found, _ = library.collar_based.best_fscore(inputs.scores, inputs.truth, **_COLLARS)
    thresholds = np.full(len(labels), np.nan)
    for key in inputs.classes:
        if f1[key] > 0 and np.isfinite(found[key]):
            thresholds[int(key)] = found[key]
    known = thresholds[~np.isnan(thresholds)]
    return np.where(np.isnan(thresholds), np.median(known) if len(known) else 0.5, thresholds)


def intersection_f1(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], threshold: Threshold = 0.5
) -> FScores:
    """F1 of events that detections cover by half, of detections that are half within events, as DCASE reports it."""
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    return inputs.f_scores(library.intersection_based, threshold, dtc_threshold=0.5, gtc_threshold=0.5)


def segment_f1(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], threshold: Threshold = 0.5
) -> FScores:
    """F1 of segments of one second, each of which has a class or does not."""
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    return inputs.f_scores(library.segment_based, threshold, audio_durations=inputs.durations, segment_length=SEGMENT_SECONDS)


def partial_auroc(scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str]) -> dict[str, float]:
    """Area under the ROC curve of segments of one second up to a false-positive rate of 0.1, by class, scaled to 0.5 for chance."""
    library, inputs = _library(), _Inputs(scores, step, truth, durations, labels)
    areas, _ = library.segment_based.auroc(
        inputs.scores, inputs.truth, inputs.durations, segment_length=SEGMENT_SECONDS, max_fpr=AUROC_RATE
    )
    return inputs.by_label(areas)


def summary(
    scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str], threshold: Threshold = 0.5
) -> dict[str, float]:
    """The metrics in one number each, for logs and tables; means over classes."""
    first, second = (psds(scores, step, truth, durations, labels, parameters) for parameters in (PSDS1, PSDS2))
    return {
        "psds1": first.macro,
        "psds1_penalised": first.penalised,
        "psds2": second.macro,
        "psds2_penalised": second.penalised,
        "event_f1": event_f1(scores, step, truth, durations, labels, threshold).macro,
        "segment_f1": segment_f1(scores, step, truth, durations, labels, threshold).macro,
        "intersection_f1": intersection_f1(scores, step, truth, durations, labels, threshold).macro,
    }


_COLLARS = {"onset_collar": ONSET_COLLAR, "offset_collar": OFFSET_COLLAR, "offset_collar_rate": OFFSET_RATE}


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            import sed_scores_eval
    except ImportError as error:
        raise UserError(f"metrics of events need sed_scores_eval ({error}): {install_command('events')}") from error
    return sed_scores_eval


class _Inputs:
    """What the library takes, checked. Classes are called by their index, as some names would mean something to the library."""

    def __init__(self, scores: Scores, step: float, truth: Truth, durations: Durations, labels: Sequence[str]) -> None:
        from sed_scores_eval.base_modules.scores import create_score_dataframe

        if not scores or not step > 0 or len({*labels}) != len(labels):
            raise UserError(
                f"{len(scores)} clips, a step of {step} s and {len(labels)} labels given; there must be some, labels must differ"
            )
        if unknown := truth.keys() - scores.keys():
            raise UserError(f"clip {min(unknown)} has events and no scores; give scores of all clips")
        self.labels = labels
        self.durations = {clip: _duration(clip, durations) for clip in scores}
        present = sorted({event.class_index for events in truth.values() for event in events})
        if not present or not 0 <= present[0] <= present[-1] < len(labels):
            raise UserError(f"the truth has events of classes {present}; there must be some, of 0 to {len(labels) - 1}")
        self.classes = [str(k) for k in present]
        self.truth = {}
        for clip in scores:
            events = merged(truth.get(clip, ()))
            self.truth[clip] = [(event.onset, event.offset, str(event.class_index)) for event in events]
        self.scores = {}
        for clip, values in scores.items():
            if np.ndim(values) != 2 or values.shape[1] != len(labels) or not np.isfinite(values).all():
                raise UserError(f"scores of {clip} are {np.shape(values)}; they must be finite and (T, {len(labels)})")
            edges = np.round(np.arange(len(values) + 1) * step, 6)
            count = int(np.searchsorted(edges[:-1], self.durations[clip]))
            if not count:
                raise UserError(f"scores of {clip} have no frame within its {self.durations[clip]} s; give at least one")
            edges = np.minimum(edges[: count + 1], self.durations[clip])
            self.scores[clip] = create_score_dataframe(values[:count][:, present].astype(float), edges, self.classes)

    def by_label(self, by_class: Mapping[str, float]) -> dict[str, float]:
        return {self.labels[int(key)]: float(by_class[key]) for key in self.classes}

    def f_scores(self, family: ModuleType, threshold: Threshold, **options: Any) -> FScores:
        thresholds = np.broadcast_to(threshold, len(self.labels))
        by_class = {key: float(thresholds[int(key)]) for key in self.classes}
        f1, *_ = family.fscore(self.scores, self.truth, threshold=by_class, **options)
        return FScores(float(f1["micro_average"]), self.by_label(f1))


def _duration(clip: str, durations: Durations) -> float:
    duration = durations.get(clip, 0.0) if isinstance(durations, Mapping) else durations
    if not duration > 0:
        raise UserError(f"clip {clip} has no duration above 0 s; durations must have one for each clip")
    return float(duration)
