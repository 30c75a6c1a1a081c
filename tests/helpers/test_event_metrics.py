"""Event metrics: published example, formulas written a second time, known cases, bad input."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from datasets.strong_labels import LabelledEvent
from helpers import event_metrics
from helpers.median_filter import median_filter
from helpers.tagger.event_decoding import decode
from models.errors import UserError
from tests.golden.sed_example import scores as example_scores

EXAMPLE = json.loads((Path(__file__).parents[1] / "golden" / "golden_framewise.json").read_text())["psds1"]
STEP, SECONDS, LABELS = 0.04, 10.0, ["a", "b", "c"]
Case = tuple[dict[str, np.ndarray], float, dict[str, list[LabelledEvent]], float, list[str]]


@pytest.fixture(scope="module")
def published() -> Case:
    def filtered(values: np.ndarray) -> np.ndarray:
        return median_filter(values.astype(np.float32).T, EXAMPLE["median_window"])

    scores, truth = {}, {}
    for seed in EXAMPLE["seeds"]:
        scores[f"clip {seed}"] = filtered(example_scores(seed))
        mixture = (0.7 * example_scores(seed) + 0.3 * example_scores(seed + 100)).astype(np.float32).T
        events = decode(mixture, STEP, 0.5, EXAMPLE["median_window"], SECONDS, labels=LABELS)
        truth[f"clip {seed}"] = [LabelledEvent(event.start, event.end, LABELS.index(event.label)) for event in events]
    assert sum(map(len, truth.values())) == EXAMPLE["events_in_truth"]
    return scores, STEP, truth, SECONDS, LABELS


def test_the_published_example_has_its_values(published: Case) -> None:
    found = event_metrics.psds(*published)
    assert found.by_class == pytest.approx(EXAMPLE["single_class"], abs=1e-9)
    assert found.macro == pytest.approx(EXAMPLE["macro"], abs=1e-9)
    assert found.penalised == pytest.approx(EXAMPLE["psds1"], abs=1e-9)
    areas = event_metrics.partial_auroc(*published)
    assert np.mean([*areas.values()]) == pytest.approx(EXAMPLE["pauroc"], abs=1e-9)


def test_the_published_convention_leaves_out_other_classes_and_clips_without_the_common_ones(published: Case) -> None:
    scores, step, truth, seconds, labels = published
    expected = event_metrics.psds(*published).by_class
    silent = {"silent": np.ones((250, 3), np.float32)}  # would be a false alarm for ten seconds
    only_b = {"only b": scores["clip 20"]}
    more_truth = truth | {"silent": [], "only b": [LabelledEvent(0, 1, 1)]}
    found = event_metrics.published_psds1(scores | silent | only_b, step, more_truth, seconds, labels, {0, 2})
    assert found.by_class == pytest.approx({"a": expected["a"], "c": expected["c"]})
    with pytest.raises(UserError, match="clip 20"):
        event_metrics.published_psds1(only_b, step, truth, seconds, labels, {0, 2})


def test_psds_is_the_area_that_a_second_implementation_finds() -> None:
    rng = np.random.default_rng(0)
    lengths = {"one": 100.0, "two": 80.0}  # seconds: a false alarm is 20 an hour
    truth = {"one": [(5, 25), (30, 34), (60, 90)], "two": [(10, 40)]}
    scores = {}
    for clip, seconds in lengths.items():
        frames = np.arange(int(seconds / 2)) * 2
        active = np.any([(frames >= onset) & (frames < offset) for onset, offset in truth[clip]], axis=0)
        scores[clip] = np.round(0.4 * active + 0.5 * rng.random(len(frames)), 1)
    events = {clip: [LabelledEvent(*times, 0) for times in found] for clip, found in truth.items()}
    for dtc, gtc in ((0.7, 0.7), (0.7, 0.5), (0.5, 0.9), (0.1, 0.1)):
        parameters = event_metrics.PsdsParameters(dtc, gtc)
        found = event_metrics.psds({clip: s[:, None] for clip, s in scores.items()}, 2, events, lengths, ["a"], parameters)
        expected = psds_by_definition(scores, 2, truth, sum(lengths.values()), dtc, gtc)
        assert 0.1 < expected < 1 or dtc == 0.1
        assert found.macro == found.penalised == pytest.approx(expected, abs=1e-9)


def psds_by_definition(scores: dict, step: float, truth: dict, seconds: float, dtc: float, gtc: float) -> float:
    """Of one class: the best share of found events at up to x false alarms an hour, averaged over x from 0 to 100."""
    points = []
    for threshold in {-1.0, *np.concatenate([*scores.values()])}:
        hits = alarms = 0
        for clip, values in scores.items():
            edges = np.flatnonzero(np.diff(np.concatenate([[0], values > threshold, [0]])))
            runs = [(on * step, off * step) for on, off in zip(edges[::2], edges[1::2], strict=True)]
            good = [run for run in runs if overlap([run], truth[clip]) / (run[1] - run[0]) >= dtc - 1e-9]
            alarms += len(runs) - len(good)
            hits += sum(overlap([event], good) / (event[1] - event[0]) >= gtc - 1e-9 for event in truth[clip])
        points.append((alarms / seconds * 3600, hits / sum(map(len, truth.values()))))
    corners = sorted({rate for rate, _ in points if rate <= 100} | {0.0, 100.0})
    best = [max((share for rate, share in points if rate <= corner), default=0) for corner in corners]
    return float(np.dot(best[:-1], np.diff(corners)) / 100)


def overlap(some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> float:
    return sum(max(0.0, min(b[1], d[1]) - max(b[0], d[0])) for b in some for d in others)


def case(detections: Sequence[tuple[float, float, int]], truth: Sequence[tuple[float, float, int]], classes: int = 2) -> Case:
    scores = np.zeros((100, classes))
    for onset, offset, k in detections:
        scores[round(onset * 10) : round(offset * 10), k] = 0.9
    return {"clip": scores}, 0.1, {"clip": [LabelledEvent(*event) for event in truth]}, 10.0, [f"class {k}" for k in range(classes)]


def test_onsets_have_a_collar_of_200_ms_and_offsets_of_200_ms_or_a_fifth_of_the_event() -> None:
    inputs = case([(1.2, 2.2, 0), (5.0, 8.8, 0), (0.3, 1.0, 1)], [(1.0, 2.0, 0), (5.0, 8.2, 0), (0.0, 1.0, 1)])
    found = event_metrics.event_f1(*inputs)
    assert found.by_class == {"class 0": 1.0, "class 1": 0.0}
    assert (found.macro, found.micro) == (0.5, pytest.approx(2 / 3))


def test_segments_and_intersections_are_counted_where_collars_are_missed() -> None:
    inputs = case([(1.0, 3.0, 0)], [(0.0, 3.0, 0)], classes=1)
    assert event_metrics.event_f1(*inputs).macro == 0
    assert event_metrics.intersection_f1(*inputs).macro == 1
    assert event_metrics.segment_f1(*inputs).macro == pytest.approx(0.8)  # two of three segments, none wrong


def test_only_psds2_counts_confusions_of_classes_twice() -> None:
    right = [(0.0, 4.0, 0), (5.0, 9.0, 1)]
    confused = case([*right, (5.0, 9.0, 0)], right)
    psds2 = event_metrics.psds(*confused, event_metrics.PSDS2)
    without = event_metrics.psds(*confused, event_metrics.PsdsParameters(0.1, 0.1))
    assert psds2.by_class["class 0"] <= without.by_class["class 0"] and psds2.by_class["class 1"] == 1.0
    assert event_metrics.psds(*case(right, right), event_metrics.PSDS2).penalised == 1.0
    assert event_metrics.psds(*case([(0, 4, 0)], [(0, 4, 0)], classes=1), event_metrics.PSDS2).macro == 1.0


def test_classes_without_events_are_left_out_and_their_detections_ignored() -> None:
    inputs = case([(1, 2, 0), (3, 4, 1)], [(1, 2, 0)])
    assert event_metrics.event_f1(*inputs).by_class == event_metrics.psds(*inputs).by_class == {"class 0": 1.0}


def test_thresholds_are_one_or_one_a_class_and_the_best_are_found() -> None:
    scores, step, truth, seconds, labels = case([(1, 2, 0), (3, 4, 1)], [(1, 2, 0), (3, 4, 1)], classes=3)
    scores["clip"] *= [0.1, 1, 1]
    scores["clip"][50:60, 1] = 0.6  # wrong, and above 0.5
    inputs = scores, step, truth, seconds, labels
    assert event_metrics.event_f1(*inputs).by_class == {"class 0": 0.0, "class 1": pytest.approx(2 / 3)}
    assert event_metrics.event_f1(*inputs, [0.05, 0.8, 0.5]).macro == 1.0
    best = event_metrics.best_thresholds(*inputs)
    assert 0 < best[0] < 0.09 and 0.6 <= best[1] < 0.9 and best[2] == np.median(best[:2])
    assert event_metrics.event_f1(*inputs, best).macro == 1.0
    assert event_metrics.summary(*inputs, best)["event_f1"] == 1.0


def test_events_that_overlap_are_one_and_frames_behind_the_end_are_left_out() -> None:
    scores, step, truth, _, labels = case([(1, 3, 0), (9, 10, 0)], [(1, 2, 0), (1.5, 3, 0)], classes=1)
    assert event_metrics.event_f1(scores, step, truth, 9.0, labels).macro == 1.0
    assert event_metrics.event_f1(scores, step, truth, {"clip": 10.0}, labels).macro == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {}},
        {"scores": {"clip": np.zeros((100, 3))}},
        {"scores": {"clip": np.full((100, 2), np.nan)}},
        {"scores": {"other": np.zeros((100, 2))}},
        {"step": 0.0},
        {"truth": {}},
        {"truth": {"clip": [LabelledEvent(0, 1, 2)]}},
        {"durations": {"other": 10.0}},
        {"durations": 0.0},
        {"labels": ["same", "same"]},
    ],
    ids=str,
)
def test_unusable_inputs_are_refused(change: dict[str, object]) -> None:
    inputs = dict(zip(("scores", "step", "truth", "durations", "labels"), case([(1, 2, 0)], [(1, 2, 0)]), strict=True))
    assert event_metrics.event_f1(**inputs).macro == 1.0
    with pytest.raises(UserError):
        event_metrics.event_f1(**inputs | change)


def test_a_missing_library_is_one_line_that_names_the_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(UserError, match="requirements-events.txt"):
        event_metrics.psds(*case([(1, 2, 0)], [(1, 2, 0)]))
