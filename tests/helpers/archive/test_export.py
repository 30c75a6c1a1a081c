"""Data sets for ex_folder.py out of archives."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.folders import folder
from datasets.folders.strong import scan_events
from helpers.archive.__main__ import main
from helpers.archive.inputs import list_inputs
from models.errors import UserError
from tests.helpers.archive.archives import failure, row

RATE = 8000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Recordings whose samples rise by 1 / RATE in each second."""
    root = tmp_path / "recordings"
    (root / "sub").mkdir(parents=True)
    for number, (name, seconds) in enumerate((("a.wav", 2), ("b.wav", 3), ("sub/long.wav", 6))):
        ramp = np.arange(seconds * RATE) / RATE / 10 + number / 1000
        soundfile.write(root / name, ramp, RATE)
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_that_ex_folder_reads(write_archive, recordings, tmp_path, capsys):
    rows = [
        row("a.wav", scores=[0.75, 0.25, 0]),
        failure("broken.wav"),
        row("b.wav", end=3.0, scores=[0.625, 0.875, 0.9]),
        row("sub/long.wav", end=6.0, scores=[0.25, 0.25, 0]),
    ]
    path = tmp_path / "labels.csv"
    main(["export", write_archive("tags", rows), "--labels", "dog", "speech", "--output", str(path)])
    assert table(path) == [
        {"path": "a.wav", "labels": "Speech", "start": "", "end": ""},
        {"path": "b.wav", "labels": "Speech;Dog", "start": "", "end": ""},
    ]
    data = folder.scan(recordings, path, decode_all=True)
    assert (data.class_names, len(data.left_out)) == (("Dog", "Speech"), 0)


def test_thresholds_of_a_table(write_archive, tmp_path):
    thresholds = tmp_path / "thresholds.csv"
    thresholds.write_text("label,threshold\nSpeech,0.9\nDog,0.2\n")
    archive = write_archive("top", [row("a.wav", labels=[0, 1], label_scores=[0.75, 0.25])])
    main(["export", archive, "--threshold", str(thresholds), "--output", str(tmp_path / "labels.csv")])
    assert table(tmp_path / "labels.csv")[0]["labels"] == "Dog"


def test_windows_are_segments_and_events_have_times(write_archive, recordings, tmp_path):
    windows = [row("sub/long.wav", i, i + 2, scores=[(i + 1) / 8, i / 8, 0]) for i in range(0, 6, 2)]
    path = tmp_path / "labels.csv"
    main(["export", write_archive("windows", windows, window=2.0), "--threshold", "0.375", "--output", str(path)])
    assert [(one["start"], one["end"]) for one in table(path)] == [("2.000000", "4.000000"), ("4.000000", "6.000000")]
    assert folder.scan(recordings, path, decode_all=True).segments == ((2, 4), (4, 6))
    events = [row("a.wav", 0.5, 1, label=1, score=0.75), row("b.wav", 1, 2, label=0, score=0.75), row("sub/long.wav", end=6)]
    main(["export", write_archive("events", events), "--output", str(path)])
    assert [(one["path"], one["start"], one["labels"]) for one in table(path)] == [
        ("a.wav", "0.500000", "Dog"),
        ("b.wav", "1.000000", "Speech"),
    ]
    assert sum(len(times) for times in scan_events(recordings, path, 10.0).events) == 2


def test_recordings_are_cut_into_a_folder(write_archive, recordings, tmp_path, capsys):
    windows = [row("a.wav", 0, 2, scores=[0, 0.75, 0]), row("gone.wav", 0, 2, scores=[0, 0.75, 0])]
    windows += [row("sub/long.wav", i, i + 2, scores=[(i + 1) / 8, 0, 0]) for i in range(0, 6, 2)]
    archive = write_archive("windows", windows, window=2.0, addresses=recordings)
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    assert "gone.wav" in capsys.readouterr().err
    rows = table(tmp_path / "cut/labels.csv")
    assert [(one["labels"], one["group"]) for one in rows] == [("Dog", "a.wav"), ("Speech", "sub/long.wav")]
    samples, rate = soundfile.read(tmp_path / "cut" / rows[1]["path"])
    assert (rate, len(samples)) == (RATE, 2 * RATE)
    np.testing.assert_allclose(samples, soundfile.read(recordings / "sub/long.wav")[0][4 * RATE :], atol=1e-4)
    data = folder.scan(tmp_path / "cut", tmp_path / "cut/labels.csv", decode_all=True)
    assert (data.groups, len(data.left_out)) == (("a.wav", "sub/long.wav"), 0)


