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
from datasets.decoding import isolated
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.prepare import audioset
from datasets.prepare.segments import Segment, match, read_segments

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
    stored = [dataset.read(index)[0] for index in range(len(dataset))]
    assert stored[0] == (source / "audio" / "Y--aE2O5G5WE.mp3").read_bytes()
    for mp3 in stored:
        info = soundfile.info(io.BytesIO(mp3))
        assert (info.format, info.samplerate, info.channels) == ("MP3", 32000, 1)


def interrupt_at(monkeypatch, name: str) -> None:
    """Let the writer be interrupted at a clip."""
    add = Mp3Writer.add

    def interrupt(self, entry, *values):
        if entry == name:
            raise KeyboardInterrupt
        add(self, entry, *values)

    monkeypatch.setattr(Mp3Writer, "add", interrupt)


def test_an_interrupted_run_resumes(source, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, "Y_cccccccccc.mp3")
        run(source)
    assert [path.name for path in (source / "out").iterdir()] == ["eval.hdf.part"]
    for name in ("Y--aE2O5G5WE.mp3", "YbYbYbYbYbY.wav"):
        (source / "audio" / name).write_bytes(b"not needed any more")
    assert run(source) == 0
    assert len(Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES)) == 4
    assert len(report(source)) == 2
    assert "2 in an earlier run" in capsys.readouterr().out


def test_nothing_found_leaves_no_file(source, failing_message):
    for path in (source / "audio").rglob("*.*"):
        path.unlink()
    assert "6 are missing" in failing_message(audioset.main, *arguments(source))
    assert not list((source / "out").iterdir())


def test_ids_and_classes_are_parsed(source):
    segments = read_segments(source / "list.csv")
    assert list(segments) == list(ROWS)
    assert segments["YbYbYbYbYbY"] == (30, 40, (137, 0))  # Music, Speech


def write_tone(path: Path, frequency: float, seconds: float, rate: int = 8000) -> None:
    """A tone that begins at `frequency` and changes to twice that after 30 s."""
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * np.where(times < 30, frequency, 2 * frequency) * times), rate)


SEGMENTS = {
    name: Segment(30, 40, ())
    for name in ("ZZZZZZZZZZ1", "Yabcdefghij", "abcdefghij_", "-bcdefghij5", "abc_1234567", "abcdef_30_40")
} | {"abcdefghij0": Segment(0.5, 10.5, ())}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ZZZZZZZZZZ1", ("ZZZZZZZZZZ1", False)),
        ("YZZZZZZZZZZ1", ("ZZZZZZZZZZ1", False)),
        ("ZZZZZZZZZZ1_30", ("ZZZZZZZZZZ1", True)),
        ("ZZZZZZZZZZ1_30.000", ("ZZZZZZZZZZ1", True)),
        ("YZZZZZZZZZZ1_30000_40000", ("ZZZZZZZZZZ1", True)),
        ("ZZZZZZZZZZ1_30.0_40.0", ("ZZZZZZZZZZ1", True)),
        ("ZZZZZZZZZZ1_40", None),  # another segment of the video
        ("ZZZZZZZZZZ1_30.000_50.000", None),
        ("ZZZZZZZZZZ1_30_40_50", None),
        ("ZZZZZZZZZZ", None),
        ("Yabcdefghij", ("Yabcdefghij", False)),  # an id that begins with Y
        ("YYabcdefghij_30", ("Yabcdefghij", True)),
        ("abcdefghij__30", ("abcdefghij_", True)),
        ("-bcdefghij5_30000", ("-bcdefghij5", True)),
        ("abc_1234567", ("abc_1234567", False)),  # an id that looks like a time
        ("abcdef_30_40", ("abcdef_30_40", False)),
        ("abcdefghij0_0", ("abcdefghij0", True)),  # cut to whole seconds
        ("abcdefghij0_500_10500", ("abcdefghij0", True)),
        ("abcdefghij0_0.000", None),
        ("", None),
    ],
)
def test_names_of_downloaders(name, expected):
    assert match(name, SEGMENTS) == expected


def test_a_whole_video_is_cut_to_its_segment(source):
    for path in (source / "audio").rglob("*.*"):
        path.unlink()
    write_tone(source / "audio" / "ddddddddddd.WAV", 400, 42)  # 800 Hz from 30 to 40 s
    write_tone(source / "audio" / "_cccccccccc_30000_40000.flac", 500, 42)  # its name says that it is cut, and it is longer
    write_tone(source / "audio" / "--aE2O5G5WE.wav", 600, 12)  # longer than a segment, but not a whole video
    assert run(source) == 0
    dataset = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=None)
    lengths = {name: length / 32000 for name, length in zip(dataset.names, dataset.lengths(), strict=True)}
    expected = {"Yddddddddddd.mp3": 10, "Y_cccccccccc.mp3": 42, "Y--aE2O5G5WE.mp3": 12}
    assert lengths == pytest.approx(expected, abs=0.1)
    clip = dataset[dataset.names.index("Yddddddddddd.mp3")].waveform[:320000]
    assert float(torch.fft.rfft(clip).abs().argmax()) / 10 == pytest.approx(800, abs=1)


