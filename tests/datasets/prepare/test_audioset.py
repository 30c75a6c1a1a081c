"""datasets.prepare.audioset: from a folder of mixed files and a CSV to clips, with what is amiss in the report."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datasets import audio
from datasets.audio import encode_mp3
from datasets.audioset import NUM_CLASSES
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.prepare import audioset

HEADER = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=6, num_segs=6, num_unique_labels=3, num_positive_labels=7\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
ROWS = {
    "--aE2O5G5WE": "/m/09x0r",
    "YbYbYbYbYbY": "/m/04rlf,/m/09x0r",
    "_cccccccccc": "/m/04rlf",
    "ddddddddddd": "/m/07hvw1",
    "missing1234": "/m/09x0r",
    "broken12345": "/m/09x0r",
}


def tone(frequency: float, rate: int = 32000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)).astype(np.float32)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "list.csv").write_text(HEADER + "".join(f'{name}, 30.000, 40.000, "{mids}"\n' for name, mids in ROWS.items()))
    audio = tmp_path / "audio"
    (audio / "sub" / "sub").mkdir(parents=True)
    (audio / "Y--aE2O5G5WE.mp3").write_bytes(encode_mp3(tone(400), 32000))
    soundfile.write(audio / "YbYbYbYbYbY.wav", np.stack([tone(500, 44100)] * 2, axis=1), 44100)
    soundfile.write(audio / "sub" / "Y_cccccccccc.flac", tone(600, 16000), 16000)
    soundfile.write(audio / "sub" / "sub" / "ddddddddddd.ogg", tone(700, 48000), 48000)
    (audio / "broken12345.mp3").write_bytes(b"nothing of value" * 100)
    (audio / "missing1234.info.json").write_text("{}")
    return tmp_path


def arguments(source, *options: str) -> list[str]:
    paths = {"--csv": source / "list.csv", "--audio_dir": source / "audio", "--output": source / "out" / "eval.hdf"}
    return [*(str(part) for pair in paths.items() for part in pair), *options]


def run(source, *options: str) -> int:
    return audioset.main(arguments(source, *options))


def report(source) -> dict[str, str]:
    with (source / "out" / "eval.hdf.report.tsv").open(newline="") as file:
        return {row["name"]: row["what"] for row in csv.DictReader(file, delimiter="\t")}


def test_everything_usable_is_stored_and_the_rest_reported(source, capsys):
    assert run(source) == 0
    dataset = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=1.0)
    names = ["Y--aE2O5G5WE.mp3", "YYbYbYbYbYbY.mp3", "Y_cccccccccc.mp3", "Yddddddddddd.mp3"]
    assert dataset.names == names  # the order of the CSV
    for clip, frequency, classes in zip(dataset, (400, 500, 600, 700), ([0], [0, 137], [137], [526]), strict=True):
        assert clip.target.nonzero().flatten().tolist() == classes
        assert float(torch.fft.rfft(clip.waveform).abs().argmax()) == pytest.approx(frequency, abs=1)
    assert report(source) == {"Ymissing1234.mp3": "missing", "Ybroken12345.mp3": "unreadable"}
    assert "4 of 6" in capsys.readouterr().out


def test_mono_32_khz_mp3s_are_stored_byte_for_byte(source):
    run(source)
    dataset = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES)
    stored = dataset._open(0)["mp3"]
    assert stored[0].tobytes() == (source / "audio" / "Y--aE2O5G5WE.mp3").read_bytes()
    for mp3 in stored:
        info = soundfile.info(io.BytesIO(mp3.tobytes()))
        assert (info.format, info.samplerate, info.channels) == ("MP3", 32000, 1)


def test_an_interrupted_run_resumes(source, monkeypatch, capsys):
    to_mp3, converted = audio.to_mp3, []

    def interrupt_at_the_third(content, *, name):
        if "Y_" in name:
            raise KeyboardInterrupt
        return to_mp3(content, name=name)

    monkeypatch.setattr(audio, "to_mp3", interrupt_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(source, "--num_workers", "1")
    assert [path.name for path in (source / "out").iterdir()] == ["eval.hdf.part"]

    monkeypatch.setattr(audio, "to_mp3", lambda content, name: converted.append(Path(name).stem) or to_mp3(content))
    assert run(source) == 0
    assert sorted(converted) == ["Y_cccccccccc", "broken12345", "ddddddddddd"]
    assert len(Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES)) == 4
    assert len(report(source)) == 2
    assert "2 in an earlier run" in capsys.readouterr().out


def test_nothing_found_leaves_no_file(source, failing_message):
    for path in (source / "audio").rglob("*.*"):
        path.unlink()
    assert "6 are missing" in failing_message(audioset.main, *arguments(source))
    assert not list((source / "out").iterdir())


def test_ids_and_classes_are_parsed(source):
    segments = audioset.read_segments(source / "list.csv")
    assert list(segments) == list(ROWS)
    assert segments["YbYbYbYbYbY"] == (137, 0)  # Music, Speech


def test_the_better_format_wins(tmp_path):
    for name in ("a.webm", "sub/a.wav", "a.mp3.txt", "b.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert audioset.find_audio(tmp_path) == {"a": str(tmp_path / "sub" / "a.wav"), "b": str(tmp_path / "b.m4a")}


@pytest.mark.parametrize(
    "row",
    [
        "abc, 0, 10",
        'abc, zero, 10, "/m/09x0r"',
        'abc, 0, 10, "/m/nothing"',
        'abc, 0, 10, ""',
        '--aE2O5G5WE, 0, 10, "/m/09x0r"',
        "\0",
    ],
)
def test_bad_rows_are_named_by_line(source, failing_message, row):
    with (source / "list.csv").open("a") as file:
        file.write(row + "\n")
    assert "list.csv, line 10" in failing_message(audioset.main, *arguments(source))
    assert not (source / "out").exists()


def test_user_mistakes_are_one_line_on_stderr(source, failing_message):
    (source / "there.hdf").touch()
    for options in (
        ["--csv", "nowhere.csv"],
        ["--csv", str(source)],
        ["--csv", str(source / "audio" / "YbYbYbYbYbY.wav")],
        ["--audio_dir", "nowhere"],
        ["--output", str(source / "there.hdf")],
        ["--output", str(source / "list.csv" / "a.hdf")],  # a folder that cannot be made
    ):
        failing_message(audioset.main, *arguments(source, *options))
