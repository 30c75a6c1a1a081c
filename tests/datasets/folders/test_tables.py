"""datasets.folders.folder with tables of segments and label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.folders.folder import FolderData, scan, split
from helpers.inference.event_files import event_lines, header
from helpers.tagger.events import Event, RecordingEvents
from models.errors import UserError

RATE = 8000


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a ramp, whose samples tell where they are from, below noise of no meaning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(round(seconds * RATE)) / RATE / 16
    soundfile.write(path, ramp + np.random.default_rng(seed).uniform(-1e-4, 1e-4, len(ramp)), RATE)
    return path


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("a.wav", "b.flac", "deep/c.wav", "deep/d.wav")):
        write(tmp_path / "data" / name, 10, seed)
    return tmp_path / "data"


def table(root: Path, *rows: str, columns: str = "path,start,end,labels") -> Path:
    path = root.parent / "list.csv"
    path.write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")
    return path


def reasons(data: FolderData) -> dict[str, str]:
    return dict(data.left_out)


def test_rows_with_times_are_segments(root, tmp_path):
    rows = ("a.wav,0,5,x", "a.wav,2.5,10,y", 'b.flac,"1,25",2,x;y', "b.flac,8,,x", "deep/c.wav,,,y")
    data = scan(root, table(root, *rows), decode_all=True)
    assert data.names == ("a.wav 0.0-5.0 s", "a.wav 2.5-10.0 s", "b.flac 1.25-2.0 s", "b.flac 8.0-10.0 s", "deep/c.wav")
    assert data.targets.tolist() == [[1, 0], [0, 1], [1, 1], [1, 0], [0, 1]] and not data.single_label
    assert data.segments[1] == (2.5, 10) and data.segments[4] is None and not data.left_out
    assert data.seconds.tolist() == [5, 7.5, 0.75, 2, 10]
    assert data.groups == ("a.wav", "a.wav", "b.flac", "b.flac", "deep/c.wav")
    assert "5 segments of 3 recordings" in data.report()
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        whole = data.clips(range(5), sample_rate=RATE, clip_seconds=None, cache_dir=cache)
        assert whole.lengths().tolist() == [len(clip.waveform) for clip in whole] == [40000, 60000, 6000, 16000, 80000]
        for clip, start in zip(whole, (0, 2.5, 1.25, 8, 0), strict=True):
            np.testing.assert_allclose(clip.waveform[[0, -1]] * 16, [start, start + len(clip.waveform) / RATE], atol=2e-3)
        cut = data.clips([1], sample_rate=RATE, clip_seconds=1.0, cache_dir=cache)[0]
        np.testing.assert_allclose(cut.waveform[[0, -1]] * 16, [2.5, 3.5], atol=2e-3)
        cropped = data.clips([1], sample_rate=RATE, clip_seconds=1.0, random_crop=True, cache_dir=cache)
        starts = [16 * float(cropped[0].waveform[0]) for _ in range(20)]
        assert 2.4 < min(starts) < max(starts) < 9.1 and len(set(starts)) > 5


def test_a_segment_of_a_long_recording_does_not_decode_the_rest(root, monkeypatch):
    data = scan(root, table(root, "a.wav,4,5,x", "b.flac,4,5,y"))
    frames, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda *args, **options: (block := read(*args, **options), frames.append(len(block)))[0]
    )
    for clip in data.clips(range(2), sample_rate=RATE, clip_seconds=None):
        assert len(clip.waveform) == RATE
    assert 2 * RATE <= sum(frames) <= 2.2 * RATE


def test_segments_that_cannot_be_used_are_named(root):
    (root / "text.wav").write_text("no sound")
    rows = ("a.wav,0,5,x", "b.flac,0,5,y", "a.wav,10,12,x", "a.wav,5,10.5,x", "a.wav,5,5,x", "a.wav,5,4,x", "a.wav,-1,4,x")
    data = scan(root, table(root, *rows, "text.wav,0,1,x", "text.wav,1,2,x", "gone.wav,0,1,x", "a.wav,9,10.05,y"))
    assert data.names == ("a.wav 0.0-5.0 s", "b.flac 0.0-5.0 s", "a.wav 5.0-10.0 s", "a.wav 9.0-10.0 s")
    [(name, remark)] = data.warnings  # the end of the last one is rounded
    assert name == "a.wav 5.0-10.5 s" and "cut" in remark
    for name, reason in {
        "a.wav 10.0-12.0 s": "not within its recording of 10.000 s",
        "a.wav 5.0-5.0 s": "empty",
        "a.wav 5.0-4.0 s": "ends before it starts",
        "a.wav -1.0-4.0 s": "not within",
        "text.wav": "(2 rows)",
        "gone.wav": "not found",
    }.items():
        assert reason in reasons(data)[name]
    assert len(data.left_out) == 6
    with pytest.raises(UserError, match="line 3: 'soon'"):
        scan(root, table(root, "a.wav,0,5,x", "a.wav,soon,5,x"))


def test_labels_of_equal_segments_are_joined(root):
    data = scan(root, table(root, "a.wav,0,5,x", "a.wav,0,5.0,y", "a.wav,0,5,x", "b.flac,0,5,y"))
    assert data.targets.tolist() == [[1, 1], [0, 1]] and not data.single_label and not data.left_out
    assert len(set(data.names)) == len(data.names) == 2


def test_copies_of_recordings_are_left_out_with_all_segments(root):
    (root / "copy.wav").write_bytes((root / "a.wav").read_bytes())
    data = scan(root, table(root, "a.wav,0,5,x", "b.flac,0,5,y", "copy.wav,0,5,x", "copy.wav,5,9,y"))
    assert reasons(data) == {"copy.wav": "has the same bytes as a.wav (2 rows)"}


def test_segments_of_a_recording_are_not_divided(root):
    rows = [f"{name},{start},{start + 1},{'xy'[start % 2]}" for name in ("a.wav", "b.flac", "deep/c.wav") for start in range(8)]
    data = scan(root, table(root, *rows))
    for seed in range(5):
        parts = split(data, 0.3, seed)
        train, val = ({data.paths[index] for index in part} for part in (parts.train, parts.val))
        assert len(train) == 2 and len(val) == 1 and not train & val
    rows = ("a.wav,0,1,x,1", "a.wav,1,2,y,", "b.flac,0,1,x,1", "b.flac,1,2,y,1", "deep/c.wav,0,1,x,2", "deep/d.wav,0,1,y,")
    data = scan(root, table(root, *rows, columns="path,start,end,labels,group"))
    assert data.groups == ("1",) * 4 + ("2", "deep/d.wav")
    with pytest.raises(UserError, match="a.wav.*1 and 2"):
        scan(root, table(root, "a.wav,0,1,x,1", "a.wav,1,2,y,2", columns="path,start,end,labels,group"))
    data = scan(root, table(root, "a.wav,0,1,x,train", "a.wav,1,2,y,val", columns="path,start,end,labels,split"))
    with pytest.raises(UserError, match="a.wav.*train and val"):
        split(data)


def test_backslashes_are_separators_where_no_file_has_them(root):
    write(root / r"deep\a.wav", 1, 9)
    data = scan(root, table(root, r"deep\c.wav,x", r"deep\a.wav,y", r".\deep\d.wav,x", columns="path,labels"))
    assert data.names == ("deep/c.wav", r"deep\a.wav", "deep/d.wav")


# Label files


def labels(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


RAVEN = "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies"


def test_label_files_next_to_recordings(root):
    labels(root / "a.txt", "0.0\t2.0\tx", "3.0\t3.0\ty", "4.0\t5.0\t")
    labels(root / "deep" / "c.Table.1.selections.txt", RAVEN, "1\t1.5\t2.5\ty", "2\t29\t31\tx")
    labels(root / "notes.txt", "It rained.")
    labels(root / "lost.txt", "1\t2\tx")
    labels(root / ".hidden.txt", "1\t2\tx")
    data = scan(root, root)
    assert data.names == ("a.wav 0.0-2.0 s", "deep/c.wav 1.5-2.5 s") and data.class_names == ("x", "y") and data.single_label
    for name, reason in {
        "a.wav 3.0-3.0 s": "empty",
        "a.txt, line 3": "no label",
        "deep/c.wav 29.0-31.0 s": "not within",
        "notes.txt": "no Raven",
        "lost.txt": "no recording lost.*",
    }.items():
        assert reason in reasons(data)[name]
    assert len(data.left_out) == 5


def test_label_files_in_a_folder_of_their_own(root, tmp_path):
    write(root / "c.wav", 10, 8)
    labels(tmp_path / "labels" / "deep" / "c.txt", "0\t1\tx")  # that of the same folder, not the other one
    labels(tmp_path / "labels" / "c.wav.txt", "0\t1\ty")
    assert scan(root, tmp_path / "labels").names == ("c.wav 0.0-1.0 s", "deep/c.wav 0.0-1.0 s")
    write(root / "deeper" / "c.wav", 10, 9)
    labels(tmp_path / "labels" / "else" / "c.txt", "0\t1\tx")
    assert "deeper/c.wav" in reasons(scan(root, tmp_path / "labels"))["else/c.txt"]  # any of three
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="Begin Time"):
        scan(root, tmp_path / "none")


def test_one_label_file_that_names_its_recordings(root, tmp_path):
    write(root / "c.wav", 10, 8)
    rows = [("a.wav", "x"), (r"D:\birds\deep\c.wav", "y"), ("gone.wav", "x")]
    rows = [f"{i}\t{i}\t{i + 1}\t{label}\t{name}" for i, (name, label) in enumerate(rows)]
    data = scan(root, labels(tmp_path / "all.txt", RAVEN + "\tBegin Path", *rows))
    assert data.names == ("a.wav 0.0-1.0 s", "deep/c.wav 1.0-2.0 s")
    assert "gone.wav" in reasons(data)["all.txt"]
    with pytest.raises(UserError, match="looked for annotation"):
        scan(root, labels(tmp_path / "all.txt", "Begin Time (s)\tEnd Time (s)", "1\t2"))


@pytest.mark.parametrize("suffix", [".selections.txt", ".txt"])
def test_events_that_were_found_can_be_corrected_and_trained_on(root, suffix):
    events = (Event("Speech; x", 1.0, 2.5, 0.9, mean=0.8), Event("Male speech, man speaking", 4.0, 10.0, 0.7, mean=0.6))
    recording = RecordingEvents(str(root / "deep" / "c.wav"), 0.0, 10.0, events, RATE)
    path = root / "deep" / f"c{suffix}"
    path.write_text(header(suffix) + event_lines(recording, suffix))
    data = scan(root, path)
    assert data.names == ("deep/c.wav 1.0-2.5 s", "deep/c.wav 4.0-10.0 s")
    assert data.class_names == ("Male speech, man speaking", "Speech", "x")
