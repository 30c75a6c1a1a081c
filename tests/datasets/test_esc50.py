"""datasets.esc50 and its preparation, on a small copy of the published layout."""

from __future__ import annotations

import csv
import shutil
import zipfile

import numpy as np
import pytest
import soundfile

from datasets import esc50
from datasets.prepare import conversion
from datasets.prepare import esc50 as prepare_esc50

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


def write_table(path, rows) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows])


def rows() -> list[tuple]:
    """50 classes, each with one source recording of one clip in every fold and, in fold 1, of a second clip (take B)."""
    table = []
    for target in range(50):
        for fold in range(1, 6):
            source = 1000 * fold + target
            for take in "AB" if fold == 1 else "A":
                name = f"{fold}-{source}-{take}-{target}.wav"
                table.append((name, fold, target, f"class_{target:02}", target < 10, source, take))
    return table


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """The folder of the download, with clips of 0.1 s at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("download") / "ESC-50-master"
    for name in ("audio", "meta"):
        (folder / name).mkdir(parents=True)
    write_table(folder / "meta" / "esc50.csv", rows())
    time = np.arange(4410) / 44100
    for name, fold, target, *_ in rows():
        soundfile.write(folder / "audio" / name, 0.5 * np.sin(2 * np.pi * (500 + 100 * target + fold) * time), 44100)
    return folder


@pytest.fixture
def changed_table(master, tmp_path):
    """A function that writes a copy of the table, changed, next to the recordings; returns the folder."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").symlink_to(master / "audio")

    def change(edit):
        write_table(tmp_path / "meta" / "esc50.csv", edit(rows()))
        return tmp_path

    return change


def arguments(source, output_dir, *options) -> list[str]:
    return ["--source", str(source), "--output_dir", str(output_dir), *options]


def run(source, output_dir, *options) -> int:
    return prepare_esc50.main(arguments(source, output_dir, *options))


@pytest.mark.parametrize("fold", esc50.FOLDS)
def test_folds(master, fold):
    training, test = esc50.training_set(master, fold), esc50.test_set(master, fold)
    sizes = {part: 100 if part == 1 else 50 for part in esc50.FOLDS}
    assert len(test) == sizes[fold] and len(training) == 300 - sizes[fold]
    assert {name.split("-")[0] for name in test.names} == {str(fold)}
    assert not {name.split("-")[1] for name in test.names} & {name.split("-")[1] for name in training.names}
    assert not set(training.names) & set(test.names)
    assert test.targets().sum(0).tolist() == [sizes[fold] // 50] * 50


def test_a_clip_of_the_original_download(master, tmp_path):
    clip = esc50.test_set(master, 2, cache_dir=tmp_path)[7]
    assert clip.name == "2-2007-A-7.wav" and clip.waveform.shape == (160000,) and clip.target.nonzero().tolist() == [[7]]
    spectrum = np.abs(np.fft.rfft(clip.waveform[:3200]))
    assert spectrum.argmax() * 10 == pytest.approx(1202, abs=10)  # Hz
    assert list(tmp_path.rglob("*.npy"))
    assert esc50.test_set(master, 2, sample_rate=16000, clip_seconds=1.0)[0].waveform.shape == (16000,)


def test_class_names(master, changed_table):
    assert esc50.class_names(master) == tuple(f"class_{target:02}" for target in range(50))
    with pytest.raises(ValueError, match="49 classes"):
        esc50.class_names(changed_table(lambda table: [row for row in table if row[2] != 3]))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="esc50.csv.*--dataset_dir.*ESC50_DIR.*datasets.prepare.esc50"):
        esc50.test_set(tmp_path, 1)


def test_missing_recordings_are_counted(master, changed_table):
    folder = changed_table(lambda table: [*table, ("5-99-A-0.wav", 5, 0, "class_00", False, 99, "A")])
    with pytest.raises(FileNotFoundError, match=r"1 of 51 recordings are missing: \S*audio/5-99-A-0.wav;"):
        esc50.test_set(folder, 5)


