"""Questions to an archive: best recordings and histograms."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest

from helpers.archive.__main__ import main
from models.errors import UserError
from tests.helpers.archive.archives import failure, row


def answers(capsys, *argv: object) -> list[dict]:
    assert main([*map(str, argv), "--format", "jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def bars(capsys, *argv: object) -> dict[str, int]:
    assert main(["histogram", *map(str, argv)]) == 0
    found = {}
    for line in capsys.readouterr().out.splitlines()[1:]:
        name, count = re.fullmatch(r" *(.+?)  +([\d,]+)(?:  #+)?", line).groups()
        found[name] = int(count.replace(",", ""))
    return found


@pytest.fixture
def tagged(write_archive) -> str:
    return write_archive(
        "tagged",
        [row("a.wav", scores=[0.1, 0.9, 0.0]), row("b.wav", scores=[0.875, 0.2, 0.0]), failure("broken.wav")],
        [
            row("long.wav", 0, 600, scores=[0.75, 0.0, 0.0]),
            row("long.wav", 600, 800, scores=[0.25, 0.5, 0.0]),
            row("c.wav", scores=[0.5, 0.5, 0.5]),
        ],
    )


def test_best_lists_recordings_by_the_mean_of_their_parts(tagged, capsys):
    found = answers(capsys, "best", "speech", tagged, "--threshold", 0.2)
    assert [one["source"] for one in found] == ["b.wav", "long.wav", "c.wav"]
    assert found[1] == {"score": 0.625, "start": 0.0, "end": 800.0, "source": "long.wav"}


def test_best_lists_parts_where_each_row_counts(tagged, capsys):
    found = answers(capsys, "best", "Dog", tagged, "--every_row", "--top_k", 3)
    assert [(one["source"], one["start"]) for one in found] == [("a.wav", 0), ("c.wav", 0), ("long.wav", 600)]


def test_best_of_windows_and_events_has_their_times(write_archive, capsys):
    windows = [row("a.wav", i, i + 1, scores=[score, 0, 0]) for i, score in enumerate((0.25, 0.75, 0.5))]
    windows += [row("b.wav", 0, 1, scores=[0.625, 0, 0])]
    best = [{"score": 0.75, "start": 1, "end": 2, "source": "a.wav"}, {"score": 0.625, "start": 0, "end": 1, "source": "b.wav"}]
    assert answers(capsys, "best", "Speech", write_archive("windows", windows, window=1.0)) == best
    events = [row("a.wav", 0, 9, label=1, score=0.875)]
    events += [row(one["source"], one["start"], one["end"], label=0, score=one["scores"][0]) for one in windows]
    archive = write_archive("events", events)
    assert answers(capsys, "best", "Speech", archive) == best
    assert len(answers(capsys, "best", "Speech", archive, "--every_row")) == 4


def test_best_of_top_labels_counts_what_is_left_out_as_0(write_archive, capsys):
    rows = [
        row("long.wav", 0, 600, labels=[0, 1], label_scores=[0.5, 0.25]),
        row("long.wav", 600, 1200, labels=[1, 2], label_scores=[0.5, 0.25]),
        row("b.wav", labels=[1, 2], label_scores=[0.5, 0.25]),
    ]
    found = answers(capsys, "best", "Speech", write_archive("top", rows), "--threshold", 0.1)
    assert [(one["source"], one["score"]) for one in found] == [("long.wav", 0.25)]


def test_best_of_several_archives_names_them(write_archive, capsys):
    outputs = [write_archive(name, [row("a.wav", scores=[score, 0, 0])]) for name, score in (("x", 0.25), ("y's", 0.75))]
    found = answers(capsys, "best", "Speech", *outputs)
    assert [(one["output"], one["score"]) for one in found] == [(outputs[1], 0.75), (outputs[0], 0.25)]


def test_an_output_that_is_given_twice_counts_once(tagged, capsys):
    assert answers(capsys, "best", "Speech", tagged, f"{tagged}/") == answers(capsys, "best", "Speech", tagged)


def test_best_of_channels_names_them(write_archive, capsys):
    rows = [row("a.wav", channel=channel, scores=[channel / 4, 0, 0]) for channel in (1, 2)]
    assert [one["channel"] for one in answers(capsys, "best", "Speech", write_archive("channels", rows))] == [2, 1]


def test_best_as_csv_is_safe_for_spreadsheets(write_archive, capsys):
    archive = write_archive("names", [row("=cmd.wav", scores=[0.5, 0, 0]), row("new\nline, and comma.wav", scores=[0.25, 0, 0])])
    main(["best", "Speech", archive, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [one["source"] for one in rows] == ["'=cmd.wav", "new\\nline, and comma.wav"]
    main(["best", "Speech", archive])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_of_several_models_one_is_named(write_archive, capsys):
    archive = write_archive("both", [row("a.wav", scores_one=[0.25, 0, 0], scores_two=[0.5, 0, 0])], models=("one", "two"))
    with pytest.raises(UserError, match="one, two"):
        main(["best", "Speech", archive])
    assert answers(capsys, "best", "Speech", archive, "--model", "two")[0]["score"] == 0.5


def test_histogram_of_labels_counts_recordings(tagged, write_archive, capsys):
    assert bars(capsys, "labels", tagged) == {"Speech": 3, "Dog": 2, "Rain; heavy": 1}  # the mean of long.wav is 0.625
    top = [row("a.wav", labels=[0, 1], label_scores=[0.5, 0.25]), row("b.wav", labels=[0, 2], label_scores=[0.75, 0.5])]
    assert bars(capsys, "labels", write_archive("top", top)) == {"Speech": 2, "Rain; heavy": 1}
    events = [row("a.wav", label=1, score=0.5), row("a.wav", label=1, score=0.25), row("b.wav", label=0, score=0.75)]
    assert bars(capsys, "labels", write_archive("events", events)) == {"Speech": 1, "Dog": 1}


def test_histogram_of_scores(tagged, capsys):
    found = bars(capsys, "scores", tagged, "--label", "Speech")
    assert {name: count for name, count in found.items() if count} == {
        "0.05 to 0.10": 1, "0.50 to 0.55": 1, "0.60 to 0.65": 1, "0.85 to 0.90": 1,
    }  # fmt: skip
    assert len(found) == 20


def test_histogram_of_durations_and_failures(tagged, write_archive, capsys, tmp_path):
    assert bars(capsys, "durations", tagged)["10 min to 30 min"] == 1
    assert bars(capsys, "durations", tagged)["2 s to 5 s"] == 3
    kinds = [failure("a"), failure("b", "timeout"), failure("c", "timeout")]
    assert bars(capsys, "failures", write_archive("failed", kinds)) == {"timeout": 2, "damaged": 1}
    assert bars(capsys, "durations", str(tmp_path / "failed")) == {}


@pytest.mark.parametrize("what", [("labels",), ("scores", "--label", "Dog"), ("durations",), ("failures",)])
def test_a_histogram_is_drawn(tagged, tmp_path, what, capsys):
    path = tmp_path / "figure.png"
    main(["histogram", what[0], tagged, *what[1:], "--figure", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_incomplete_archive_is_reported(tagged, capsys):
    Path(tagged, "data/shard-000001.parquet").unlink()
    assert main(["best", "Speech", tagged]) == 0
    assert "not complete" in capsys.readouterr().err


def test_a_model_whose_name_is_sql_is_refused(write_archive):
    archive = write_archive("both", [row("a.wav", scores_one=[0.25, 0, 0], scores_two=[0.5, 0, 0])], models=("one", "two"))
    manifest = Path(archive, "manifest.json")
    manifest.write_text(manifest.read_text().replace('"name": "one"', '"name": "one; DROP TABLE x"'))
    with pytest.raises(UserError, match="manifest.json"):
        main(["best", "Speech", archive, "--model", "two"])


def test_a_folder_whose_name_looks_like_a_column_is_none(write_archive, capsys):
    archive = write_archive("source=x/tags", [row("a.wav", scores=[0.5, 0, 0])])
    assert [one["source"] for one in answers(capsys, "best", "Speech", archive)] == ["a.wav"]


@pytest.mark.parametrize("command", [("merge",), ("export",)])
def test_what_is_written_is_on_this_machine(tagged, command, capsys):
    with pytest.raises(SystemExit):
        main([*command, tagged, "--output", "s3://bucket/merged"])
    assert "s3://bucket/merged" in capsys.readouterr().err


def test_mistakes_are_user_errors(tagged, write_archive, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    embedded = write_archive("embedded", [row("a.wav", embedding=[0.0] * 8)])
    damaged = write_archive("damaged", [row("a.wav", scores=[0, 0, 0])], [row("b.wav", scores=[0, 0, 0])])
    Path(damaged, "data/shard-000001.parquet").write_bytes(b"PAR1")
    for argv, problem in (
        (["best", "Speeck", tagged], "'Speech'"),
        (["best", "Speech", str(tmp_path / "empty")], "manifest.json"),
        (["best", "Speech", str(tmp_path / "nothing")], "manifest.json"),
        (["best", "Speech", embedded], "no scores"),
        (["histogram", "labels", embedded], "no scores"),
        (["histogram", "scores", tagged], "--label"),
        (["histogram", "labels", tagged, "--label", "Dog"], "--label"),
        (["best", "Speech", damaged], "000001.parquet"),
        (["histogram", "labels", damaged], "000001.parquet"),
        (["merge", damaged, "--output", str(tmp_path / "merged")], "000001.parquet"),
        (["best", "Speech", tagged, "--model", "other"], "tiny"),
    ):
        with pytest.raises(UserError, match=problem):
            main(argv)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize("package", ["duckdb", "pyarrow"])
def test_a_missing_package_is_named(tagged, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"{package}.*requirements-archive.txt"):
        main(["best", "Speech", tagged])


def test_an_archive_behind_an_address(tagged, capsys):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(tagged, "/archive", recursive=True)
    assert answers(capsys, "best", "Dog", "memory://archive") == answers(capsys, "best", "Dog", tagged)
    assert bars(capsys, "labels", "memory://archive") == bars(capsys, "labels", tagged)
