"""datasets.prepare.audioset with shards: the same HDF5 file from parquet files and tars, and what is amiss in the report."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from datasets.audio import encode_mp3
from datasets.audioset import NUM_CLASSES
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.prepare import audioset
from datasets.prepare.audioset_shards import StoredClip, write_parquet, write_tar

KINDS = pytest.mark.parametrize(
    ("option", "suffix", "write"), [("--parquet", "parquet", write_parquet), ("--webdataset", "tar", write_tar)]
)


def flac(frequency: float, seconds: float = 0.5, rate: int = 44100) -> bytes:
    """24 bits, as on the Hub; the pitch doubles after 30 s."""
    times = np.arange(round(seconds * rate)) / rate
    file = io.BytesIO()
    waveform = 0.5 * np.sin(2 * np.pi * np.where(times < 30, frequency, 2 * frequency) * times)
    soundfile.write(file, waveform, rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


WHOLE = flac(400)
FIRST = [
    StoredClip("aaaaaaaaaaa", WHOLE, ".flac", (0,)),
    StoredClip("-bbbbbbbbbb", WHOLE[: len(WHOLE) * 2 // 3], ".flac", (1, 2)),
    StoredClip("Y_ccccccccc", encode_mp3(np.sin(np.arange(16000) * 0.1).astype(np.float32), 32000), ".mp3", (3,)),
]
SECOND = [
    StoredClip("ddddddddddd", b"nothing of value" * 50, ".flac", (4,)),
    StoredClip("aaaaaaaaaaa", flac(400, 0.3), ".flac", (0,)),
    StoredClip("eeeeeeeeeee", flac(500), ".flac", (5,)),
]
CSV = """# comment
eeeeeeeeeee, 0.000, 10.000, "/m/04rlf"
fffffffffff, 0.000, 10.000, "/m/04rlf"
aaaaaaaaaaa, 30.000, 40.000, "/m/09x0r,/m/04rlf"
"""


def report(output: Path) -> set[tuple[str, str]]:
    with output.with_name(f"{output.name}.report.tsv").open(newline="") as file:
        return {(row["name"], row["what"]) for row in csv.DictReader(file, delimiter="\t")}


def classes(dataset: Mp3Dataset) -> dict[str, list[int]]:
    return {name: target.nonzero()[0].tolist() for name, target in zip(dataset.names, dataset.targets(), strict=True)}


@KINDS
def test_all_clips_of_all_shards_are_stored_and_the_rest_reported(tmp_path, option, suffix, write):
    write(tmp_path / "in" / f"0.{suffix}", FIRST)
    write(tmp_path / "in" / "sub" / f"1.{suffix}", SECOND)
    whole = (tmp_path / "in" / f"0.{suffix}").read_bytes()
    (tmp_path / "in" / f"2.{suffix}").write_bytes(whole[: len(whole) // 3] if suffix == "parquet" else b"nothing" * 999)
    output = tmp_path / "eval.hdf"
    assert audioset.main([option, str(tmp_path / "in"), "--output", str(output)]) == 1  # a shard could not be read
    dataset = Mp3Dataset(output, num_classes=NUM_CLASSES, clip_seconds=None)
    assert classes(dataset) == {
        "Yaaaaaaaaaaa.mp3": [0],
        "Y-bbbbbbbbbb.mp3": [1, 2],
        "YY_ccccccccc.mp3": [3],
        "Yeeeeeeeeeee.mp3": [5],
    }
    assert report(output) == {
        ("Y-bbbbbbbbbb.mp3", "damaged"),
        ("Yddddddddddd.mp3", "unreadable"),
        ("Yaaaaaaaaaaa.mp3", "duplicate"),
        (str(tmp_path / "in" / f"2.{suffix}"), "problem"),
    }
    assert len(dataset[0].waveform) == pytest.approx(16000, abs=10)  # the longer copy
    assert dataset.read(2)[0] == FIRST[2].recording


@KINDS
def test_a_csv_chooses_clips_and_labels_and_cuts_whole_videos(tmp_path, option, suffix, write):
    (tmp_path / "list.csv").write_text(CSV)
    video = StoredClip("Yaaaaaaaaaaa", flac(400, 41, 8000), ".flac", ())
    write(tmp_path / f"0.{suffix}", [FIRST[1], video, StoredClip("eeeeeeeeeee_0", flac(500), ".flac", ())])
    output = tmp_path / "eval.hdf"
    pattern = str(tmp_path / f"*.{suffix}")
    assert audioset.main([option, pattern, "--csv", str(tmp_path / "list.csv"), "--output", str(output)]) == 0
    dataset = Mp3Dataset(output, num_classes=NUM_CLASSES, clip_seconds=None)
    assert classes(dataset) == {"Yeeeeeeeeeee.mp3": [137], "Yaaaaaaaaaaa.mp3": [0, 137]}  # in the order of the CSV
    assert report(output) == {("Yfffffffffff.mp3", "missing")}
    waveform = dataset[1].waveform.numpy()
    assert len(waveform) == pytest.approx(320000, abs=50)
    assert np.abs(np.fft.rfft(waveform[:32000])).argmax() == pytest.approx(800, abs=1)


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    write_parquet(tmp_path / "0.parquet", FIRST)
    write_parquet(tmp_path / "1.parquet", SECOND)
    output = tmp_path / "eval.hdf"
    options = ["--parquet", str(tmp_path), "--output", str(output)]
    add = Mp3Writer.add

    def interrupt(self, name, *values):
        if name.startswith("Yeee"):
            raise KeyboardInterrupt
        add(self, name, *values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mp3Writer, "add", interrupt)
        audioset.main(options)
    assert audioset.main(options) == 0
    assert len(Mp3Dataset(output, num_classes=NUM_CLASSES)) == 4
    assert {what for _, what in report(output)} == {"damaged", "duplicate", "unreadable"}  # of both runs


def test_mistakes_are_one_line(tmp_path, failing_message):
    write_parquet(tmp_path / "0.parquet", SECOND[:1])
    write_tar(tmp_path / "no.tar", [])
    pq.write_table(pa.table({"video_id": ["a"], "audio": [b"no sound"]}), tmp_path / "unlabelled.parquet")
    for options in (
        ["--parquet", tmp_path / "nowhere"],
        ["--parquet", tmp_path / "unlabelled.parquet"],
        ["--parquet", tmp_path / "*.tar"],
        ["--webdataset", tmp_path / "0.parquet"],
        ["--webdataset", tmp_path / "no.tar"],
        ["--parquet", tmp_path],  # nothing can be decoded
        ["--audio_dir", tmp_path],  # labels are missing
    ):
        assert failing_message(audioset.main, *map(str, options), "--output", str(tmp_path / "out" / "a.hdf"))
