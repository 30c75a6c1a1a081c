"""The rows of the network step are what the tagger gives for the files themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import archive
from helpers.archive import options
from helpers.archive.decode import TaskDecoder
from helpers.archive.inputs import list_inputs
from helpers.archive.options import check_manifest, tagging
from helpers.tagger.audio_tagger import AudioTagger
from models.errors import UserError

RATE = 32000
CLIPS, FRAMES = "mn04_distilled", "fmn04_soundscapes"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short and long ones, of chords that swell and fade, one with two channels."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for name, seconds in (("long", 27.3), ("short", 1.0), ("short2", 1.0), ("middle", 4.2)):
        time = np.arange(round(seconds * RATE)) / RATE
        tones = sum(np.sin(2 * np.pi * frequency * time) for frequency in rng.uniform(200, 4000, 3))
        sound = 0.2 * tones * np.sin(time) ** 2 + 0.01 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{name}.wav", sound if name != "middle" else np.stack([sound, 0.1 * sound[::-1]], 1), RATE)
    return folder


@pytest.fixture(scope="module")
def tagger() -> AudioTagger:
    return AudioTagger(CLIPS, "cpu")


def parsed(*argv: str, model: str = CLIPS) -> argparse.Namespace:
    return archive.build_parser().parse_args(["input", "--output", "output", "--time_limit", "0", "--model_name", model, *argv])


@pytest.fixture
def rows_of(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    monkeypatch.setattr(options, "PART_SECONDS", 10.0)

    def rows(*argv: str, **models: str) -> list[dict[str, Any]]:
        work, _ = tagging(parsed(*argv, **models), "1")
        network, found = work.network(), []
        for parcel, samples in work.decoder()(0, 0, list(list_inputs(str(recordings)))):
            found += network(parcel, samples).to_pylist()
        return found

    return rows


def test_scores_are_those_of_tag_files(rows_of: Any, recordings: Path, tagger: AudioTagger) -> None:
    rows = rows_of()
    assert [row["source"] for row in rows] == ["long.wav"] * 2 + ["middle.wav", "short.wav", "short2.wav"]
    assert [(row["start"], row["end"]) for row in rows[:2]] == [(0, 10), (10, pytest.approx(27.3))]
    for name in ("long", "middle", "short", "short2"):
        parts = [row for row in rows if row["source"] == f"{name}.wav"]
        mean = np.average([row["scores"] for row in parts], axis=0, weights=[row["end"] - row["start"] for row in parts])
        assert mean == pytest.approx(tagger.scores(recordings / f"{name}.wav"), abs=1e-3)
    assert {(row["model"], row["version"], len(row["model_hash"])) for row in rows} == {(CLIPS, "1", 64)}


def test_embeddings_and_the_highest_scores(rows_of: Any, recordings: Path, tagger: AudioTagger) -> None:
    row = rows_of("--embed", "--top_k", "3")[-1]
    expected = tagger.tag(recordings / "short2.wav", top_k=3)
    assert [tagger.labels[k] for k in row["labels"]] == [tag.label for tag in expected]
    assert row["label_scores"] == pytest.approx([tag.score for tag in expected], abs=1e-3)
    assert row["embedding"] == pytest.approx(tagger.embed(recordings / "short2.wav"), abs=3e-3)


@pytest.mark.parametrize("hop", ["1.5", "3", "4"])
def test_windows_are_those_of_the_whole_recording(rows_of: Any, recordings: Path, tagger: AudioTagger, hop: str) -> None:
    rows = [row for row in rows_of("--window", "3", "--hop", hop) if row["source"] == "long.wav"]
    expected = tagger.tag_windows(recordings / "long.wav", window=3, hop=float(hop))
    assert [row["start"] for row in rows] == pytest.approx(expected.starts)
    assert [row["end"] for row in rows] == pytest.approx(expected.ends)
    assert np.stack([row["scores"] for row in rows]) == pytest.approx(expected.scores, abs=2e-3)


@pytest.mark.parametrize(("model", "threshold"), [(CLIPS, "0.05"), (FRAMES, "0.02")])
def test_events_of_a_recording_of_one_part(rows_of: Any, recordings: Path, model: str, threshold: str) -> None:
    rows = [row for row in rows_of("--events", "--threshold", threshold, model=model) if row["source"] == "middle.wav"]
    tagger = AudioTagger(model, "cpu")
    expected = tagger.events(recordings / "middle.wav", threshold=float(threshold))
    assert len(expected)
    assert [(row["start"], row["end"], tagger.labels[row["label"]]) for row in rows] == [
        (pytest.approx(event.start), pytest.approx(event.end), event.label) for event in expected
    ]


def test_a_recording_without_events_is_a_row_without_a_label(rows_of: Any) -> None:
    rows = rows_of("--events", "--threshold", "1")
    assert len(rows) == 6
    assert all(row["label"] is None and row["error"] is None for row in rows)


def test_several_models_fill_columns_of_their_own(rows_of: Any, recordings: Path, tagger: AudioTagger) -> None:
    work, manifest = tagging(
        archive.build_parser().parse_args(["input", "--output", "o", "--time_limit", "0", "--model_name", CLIPS, FRAMES]), "1"
    )
    [(parcel, samples), *_] = TaskDecoder(work.reading)(0, 0, [entry for entry in list_inputs(str(recordings))][2:3])
    [row] = work.network()(parcel, samples).to_pylist()
    assert len(row[f"scores_{CLIPS}"]) == 527
    assert len(row[f"scores_{FRAMES}"]) == len(manifest["models"][1]["labels"])


def test_a_worker_computes_with_its_share_of_the_cores(rows_of: Any) -> None:
    work, _ = tagging(parsed("--backend", "onnx"), "1")
    [tagger] = work.network(1).taggers
    assert tagger.backend._graph.threads == 1


def test_each_channel_is_a_row(rows_of: Any) -> None:
    rows = rows_of("--per_channel")
    assert [(row["source"], row["channel"]) for row in rows if row["source"] == "middle.wav"] == [
        ("middle.wav", 1),
        ("middle.wav", 2),
    ]


def test_other_options_and_other_models_are_noticed() -> None:
    _, manifest = tagging(parsed(), "1")
    check_manifest(manifest, manifest, "out")
    _, others = tagging(parsed("--top_k", "3"), "1")
    with pytest.raises(UserError, match="top_k"):
        check_manifest(manifest, others, "out")
    changed = {**manifest, "models": [{**manifest["models"][0], "sha256": "0" * 64}]}
    with pytest.raises(UserError, match="SHA-256"):
        check_manifest(changed, manifest, "out")


def test_a_table_of_thresholds_is_read_once_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    table = tmp_path / "thresholds.csv"
    label = AudioTagger(FRAMES, "cpu").labels[1]
    table.write_text(f'label,threshold\n"{label}",0.25\n')
    work, manifest = tagging(parsed("--events", "--threshold", str(table), model=FRAMES), "1")
    table.write_text(f'label,threshold\n"{label}",0.75\n')
    _, changed = tagging(parsed("--events", "--threshold", str(table), model=FRAMES), "1")
    with pytest.raises(UserError, match="threshold"):
        check_manifest(manifest, changed, "out")
    table.unlink()
    [finder] = work.network()._finders
    assert finder.threshold[1] == 0.25


@pytest.mark.parametrize(
    "argv", [["--hop", "2"], ["--threshold", "0.5"], ["--layers", "mel"], ["--pooling", "max"], ["--median", "3"]]
)
def test_options_that_need_others_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        archive.main(["input", "--output", "output", *argv])
    assert argv[0] in capsys.readouterr().err