def test_what_is_no_longer_than_a_segment_or_ends_within_it_is_whole(tmp_path):
    (tmp_path / "audio").mkdir()
    cases = ((0, 10.5, 10.5), (0, 12, 10), (2, 10.5, 10.5), (30, 35, 35), (30, 39.5, 9.5), (30, 42, 10))
    mp3s = []
    with (tmp_path / "list.csv").open("w") as file:
        for number, (start, seconds, _) in enumerate(cases):
            file.write(f'{number:011d}, {start}, {start + 10}, "/m/09x0r"\n')
            mp3s.append(encode_mp3((0.1 * np.sin(np.arange(round(seconds * 32000)) * 0.1)).astype(np.float32), 32000))
            (tmp_path / "audio" / f"{number:011d}.mp3").write_bytes(mp3s[-1])
    assert run(tmp_path) == 0
    dataset = Mp3Dataset(tmp_path / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=None)
    assert dataset.lengths() / 32000 == pytest.approx([expected for _, _, expected in cases], abs=0.1)
    is_stored_as_it_is = [dataset.read(index)[0] == mp3 for index, mp3 in enumerate(mp3s)]
    assert is_stored_as_it_is == [expected == seconds for _, seconds, expected in cases]


def test_a_damaged_mp3_is_not_stored_as_it_is(source):
    path = source / "audio" / "Y--aE2O5G5WE.mp3"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(source) == 0
    assert report(source)["Y--aE2O5G5WE.mp3"] == "damaged"
    dataset = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=None)
    assert dataset.read(0)[0] != path.read_bytes()
    warnings = []
    audio.decode(dataset.read(0)[0], warnings=warnings)
    assert not warnings


def test_of_several_files_the_fullest_is_used_and_the_others_are_listed(source):
    write_tone(source / "audio" / "ddddddddddd.wav", 400, 0.5)
    write_tone(source / "audio" / "ddddddddddd_30.flac", 500, 3)
    (source / "audio" / "Yddddddddddd.mp3").write_bytes(b"nothing of value" * 100)
    assert run(source) == 0
    dataset = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=None)
    assert len(dataset[3].waveform) == pytest.approx(3 * 32000, abs=10)
    with (source / "out" / "eval.hdf.report.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["what"] == "duplicate"]
    assert {row["name"] for row in rows} == {"Yddddddddddd.mp3"}
    assert sorted(Path(row["reason"].split()[0]).name for row in rows) == ["Yddddddddddd.mp3", "ddddddddddd.ogg", "ddddddddddd.wav"]


def test_a_damaged_recording_is_used_and_listed_also_after_an_interrupt(source, monkeypatch):
    whole = (source / "audio" / "YbYbYbYbYbY.wav").read_bytes()
    (source / "audio" / "YbYbYbYbYbY.wav").write_bytes(whole[: len(whole) // 2])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, "Yddddddddddd.mp3")
        run(source)
    with (source / "out" / "eval.hdf.notes.part").open("a") as file:
        file.write('\n["Y_ccc')  # cut by a kill
    (source / "audio" / "Yddddddddddd.wav").write_bytes(b"nothing of value")
    assert run(source) == 0
    assert report(source)["Yddddddddddd.mp3"] == "duplicate"
    assert report(source)["YYbYbYbYbYbY.mp3"] == "damaged"
    assert sorted(path.name for path in (source / "out").iterdir()) == ["eval.hdf", "eval.hdf.report.tsv"]
    clip = Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES, clip_seconds=None)[1]
    assert len(clip.waveform) == pytest.approx(16000, abs=10)


@pytest.mark.skipif(not isolated.IS_AVAILABLE, reason="needs POSIX")
def test_a_recording_that_crashes_its_decoder_costs_only_itself(source, monkeypatch):
    flaw = (
        "import os; from datasets.decoding import isolated; real = isolated.open_sound; "
        "isolated.open_sound = lambda source, **options: os.abort() if 'ddd' in str(source) else real(source, **options)"
    )
    first, _, serve = isolated._PROGRAM.rpartition("; from ")
    monkeypatch.setattr(isolated, "_PROGRAM", f"{first}; {flaw}; from {serve}")
    assert run(source) == 0
    expected = {"Ymissing1234.mp3": "missing", "Ybroken12345.mp3": "unreadable", "Yddddddddddd.mp3": "unreadable"}
    assert report(source) == expected
    assert len(Mp3Dataset(source / "out" / "eval.hdf", num_classes=NUM_CLASSES)) == 3


def test_hidden_files_do_not_count_and_strangers_are_told(source, capsys):
    (source / "audio" / "._missing1234.mp3").write_bytes(b"resource fork")
    (source / "audio" / "stranger123_30.mp3").write_bytes(encode_mp3(tone(400), 32000))
    (source / "audio" / "YbYbYbYbYbY_90.000.wav").write_bytes(b"another segment of that video")
    run(source)
    assert report(source) == {"Ymissing1234.mp3": "missing", "Ybroken12345.mp3": "unreadable"}
    out = capsys.readouterr().out
    assert "2 recordings" in out and ".json" in out


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
