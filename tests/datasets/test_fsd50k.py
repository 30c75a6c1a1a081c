"""datasets.fsd50k and its preparation, on a small copy of the published layout."""

from __future__ import annotations

import shutil
import subprocess
import zipfile

import h5py
import numpy as np
import pytest
import soundfile
import torch

from datasets import audio, fsd50k
from datasets.hdf5_mp3 import Hdf5Error, Mp3Writer
from datasets.prepare import fsd50k as prepare_fsd50k

LABELS = ["Accelerating_and_revving_and_vroom", *(f"Label_{i:03}_(of)_them" for i in range(1, 199)), "Zipper_(clothing)"]
CLIPS = {  # fname: (part, labels, seconds)
    "64760": ("train", (0,), 0.3),
    "16399": ("train", (0, 7, 8, 199), 12.0),
    "16401": ("val", (63, 64), 1.0),
    "37199": ("eval", (199,), 0.5),
    "4": ("eval", (15, 16), 11.0),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders that the download holds, and what is prepared from them."""
    folder = tmp_path_factory.mktemp("made") / "download"
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text("".join(f"{i},{label},/m/{i}\n" for i, label in enumerate(LABELS)))
    rows = {"dev": "fname,labels,mids,split\n", "eval": "fname,labels,mids\n"}
    rng = np.random.default_rng(0)
    for fname, (part, classes, seconds) in CLIPS.items():
        half = "eval" if part == "eval" else "dev"
        labels, mids = ",".join(LABELS[k] for k in classes), ",".join(f"/m/{k}" for k in classes)
        rows[half] += f'{fname},"{labels}","{mids}"' + (f",{part}\n" if half == "dev" else "\n")
        (folder / f"FSD50K.{half}_audio").mkdir(exist_ok=True)
        samples = 0.1 * rng.standard_normal(round(seconds * 44100))
        soundfile.write(folder / f"FSD50K.{half}_audio" / f"{fname}.wav", samples, 44100)
    for half, text in rows.items():
        (truth / f"{half}.csv").write_text(text)
    assert run(folder, folder.parent / "fsd50k") == 0
    return folder.parent


@pytest.fixture
def download(made, tmp_path):
    return shutil.copytree(made / "download", tmp_path / "download")


@pytest.fixture
def prepared(made, tmp_path):
    return shutil.copytree(made / "fsd50k", tmp_path / "fsd50k")


def arguments(source, output_dir, *options) -> list[str]:
    return ["--source", str(source), "--output_dir", str(output_dir), *options]


def run(source, output_dir, *options) -> int:
    return prepare_fsd50k.main(arguments(source, output_dir, *options))


def test_preparation_packs_200_classes(download, tmp_path, capsys):
    assert run(download, tmp_path / "out") == 0
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        f"warning: {count} {part} clips instead of the published {published}"
        for part, count, published in (("train", 2, 36796), ("val", 1, 4170), ("eval", 2, 10231))
    ]
    with h5py.File(tmp_path / "out" / "FSD50K.train_mp3.hdf") as file:
        assert list(file["audio_name"]) == [b"64760.mp3", b"16399.mp3"] and file["target"].shape == (2, 25)
        assert file["target"][1].tolist() == [0b10000001, 0b10000000, *[0] * 22, 0b00000001]  # classes 0, 7, 8 and 199
        assert audio.decode(file["mp3"][0].tobytes())[1] == 32000


def test_sets(prepared):
    training, validation, evaluation = (
        make(prepared) for make in (fsd50k.training_set, fsd50k.validation_set, fsd50k.evaluation_set)
    )
    assert [dataset.names for dataset in (training, validation, evaluation)] == [
        ["64760.mp3", "16399.mp3"], ["16401.mp3"], ["37199.mp3", "4.mp3"],
    ]  # fmt: skip
    for dataset in (training, validation, evaluation):
        for clip in dataset:
            assert clip.target.nonzero().flatten().tolist() == list(CLIPS[clip.name[:-4]][1])
            assert clip.waveform.shape == (320000,) and clip.target.shape == (200,)
    torch.manual_seed(0)
    assert not torch.equal(training[1].waveform, training[1].waveform)  # another crop of 12 s
    assert torch.equal(evaluation[1].waveform, evaluation[1].waveform)
    whole = fsd50k.evaluation_set(prepared, clip_seconds=None)
    assert [len(clip.waveform) for clip in whole] == [16000, 352000]


def test_class_names_come_from_the_vocabulary(prepared):
    assert fsd50k.class_names(prepared) == tuple(LABELS)
    vocabulary = prepared / "FSD50K.ground_truth" / "vocabulary.csv"
    whole = vocabulary.read_text()
    for text in ("", "0,a,b\n", whole.replace("199,", "200,"), whole.replace("Zipper_(clothing)", "Label_001_(of)_them")):
        vocabulary.write_text(text)
        with pytest.raises(ValueError, match="200 different labels"):
            fsd50k.class_names(prepared)
    vocabulary.unlink()
    assert fsd50k.class_names(prepared) is None


def test_a_missing_file_is_named(prepared, monkeypatch):
    monkeypatch.setenv("FSD50K_DIR", str(prepared))
    assert len(fsd50k.training_set()) == 2
    (prepared / "FSD50K.val_mp3.hdf").unlink()
    with pytest.raises(FileNotFoundError, match="FSD50K.val_mp3.hdf.*--dataset_dir.*FSD50K_DIR.*datasets.prepare.fsd50k"):
        fsd50k.validation_set()


def test_files_of_other_class_counts_are_refused(tmp_path):
    with Mp3Writer(tmp_path / "FSD50K.eval_mp3.hdf", 527) as writer:
        writer.add("a", b"x", np.eye(527)[0])
    with pytest.raises(Hdf5Error, match="200"):
        fsd50k.evaluation_set(tmp_path)


def test_preparation_resumes_and_reports(download, prepared, tmp_path, capsys):
    (prepared / "FSD50K.eval_mp3.hdf").unlink()
    (download / "FSD50K.eval_audio" / "4.wav").write_bytes(b"broken")
    assert run(download, prepared) == 0
    output = capsys.readouterr().out
    assert "FSD50K.train_mp3.hdf is there" in output and "1 of 2 clips" in output and "1 unreadable" in output
    assert "4.mp3\tunreadable" in (prepared / "FSD50K.eval_mp3.hdf.report.tsv").read_text()
    assert fsd50k.evaluation_set(prepared).names == ["37199.mp3"]


def test_zips_are_read_where_they_are(download, prepared, tmp_path):
    zips = tmp_path / "zips"
    zips.mkdir()
    for folder in download.iterdir():
        shutil.make_archive(str(zips / folder.name), "zip", download, folder.name)
    assert run(zips, tmp_path / "out", "--num_workers", "3") == 0
    for make in (fsd50k.training_set, fsd50k.evaluation_set):
        for one, other in zip(make(prepared), make(tmp_path / "out"), strict=True):
            assert one.name == other.name and torch.equal(one.target, other.target)
            assert torch.equal(one.waveform, other.waveform) or one.name == "16399.mp3"  # which is cropped at random
    assert {path.name for path in zips.iterdir()} == {f"{folder.name}.zip" for folder in download.iterdir()}


def test_a_damaged_entry_is_reported(download, tmp_path, capsys):
    path = shutil.make_archive(str(tmp_path / "all"), "zip", download)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("FSD50K.dev_audio/16399.wav").header_offset
    content = bytearray(open(path, "rb").read())
    content[start + 5000] ^= 255
    open(path, "wb").write(content)
    assert run(path, tmp_path / "out") == 0
    assert "1 unreadable" in capsys.readouterr().out
    assert "16399.mp3\tunreadable\tFSD50K.dev_audio/16399.wav in " in (
        (tmp_path / "out" / "FSD50K.train_mp3.hdf.report.tsv").read_text()
    )


def test_split_archives_need_joining(download, tmp_path, failing_message):
    (download / "FSD50K.dev_audio").rename(tmp_path / "FSD50K.dev_audio")
    (download / "FSD50K.dev_audio.z01").write_bytes(b"first part")
    (download / "FSD50K.dev_audio.zip").write_bytes(b"last part")
    error = failing_message(prepare_fsd50k.main, *arguments(download, tmp_path / "out"))
    assert "7z x" in error and "zip -s 0" in error
    (tmp_path / "FSD50K.dev_audio").rename(download / "FSD50K.dev_audio")  # extracted: the parts may stay
    assert run(download, tmp_path / "out") == 0


@pytest.mark.skipif(not shutil.which("zip"), reason="needs zip")
def test_the_advice_on_split_archives_works(download, tmp_path, failing_message):
    for wav in (download / "FSD50K.dev_audio").iterdir():  # zip -s 0 damages what is spread over three parts
        soundfile.write(wav, 0.1 * np.random.default_rng(0).standard_normal(14000), 44100)
    subprocess.run(["zip", "-q", "-s", "64k", "-r", "FSD50K.dev_audio.zip", "FSD50K.dev_audio"], cwd=download, check=True)
    shutil.rmtree(download / "FSD50K.dev_audio")
    command = failing_message(prepare_fsd50k.main, *arguments(download, tmp_path / "out")).split("`")[3].split()
    subprocess.run(command, check=True, capture_output=True)
    for part in download.glob("FSD50K.dev_audio.z*"):
        part.unlink()
    assert run(download, tmp_path / "out") == 0
    assert len(fsd50k.training_set(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dev.csv", "64760", "../64760", "dev.csv: clip '../64760'"),
        ("dev.csv", ",val", ",validation", "split 'validation'"),
        ("eval.csv", "Zipper", "Zip", "not FSD50K's"),
        ("eval.csv", "labels", "tags", "labels is missing"),
        ("vocabulary.csv", "0,", "a,", "200 different labels"),
    ],
)
def test_damaged_tables_are_one_line(download, tmp_path, failing_message, file, old, new, message):
    path = download / "FSD50K.ground_truth" / file
    path.write_text(path.read_text().replace(old, new))
    assert message in failing_message(prepare_fsd50k.main, *arguments(download, tmp_path / "out"))