def test_recordings_in_a_tar_are_copied_or_refused(write_archive, recordings, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in ("a.wav", "b.wav"):
            tar.add(recordings / name, name)
    rows = [row("all.tar/a.wav", scores=[0.75, 0, 0]), row("all.tar/b.wav", scores=[0, 0.75, 0])]
    entries = list(list_inputs(str(tmp_path / "all.tar")))
    archive = write_archive("tags", rows, entries=entries)
    mixed = [row("a.wav", scores=[0.75, 0, 0]), *rows]
    mixed = write_archive("mixed", mixed, entries=[*list_inputs(str(recordings / "a.wav")), *entries])
    for output in (archive, mixed):
        with pytest.raises(UserError, match="--copy"):
            main(["export", output, "--output", str(tmp_path / "labels.csv")])
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    assert [one["labels"] for one in table(tmp_path / "cut/labels.csv")] == ["Speech", "Dog"]
    data = folder.scan(tmp_path / "cut", tmp_path / "cut/labels.csv", decode_all=True)
    np.testing.assert_allclose(data.seconds, (2, 3))


def test_a_recording_with_events_is_copied_once(write_archive, recordings, tmp_path):
    events = [row("b.wav", 0, 1, label=0, score=0.75), row("b.wav", 1, 2.5, label=1, score=0.75), row("a.wav", label=1, score=0.25)]
    archive = write_archive("events", events, addresses=recordings)
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    rows = table(tmp_path / "cut/labels.csv")
    assert len({one["path"] for one in rows}) == 1
    assert [(one["start"], one["end"]) for one in rows] == [("0.000000", "1.000000"), ("1.000000", "2.500000")]
    assert len(soundfile.read(tmp_path / "cut" / rows[0]["path"])[0]) == 3 * RATE
    assert len(scan_events(tmp_path / "cut", tmp_path / "cut/labels.csv", 10.0).events[0]) == 2


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """A recording whose left channel is 0.25 and whose right one is -0.5."""
    root = tmp_path / "stereo"
    root.mkdir()
    soundfile.write(root / "a.wav", np.tile([0.25, -0.5], (2 * RATE, 1)), RATE)
    return root


def cut_samples(folder: Path) -> list[float]:
    """The value of each file that was cut, in the order of the table."""
    return [float(np.median(soundfile.read(folder / one["path"])[0])) for one in table(folder / "labels.csv")]


def test_each_channel_is_cut_from_its_own(write_archive, stereo, tmp_path):
    rows = [row("a.wav", channel=1, scores=[0.75, 0, 0]), row("a.wav", channel=2, scores=[0, 0.75, 0])]
    archive = write_archive("channels", rows, addresses=stereo)
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    assert cut_samples(tmp_path / "cut") == [0.25, -0.5]
    assert [one["group"] for one in table(tmp_path / "cut/labels.csv")] == ["a.wav", "a.wav"]
    events = [row("a.wav", 0, 1, channel=channel, label=0, score=0.75) for channel in (1, 2)]
    archive = write_archive("events", events, addresses=stereo)
    main(["export", archive, "--output", str(tmp_path / "cut events"), "--copy"])
    assert cut_samples(tmp_path / "cut events") == [0.25, -0.5]


def test_the_channel_of_an_archive_is_cut(write_archive, stereo, tmp_path):
    archive = write_archive("second", [row("a.wav", scores=[0.75, 0, 0])], addresses=stereo, settings={"channel": 2})
    with pytest.raises(UserError, match="--copy"):
        main(["export", archive, "--output", str(tmp_path / "labels.csv")])
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    assert cut_samples(tmp_path / "cut") == [-0.5]


def test_the_folder_of_a_list_is_printed(write_archive, recordings, tmp_path, capsys):
    (recordings / "list.txt").write_text("sub/long.wav\na.wav\n")
    rows = [row("sub/long.wav", scores=[0.75, 0, 0]), row("a.wav", scores=[0, 0.75, 0])]
    archive = write_archive("tags", rows, entries=list(list_inputs(str(recordings / "list.txt"))))
    main(["export", archive, "--output", str(tmp_path / "labels.csv")])
    assert capsys.readouterr().out.splitlines()[-1].split()[1:3] == ["ex_folder.py", str(recordings)]


def test_recordings_of_several_folders_need_copies(write_archive, recordings, tmp_path):
    outputs = [
        write_archive(name, [row("a.wav", scores=[0.75, 0, 0])], addresses=folder)
        for name, folder in (("one", recordings), ("two", recordings / "sub"))
    ]
    with pytest.raises(UserError, match="--copy"):
        main(["export", *outputs, "--output", str(tmp_path / "labels.csv")])


def test_a_recording_without_the_part_leaves_no_file(write_archive, recordings, tmp_path, capsys):
    windows = [row("a.wav", 9, 11, scores=[0.75, 0, 0]), row("b.wav", 0, 2, scores=[0.75, 0, 0])]
    archive = write_archive("windows", windows, window=2.0, addresses=recordings)
    main(["export", archive, "--output", str(tmp_path / "cut"), "--copy"])
    assert "a.wav" in capsys.readouterr().err
    assert len(list((tmp_path / "cut").glob("*.flac"))) == len(table(tmp_path / "cut/labels.csv")) == 1


def test_mistakes_leave_nothing_behind(write_archive, tmp_path):
    archive = write_archive("tags", [row("a.wav", scores=[0.25, 0, 0.75])])
    for options, problem in (
        (["--labels", "Dog"], "--threshold"),
        (["--labels", "Doc"], "'Dog'"),
        ([], "';'"),
        (["--threshold", "2"], "0 to 1"),
        (["--threshold", "nothing.csv"], "nothing.csv"),
        (["--labels", "Dog", "--copy"], "--threshold"),
    ):
        with pytest.raises((UserError, FileNotFoundError), match=problem):
            main(["export", archive, "--output", str(tmp_path / "out"), *options])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tags"]
