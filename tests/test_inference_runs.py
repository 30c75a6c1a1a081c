"""inference.py on many files: runs that are interrupted, files that are damaged or hang, and what is written."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import inference
from datasets.decoding import isolated
from datasets.folders.label_files import parse_labels
from helpers.inference.event_files import event_lines
from helpers.tagger.embedding_files import read_embeddings, write_embeddings
from helpers.tagger.events import Event, RecordingEvents
from helpers.tagger.results import Tag, Tagging

ROOT = Path(inference.__file__).parent
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (32000, 2)).astype(np.float32)
BUNDLED = ("--backend", "onnx", "--model_name", "mn04_distilled", "--time_limit", "0")


def run(capsys: pytest.CaptureFixture[str], *words: object, model: tuple[str, ...] = BUNDLED) -> tuple[int, str, list[str]]:
    """Return exit code, standard output, and the lines on standard error."""
    code = inference.main([*model, *map(str, words)])
    output = capsys.readouterr()
    return code, output.out, output.err.splitlines()


def sounds(folder: Path, count: int, seconds: float = 0.3) -> Path:
    folder.mkdir()
    for number in range(count):
        samples = NOISE[: int(32000 * seconds)] * np.array([1, (number + 1) / count])
        soundfile.write(folder / f"{number:03}.wav", samples, 32000)
    return folder


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Runs inference.py, which kills itself in the middle of writing, as often as its first argument says.
KILLED = """
import os, signal, sys
import inference
from helpers.tagger import run_files
left, write = int(sys.argv[1]), run_files._write
def half(file, content, path):
    global left
    left -= 1
    if left == 0:
        write(file, content[: len(content) // 2], path)
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, content, path)
run_files._write = half
sys.exit(inference.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("words", [("--output", "x.csv", "--window", "0.2", "--hop", "0.1"), ("--events", "x.jsonl")])
def test_a_killed_run_is_resumed_to_the_same_file(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sounds(tmp_path / "in", 16)
    (folder / "007.wav").write_text("no sound")
    words = ("--audio_path", folder, words[0], tmp_path / words[1], *words[2:], "--resume")
    for writes in (8, 17):
        command = [sys.executable, "-c", KILLED, str(writes), *BUNDLED, *map(str, words)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == -signal.SIGKILL, result.stderr
    path: Path = words[3]
    assert path.stat().st_size > 0  # the rows so far
    code, _, err = run(capsys, *words)
    assert code == 1 and err[-1].endswith("15 of 16 recordings")  # the failure of the first run counts
    assert run(capsys, *words)[0] == 0 and not path.with_name(f"{path.name}.progress").exists()  # complete
    assert run(capsys, *words[:3], tmp_path / f"whole{path.suffix}", *words[4:])[0] == 1
    assert path.read_bytes() == (tmp_path / f"whole{path.suffix}").read_bytes()
    lines = path.read_text().splitlines()
    assert len([line for line in lines if ".wav" not in line]) == (path.suffix == ".csv")  # one header


def test_an_interrupted_run_is_refused_without_resume_and_with_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sounds(tmp_path / "in", 3)
    words = ("--audio_path", folder, "--output", tmp_path / "x.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(
            "helpers.tagger.results.Tagging.to_json", lambda tagging: 1 / (not tagging.source.endswith("002.wav")) and "{}"
        )
        with pytest.raises(ZeroDivisionError):
            run(capsys, *words)
    with pytest.raises(ValueError, match="--resume"):
        run(capsys, *words)
    with pytest.raises(ValueError, match="top_k"):
        run(capsys, *words, "--resume", "--top_k", 3)
    assert run(capsys, *words, "--resume")[0] == 0
    assert [Path(line["source"]).name for line in json_lines(tmp_path / "x.jsonl")[2:]] == ["002.wav"]


def test_nothing_found_is_told_from_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sounds(tmp_path / "in", 3)
    (folder / "001.wav").write_text("no sound")
    for words, key in ((("--output",), "tags"), (("--events",), "events")):
        for suffix in (".jsonl", ".csv"):
            assert run(capsys, "--audio_path", folder, "--threshold", 1, *words, tmp_path / f"x{suffix}")[0] == 1
        lines = json_lines(tmp_path / "x.jsonl")
        assert [line.get(key) for line in lines] == [[], None, []] and "error" in lines[1]
        with open(tmp_path / "x.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(Path(row["source"]).name, row["label"]) for row in rows] == [("000.wav", ""), ("002.wav", "")]


def test_a_damaged_recording_is_used_with_a_warning_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sounds(tmp_path / "in", 2, seconds=1)
    content = (folder / "001.wav").read_bytes()
    (folder / "001.wav").write_bytes(content[: len(content) // 2])
    for limit in (0, 60):  # in this process, and in others
        code, _, err = run(capsys, "--audio_path", folder, "--output", tmp_path / "x.jsonl", "--time_limit", limit)
        assert code == 0 and err[0].startswith("warning: ") and "001.wav" in err[0]
        assert err[-1].endswith("2 of 2 recordings, 1 with warnings")
        good, damaged = json_lines(tmp_path / "x.jsonl")
        assert "warnings" not in good and len(damaged["warnings"]) == 1 and damaged["end"] == pytest.approx(0.5, abs=0.01)
    for words in (("--output", tmp_path / "x.jsonl", "--window", 0.2, "--hop", 0.1), ("--events", tmp_path / "x.jsonl")):
        assert run(capsys, "--audio_path", folder, *words)[0] == 0
        assert ["warnings" in line for line in json_lines(tmp_path / "x.jsonl")[-2:]] == [False, True]
    code, _, err = run(capsys, "--audio_path", folder, "--output", tmp_path / "x.jsonl", "--strict")
    assert code == 1 and err[0].startswith("error: ") and "001.wav" in err[0]


def test_what_is_amiss_in_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sounds(tmp_path / "in", 2)
    (folder / "._000.wav").write_text("resource fork")
    for number in range(3):
        (folder / f"{number}.txt").touch()
    words = ("--audio_path", folder, "--output", tmp_path / "x.csv")
    code, _, err = run(capsys, *words)
    assert code == 0 and len(err) == 2 and ".txt (3)" in err[0] and "2 of 2" in err[1]
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    code, _, err = run(capsys, *words)
    assert code == 1 and len(err) == 3 and err[0].startswith("error: ") and "gone.wav" in err[0]


def test_parts_and_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two channels, the second one is silent but for its last half."""
    samples = NOISE[:32000].copy()
    samples[:16000, 1] = 0
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", samples, 32000)
    words = ("--audio_path", tmp_path, "--output", tmp_path / "x.jsonl")
    assert run(capsys, *words, "--start", 0.25, "--end", 0.75, "--channel", 2)[0] == 0
    assert [(line["start"], line["end"], line["channel"]) for line in json_lines(tmp_path / "x.jsonl")] == [(0.25, 0.75, 2)] * 2
    assert run(capsys, *words, "--per_channel")[0] == 0
    lines = json_lines(tmp_path / "x.jsonl")
    assert [line["channel"] for line in lines] == [1, 2, 1, 2] and lines[0]["tags"] != lines[1]["tags"]
    assert (
        run(capsys, *words[:2], "--output", tmp_path / "x.csv", "--per_channel", "--window", 0.5, "--hop", 0.5, "--top_k", 1)[0]
        == 0
    )
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["channel"]) for row in rows] == [("0.0", "1"), ("0.5", "1"), ("0.0", "2"), ("0.5", "2")] * 2
    code, out, _ = run(capsys, "--audio_path", tmp_path / "a.wav", "--per_channel", "--top_k", 1)
    assert code == 0 and [line for line in out.splitlines() if line.endswith(("channel 1", "channel 2"))] == out.splitlines()[::2]
    code, _, err = run(capsys, *words, "--channel", 3)
    assert code == 1 and sum(line.startswith("error: ") for line in err) == 2


EVENTS = ("--threshold", "0.05", "--labels", "Speech", "Music", "--events")


def test_events_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = ROOT / "resources" / "recordings" / "scene.ogg"
    for suffix in (".csv", ".jsonl", ".txt", ".selections.txt", ".srt", ".rttm"):
        assert run(capsys, "--audio_path", scene, *EVENTS, tmp_path / f"x{suffix}")[0] == 0
    [line] = json_lines(tmp_path / "x.jsonl")
    events = [(event["label"], event["start"], event["end"]) for event in line["events"]]
    assert line["source"] == str(scene) and {label for label, *_ in events} == {"Speech", "Music"}
    assert all(event["mean"] <= event["score"] for event in line["events"])
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], float(row["start"]), float(row["end"])) for row in rows] == events
    labels = [line.split("\t") for line in (tmp_path / "x.txt").read_text().splitlines()]
    assert [(label, float(start), float(end)) for start, end, label in labels] == events
    with open(tmp_path / "x.selections.txt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["Annotation"], float(row["Begin Time (s)"]), float(row["End Time (s)"])) for row in rows] == events
    assert [row["Selection"] for row in rows] == [str(number) for number in range(1, len(events) + 1)]
    rate = soundfile.info(scene).samplerate
    assert {(row["Begin File"], float(row["High Freq (Hz)"])) for row in rows} == {("scene.ogg", rate / 2)}
    for name in ("x.txt", "x.selections.txt"):  # what this project trains on
        labels = parse_labels((tmp_path / name).read_text(), tmp_path / name)
        assert [(label.text, label.start, label.end) for label in labels] == events
    subtitles = (tmp_path / "x.srt").read_text().strip().split("\n\n")
    number, times, label = subtitles[0].splitlines()
    assert len(subtitles) == len(events) and number == "1" and label == events[0][0]
    assert re.fullmatch(r"00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}", times)
    turns = [line.split() for line in (tmp_path / "x.rttm").read_text().splitlines()]
    assert all(len(turn) == 10 and turn[0] == "SPEAKER" for turn in turns)
    assert [(turn[7], float(turn[3]), float(turn[3]) + float(turn[4])) for turn in turns] == [
        (label, pytest.approx(start, abs=0.001), pytest.approx(end, abs=0.002)) for label, start, end in events
    ]


def test_events_of_several_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sounds(tmp_path / "in", 2)
    assert run(capsys, "--audio_path", folder, "--threshold", 0.01, "--events", tmp_path / "x.selections.txt")[0] == 0
    with open(tmp_path / "x.selections.txt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["Begin File"] for row in rows} == {"000.wav", "001.wav"}
    assert [row["Selection"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    with pytest.raises(SystemExit):
        run(capsys, "--audio_path", folder, "--events", tmp_path / "x.srt")
    assert ".rttm" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--events", "--embed"])
def test_other_suffixes_are_refused_with_those_that_are_allowed(option: str, failing_message: Callable[..., str]) -> None:
    message = failing_message(inference.main, "--audio_path", "not_there.wav", option, "x.xlsx")
    allowed = {"--output": ".jsonl", "--events": ".selections.txt", "--embed": ".h5"}
    assert "x.xlsx" in message and allowed[option] in message


def test_events_by_the_wrong_option_are_refused_with_the_right_one(failing_message: Callable[..., str]) -> None:
    assert "--events" in failing_message(inference.main, "--audio_path", "not_there.wav", "--output", "x.srt")


@pytest.mark.skipif(not isolated.IS_AVAILABLE, reason="needs POSIX")
def test_a_file_that_hangs_or_crashes_costs_that_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, serve = isolated._PROGRAM.rpartition("; from ")
    flaws = """
from datasets.decoding import isolated
from datasets.folders.label_files import parse_labels
import os, time
real = isolated.open_sound
def open_sound(source, **reading):
    {"001.wav": lambda: time.sleep(100), "002.wav": os.abort}.get(os.path.basename(source), int)()
    return real(source, **reading)
isolated.open_sound = open_sound
"""
    monkeypatch.setattr(isolated, "_PROGRAM", f"{first}\n{flaws}\nfrom {serve}")
    folder = sounds(tmp_path / "in", 4)
    for words in ((), ("--window", 0.2, "--hop", 0.1)):
        code, _, err = run(capsys, "--audio_path", folder, "--output", tmp_path / "x.jsonl", "--time_limit", 1, *words)
        assert code == 1 and "1 s" in err[0] and "signal 6" in err[1] and err[2].endswith("2 of 4 recordings")
        lines = json_lines(tmp_path / "x.jsonl")
        assert [Path(line["source"]).name for line in lines if "error" in line] == ["001.wav", "002.wav"]


@pytest.mark.parametrize("name", ["x.h5", "x.npy"])
def test_embeddings_are_added_to(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sounds(tmp_path / "in", 4)
    words = ("--audio_path", folder, "--embed", tmp_path / name)
    assert run(capsys, *words)[0] == 0
    whole = read_embeddings(tmp_path / name)
    last = (folder / "003.wav").rename(tmp_path / "003.wav")
    (folder / "001.wav").rename(tmp_path / "001.wav")
    assert run(capsys, *words)[0] == 0
    assert len(read_embeddings(tmp_path / name).sources) == 2

    last.rename(folder / "003.wav")
    (folder / "0 broken.wav").write_text("no sound")
    with monkeypatch.context() as patch:  # the process ends when it wants to write the file
        patch.setattr("helpers.inference.embed.write_embeddings", None)
        with pytest.raises(TypeError):
            run(capsys, *words, "--skip_existing")
    assert len(read_embeddings(tmp_path / name).sources) == 2
    with pytest.raises(ValueError, match="--skip_existing"):
        run(capsys, *words)
    (tmp_path / "001.wav").rename(folder / "001.wav")
    code, _, err = run(capsys, *words, "--skip_existing")
    assert code == 1 and err[-1].startswith(f"{tmp_path / name}: 2 embeddings") and not list(tmp_path.glob("*.part*"))
    stored = read_embeddings(tmp_path / name)
    order = np.argsort(stored.sources)
    assert [Path(stored.sources[row]).name for row in order] == ["000.wav", "001.wav", "002.wav", "003.wav"]
    np.testing.assert_allclose(stored.embeddings[order], whole.embeddings, atol=1e-6)
    np.testing.assert_allclose(stored.ends[order], whole.ends)
    with pytest.raises(ValueError, match="window"):
        run(capsys, *words, "--skip_existing", "--window", 0.2)

    def write_and_end(*arguments: object) -> None:
        write_embeddings(*arguments)
        raise RuntimeError

    soundfile.write(folder / "004.wav", NOISE, 32000)
    with monkeypatch.context() as patch:  # the process ends when it has written the file
        patch.setattr("helpers.inference.embed.write_embeddings", write_and_end)
        with pytest.raises(RuntimeError):
            run(capsys, *words, "--skip_existing")
    run(capsys, *words, "--skip_existing")
    assert sorted(Path(source).name for source in read_embeddings(tmp_path / name).sources) == [f"00{k}.wav" for k in range(5)]
    (folder / "0 broken.wav").unlink()
    content = (tmp_path / name).read_bytes()
    assert run(capsys, *words, "--skip_existing")[0] == 0 and (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    "words",
    [
        ["--resume"],
        ["--output", "x.csv", "--skip_existing"],
        ["--events", "x.csv", "--output", "x.csv"],
        ["--events", "x.csv", "--top_k", "3"],
        ["--embed", "x.h5", "--per_channel"],
        ["--channel", "1", "--per_channel"],
        ["--channel", "0"],
        ["--rate", "32000"],
        ["--channels", "1"],
        ["--end", "0"],
    ],
)
def test_contradicting_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        inference.main(["--audio_path", "x.wav", *words])
    assert end.value.code == 2 and words[0] in capsys.readouterr().err


HOSTILE = "=a\x1b[31m\n\u202e@.wav"  # a formula, an escape sequence, another line, text from right to left


def test_hostile_names_do_no_harm_where_they_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, and in every format; resuming still finds what is done."""
    folder = sounds(tmp_path / "in", 2)
    (folder / "001.wav").rename(folder / HOSTILE)
    (folder / f"{HOSTILE}2.wav").write_text("no recording\n" * 100)
    table = tmp_path / "x.csv"
    for words in ((), ("--window", "0.2"), ("--output", table), ("--events", tmp_path / "e.rttm", "--threshold", "0.01")):
        _, out, err = run(capsys, "--audio_path", folder, *words)
        assert all(line.isprintable() for line in [*out.splitlines(), *err])
        assert any("001b[31m" in line for line in [*out.splitlines(), *err])
    assert all(line.isprintable() for line in (tmp_path / "e.rttm").read_text().splitlines())
    with open(table, newline="") as file:
        assert len({row["source"] for row in csv.DictReader(file)}) == 2
    assert all(line.isprintable() for line in table.read_text().splitlines())


def test_a_run_with_hostile_names_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("=a.wav", "-b.wav"):
        soundfile.write(tmp_path / "in" / name, NOISE, 32000)
    paths = [f"{tmp_path}/in/=a.wav", f"{tmp_path}/in/-b.wav"]
    table = tmp_path / "x.csv"
    run(capsys, "--audio_path", *paths, "--output", table)
    whole = table.read_bytes()
    words = [*BUNDLED, "--audio_path", *paths, "--output", str(table)]
    table.unlink()
    subprocess.run([sys.executable, "-c", KILLED, "4", *words], cwd=ROOT)
    assert run(capsys, "--audio_path", *paths, "--output", table, "--resume")[0] == 0
    assert table.read_bytes() == whole


def test_hostile_labels_do_no_harm_in_any_format() -> None:
    label = "=Speech\x1b[31m\n1\n00:00:00,000 --> 00:00:01,000\tx\u2028\u202e"
    event = Event(label, 0.0, 1.0, 0.5, HOSTILE, 0.5)
    recording = RecordingEvents(HOSTILE, 0.0, 1.0, (event,), 32000)
    for suffix, lines in ((".txt", 1), (".selections.txt", 1), (".rttm", 1), (".srt", 4)):
        text = event_lines(recording, suffix)
        assert text.count("\n") == lines and text.replace("\n", "").replace("\t", "").isprintable()
    assert json.loads(recording.to_json())["events"][0]["label"] == label  # escapes of JSON
    assert recording.to_json().isprintable()
    [row] = csv.DictReader(recording.to_csv().splitlines())
    assert row["label"].startswith("'=Speech") and row["label"].isprintable() and row["source"].startswith("'=a")
    tags = Tagging(HOSTILE, 0.0, 1.0, (Tag(label, 0.5),))
    assert len(tags.to_csv().splitlines()) == 2 and len(tags.to_json().splitlines()) == 1