@pytest.mark.parametrize("fold", [0, 6, "all"])
def test_other_folds_are_refused(master, fold):
    with pytest.raises(ValueError, match="folds 1 to 5"):
        esc50.training_set(master, fold)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: [*table, ("2-1000-C-0.wav", 2, 0, "class_00", True, 1000, "C")], "1000 is in folds 1 and 2"),
        (lambda table: [*table, table[0]], "twice"),
        (lambda table: [*table, ("../a.wav", 1, 0, "class_00", True, 1, "A")], "not a plain file name"),
        (lambda table: [*table, ("..", 1, 0, "class_00", True, 1, "A")], "not a plain file name"),
        (lambda table: [*table, ("a.wav", 6, 0, "class_00", True, 1, "A")], "fold 6"),
        (lambda table: [*table, ("a.wav", 1, 50, "class_50", True, 1, "A")], "target 50"),
        (lambda table: [*table, ("a.wav", 1, 0, "dog", True, 1, "A")], "both class_00 and dog"),
        (lambda table: [row for row in table if row[1] != 3], "fold 3"),
    ],
)
def test_damaged_tables_are_refused(changed_table, edit, message):
    with pytest.raises(ValueError, match=message):
        esc50.test_set(changed_table(edit), 3)


def test_columns_are_checked(changed_table):
    folder = changed_table(list)
    table = (folder / "meta" / "esc50.csv").read_text()
    (folder / "meta" / "esc50.csv").write_text(table.replace("src_file", "source"))
    with pytest.raises(ValueError, match="src_file is missing; there are filename, fold"):
        esc50.test_set(folder, 1)


# Preparation


def test_prepared_clips_are_those_of_the_download(master, tmp_path, capsys):
    archive = shutil.make_archive(str(tmp_path / "ESC-50-master"), "zip", master.parent, "ESC-50-master")
    for source, output_dir in ((archive, tmp_path / "from_zip"), (master, tmp_path / "from_folder")):
        assert run(source, output_dir) == 0
        output = capsys.readouterr()
        assert "300 of 300 clips" in output.out and "warning: 300 clips instead of the published 2000" in output.err
        prepared, original = esc50.test_set(output_dir, 4), esc50.test_set(master, 4)
        assert prepared.names == original.names and prepared.paths[0].parent.name == "audio_32k"
        assert soundfile.info(prepared.paths[0]).samplerate == 32000
        for one, other in ((prepared[index], original[index]) for index in (0, 49)):
            np.testing.assert_allclose(one.waveform, other.waveform, atol=1e-4)
        assert esc50.class_names(output_dir) == esc50.class_names(master)


def test_an_interrupted_preparation_resumes(master, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run(master, out) == 0
    wavs = sorted((out / "audio_32k").iterdir())
    for wav in wavs[:5]:
        wav.unlink()
    kept = wavs[5].stat().st_mtime_ns
    assert run(master, out) == 0
    assert "(5 written now, 295 in an earlier run)" in capsys.readouterr().out
    assert sorted((out / "audio_32k").iterdir()) == wavs and wavs[5].stat().st_mtime_ns == kept


def test_bad_and_missing_files_are_listed(master, tmp_path, capsys):
    source = tmp_path / "ESC-50-master"
    shutil.copytree(master, source)
    (source / "audio" / "1-1000-A-0.wav").write_bytes(b"broken")
    (source / "audio" / "2-2000-A-0.wav").unlink()
    cut = source / "audio" / "3-3000-A-0.wav"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert run(source, tmp_path / "out") == 0
    assert "1 missing, 1 unreadable, 1 damaged" in capsys.readouterr().out
    lines = (tmp_path / "out" / "report.tsv").read_text().splitlines()
    expected = [["2-2000-A-0.wav", "missing"], ["1-1000-A-0.wav", "unreadable"], ["3-3000-A-0.wav", "damaged"]]
    assert [line.split("\t")[:2] for line in lines[1:]] == expected


def test_zip_entries_stay_where_they_belong(master, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.write(master / "meta" / "esc50.csv", "ESC-50-master/meta/esc50.csv")
        for name, *_ in rows():
            archive.write(master / "audio" / name, f"../../../audio/{name}")
        archive.writestr("../evil.sh", "touch evil")
        archive.writestr("/absolute/evil.sh", "touch evil")
    (tmp_path / "in").mkdir()
    assert run(tmp_path / "evil.zip", tmp_path / "in" / "out") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"evil.zip", "in"}
    assert {path.name for path in (tmp_path / "in" / "out").iterdir()} == {"audio_32k", "meta", "report.tsv"}
    assert len(list((tmp_path / "in" / "out" / "audio_32k").iterdir())) == 300


def test_user_mistakes_and_full_disks_are_one_line(master, tmp_path, monkeypatch, failing_message):
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "empty").mkdir()
    for source in ("nowhere", "text.zip", "empty"):
        assert source in failing_message(prepare_esc50.main, *arguments(tmp_path / source, tmp_path / "out"))

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(conversion, "write_bytes", full)
    assert "No space left" in failing_message(prepare_esc50.main, *arguments(master, tmp_path / "out"))
    with pytest.raises(SystemExit):
        run(master, tmp_path / "out", "--num_workers", "0")
