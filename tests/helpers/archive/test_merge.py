"""Archives merged into one, and parts of long recordings joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.archive import parquet_files, reading
from helpers.archive.__main__ import main
from helpers.tagger import AudioTagger
from models.errors import UserError
from tests.helpers.archive.archives import LABELS, failure, row, vector


def merged(tmp_path: Path, *outputs: str, options: tuple[str, ...] = ()) -> list[dict]:
    output = tmp_path / "merged"
    assert main(["merge", *outputs, "--output", str(output), *options]) == 0
    files = reading.open_archive(str(output)).files()
    return [one for file in files for one in pq.read_table(file).to_pylist()]


def test_archives_of_one_model_become_one(write_archive, tmp_path, capsys):
    rows = [row(f"{i}.wav", scores=[i / 8, 0, 1]) for i in range(6)]
    first = write_archive("first", rows[:2], [failure("broken.wav"), rows[2]])
    second = write_archive("second", rows[3:])
    found = merged(tmp_path, first, second)
    assert [one["source"] for one in found] == ["0.wav", "1.wav", "broken.wav", *(f"{i}.wav" for i in range(2, 6))]
    assert found[2]["error"] and found[2]["scores"] is None
    assert [one["scores"] for one in found if not one["error"]] == [one["scores"] for one in rows]
    assert [one["source"] for one in pq.read_table(tmp_path / "merged/failed.parquet").to_pylist()] == ["broken.wav"]
    assert reading.open_archive(str(tmp_path / "merged")).models == reading.open_archive(first).models


@pytest.mark.parametrize("batch_rows", [1, 2, 8192])  # parts in one batch, or in several
def test_parts_are_joined_by_the_mean_weighted_with_their_length(write_archive, tmp_path, batch_rows, monkeypatch):
    monkeypatch.setattr(parquet_files, "BATCH_ROWS", batch_rows)
    archive = write_archive(
        "parts",
        [
            row("a.wav", scores=[1, 0, 0], embedding=vector(1)),
            row("long.wav", 0, 600, scores=[1, 0.5, 0], embedding=vector(3, 1)),
            row("long.wav", 600, 1200, scores=[0, 0.5, 0], embedding=vector(0, 1)),
            row("long.wav", 1200, 1500, scores=[0, 0, 1], embedding=vector(1, 1)),
            failure("broken.wav"),
            failure("broken too.wav"),
            row("z.wav", scores=[0, 0, 1], embedding=vector(1)),
        ],
    )
    found = merged(tmp_path, archive)
    assert [one["source"] for one in found] == ["a.wav", "long.wav", "broken.wav", "broken too.wav", "z.wav"]
    assert (found[1]["start"], found[1]["end"]) == (0, 1500)
    assert found[1]["scores"] == pytest.approx([0.4, 0.4, 0.2], abs=5e-4)
    assert found[1]["embedding"][:2] == pytest.approx([1.4, 1], abs=1e-3)
    assert found[2]["embedding"] is None and found[4]["scores"] == [0, 0, 1]


def test_joined_parts_have_the_scores_and_embedding_of_the_whole(write_archive, tmp_path):
    tagger = AudioTagger("mn04_distilled", device="cpu")
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 33 * 32000).astype(np.float32) * np.linspace(
        0, 1, 33 * 32000, dtype=np.float32
    )
    parts = [
        row("long.wav", start, end, scores=tagger.scores(part, 32000), embedding=tagger.embed(part, 32000).tolist())
        for start, end in ((0, 20), (20, 33))
        for part in [sound[start * 32000 : end * 32000]]
    ]
    [found] = merged(tmp_path, write_archive("parts", parts, labels=tagger.labels, dtype="float32"))
    np.testing.assert_allclose(found["scores"], tagger.scores(sound, 32000), atol=1e-5)
    np.testing.assert_allclose(found["embedding"], tagger.embed(sound, 32000), rtol=1e-3, atol=1e-4)


def test_parts_of_each_channel_are_joined(write_archive, tmp_path):
    parts = [
        row("a.wav", start, end, channel=channel, scores=[score, 0, 0])
        for start, end, scores in ((0, 600, (0.25, 1)), (600, 1200, (0.75, 0.5)))
        for channel, score in enumerate(scores, 1)
    ]
    found = merged(tmp_path, write_archive("channels", parts))
    assert [(one["channel"], one["end"], one["scores"][0]) for one in found] == [(1, 1200, 0.5), (2, 1200, 0.75)]


def test_top_labels_of_parts_are_joined(write_archive, tmp_path):
    parts = [
        row("a.wav", 0, 600, labels=[0, 1], label_scores=[0.75, 0.5]),
        row("a.wav", 600, 800, labels=[2, 1], label_scores=[1.0, 0.5]),
        row("b.wav", labels=[2, 0], label_scores=[0.5, 0.25]),
    ]
    found = merged(tmp_path, write_archive("top", parts))
    assert [(one["labels"], one["label_scores"]) for one in found] == [([0, 1], [0.5625, 0.5]), ([2, 0], [0.5, 0.25])]


def test_events_that_touch_where_parts_meet_are_one(write_archive, tmp_path):
    events = [
        row("a.wav", 590, 600, label=0, score=0.5),
        row("a.wav", 595, 600, label=1, score=0.5),
        row("a.wav", 600, 1200, label=0, score=0.75),
        row("a.wav", 600.5, 610, label=1, score=0.5),
        row("a.wav", 1200, 1201, label=0, score=0.25),
        row("b.wav", 500, 590, label=0, score=0.25),
        row("b.wav", 600, 610, label=0, score=0.25),
        row("b.wav", 1200, 1201, label=0, score=0.25),
        row("b.wav", 1201, 1202, label=0, score=0.25),
    ]
    found = merged(tmp_path, write_archive("events", events))
    assert [(one["source"], one["start"], one["end"], one["label"], one["score"]) for one in found] == [
        ("a.wav", 590, 1201, 0, 0.75),
        ("a.wav", 595, 600, 1, 0.5),
        ("a.wav", 600.5, 610, 1, 0.5),
        ("b.wav", 500, 590, 0, 0.25),
        ("b.wav", 600, 610, 0, 0.25),
        ("b.wav", 1200, 1201, 0, 0.25),
        ("b.wav", 1201, 1202, 0, 0.25),
    ]


def test_a_recording_has_a_row_without_a_label_only_if_it_has_no_event(write_archive, tmp_path):
    parts = [row("a.wav", 0, 600), row("a.wav", 700, 800, label=0, score=0.5), row("b.wav", 0, 600), row("b.wav", 600, 900)]
    found = merged(tmp_path, write_archive("events", parts, events=True))
    assert [(one["source"], one["start"], one["end"], one["label"]) for one in found] == [
        ("a.wav", 700, 800, 0),
        ("b.wav", 0, 900, None),
    ]


def test_windows_stay_as_they_are(write_archive, tmp_path):
    windows = [row("a.wav", start, start + 10, scores=[start / 1000, 0, 0]) for start in (590, 600, 610)]
    assert len(merged(tmp_path, write_archive("windows", windows, window=10.0))) == 3


def test_a_recording_in_two_archives_needs_a_prefix(write_archive, tmp_path):
    outputs = [write_archive(name, [row("1.wav", scores=[0, 0, 0])]) for name in ("first", "second")]
    with pytest.raises(UserError, match="1.wav"):
        merged(tmp_path, *outputs)
    assert not (tmp_path / "merged").exists()
    found = merged(tmp_path, *outputs, options=("--prefix",))
    assert [one["source"] for one in found] == ["first/1.wav", "second/1.wav"]


@pytest.mark.parametrize("other", [{"sha256": "e" * 64}, {"labels": LABELS[::-1]}, {"dtype": "float32"}])
def test_other_models_labels_and_settings_are_refused(write_archive, tmp_path, other):
    outputs = [write_archive(name, [row("1.wav", scores=[0, 0, 0])], **options) for name, options in (("a", {}), ("b", other))]
    with pytest.raises(UserError, match="differ"):
        merged(tmp_path, *outputs)


def test_an_existing_folder_is_not_overwritten(write_archive, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/mine").touch()
    with pytest.raises(UserError, match="exists"):
        merged(tmp_path, write_archive("a", [row("1.wav", scores=[0, 0, 0])]))
    assert (tmp_path / "merged/mine").exists()
