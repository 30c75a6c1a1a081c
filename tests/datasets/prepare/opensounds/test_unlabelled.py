"""Sound without labels from made-up packages, offline, next to a tiny labelled corpus."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.prepare import conversion
from datasets.prepare.opensounds import build, copies, debian, tables, unlabelled
from datasets.prepare.opensounds.debian import PackageError
from datasets.prepare.opensounds.licences import hours_by_kind, licence_kind
from datasets.prepare.opensounds.sounds import SAMPLE_RATE as RATE


def burst(seed: int, seconds: float = 0.5) -> np.ndarray:
    """A decaying chord in a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * t) for frequency in rng.uniform(200, 8000, 5))
    return (0.1 * (chord + 0.1 * rng.standard_normal(len(t))) * np.exp(-2 * t / seconds)).astype(np.float32)


def encoded(waveform: np.ndarray, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, format=kind)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def corpus(write_tiny_corpus: Callable[..., Path]) -> Path:
    """A labelled corpus of 6 training clips, two of them in fold 5, and 3 of the evaluation."""
    clips = {split: [(("Speech",), f"{split}-{k}") for k in range(3)] for split in build.SPLITS}
    folder = write_tiny_corpus(clips)
    rows = table(folder / "clips.csv")
    for row in rows:
        row["fold"] = "5" if row["package"] in ("balanced_train-1", "unbalanced_train-2") else "1"
    write_table(folder / "clips.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    return folder


@pytest.fixture
def prepare(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Packages one and two, and one that cannot be fetched; returns a function that adds them to the corpus, with clips of 1 s."""
    rows = table(corpus / "clips.csv")
    named = {name: clips[i] for clips in (Mp3Dataset(path, num_classes=527, clip_seconds=None) for path in corpus.glob("*.hdf"))
             for i, name in enumerate(clips.names)}  # fmt: skip

    def clip_of(package: str) -> np.ndarray:
        return 0.5 * named[next(row["name"] for row in rows if row["package"] == package)].waveform.numpy()

    files = {
        "one": {
            "usr/share/one/long.wav": encoded(np.concatenate([burst(k, 1.0) for k in range(7)])),
            **{f"usr/share/one/short/{k}.ogg": encoded(burst(10 + k, 0.4), "OGG") for k in range(3)},
            "usr/share/one/z/again.ogg": b"",
            "usr/share/one/broken.wav": b"RIFF and no more",
            "usr/share/one/tick.wav": encoded(burst(20, 0.01)),
            "usr/share/one/evaluated.flac": encoded(clip_of("eval-1"), "FLAC"),
            "usr/share/one/validated.wav": encoded(clip_of("unbalanced_train-2")),
            "usr/share/one/trained.wav": encoded(clip_of("balanced_train-0")),
            "usr/share/one/data.pk3": zipped({"in/zip.wav": encoded(burst(30)), "readme.txt": b"no sound"}),
            "usr/share/one/data.tar.gz": tarred({"in/tar.wav": encoded(burst(31))}),
            "usr/share/one/damaged.zip": b"PK but no more",
            "usr/share/doc/one/copyright": b"Files: *\nLicense: CC0-1.0\n\nFiles: a\nLicense: GPL-2+\n",
        },
        "two": {"usr/share/two/taken.wav": encoded(burst(30)), "usr/share/two/own.wav": encoded(burst(40, 0.7))},
    }
    files["one"]["usr/share/one/z/again.ogg"] = files["one"]["usr/share/one/short/0.ogg"]

    def fetch(name: str, debs_dir: Path) -> Path:
        if name == "lost":
            raise PackageError("apt-get failed with exit code 100: E: Unable to locate package lost")
        return debs_dir / f"{name}_1.deb"

    def content(deb: Path) -> dict[str, bytes]:
        return files[deb.name.removesuffix("_1.deb")]

    monkeypatch.setattr(debian, "fetch_deb", fetch)
    monkeypatch.setattr(debian, "read_files", lambda deb, is_needed: {p: c for p, c in content(deb).items() if is_needed(p)})
    monkeypatch.setattr(debian, "checksums", lambda deb: {path: str(hash(data)) for path, data in content(deb).items()})
    monkeypatch.setattr(debian, "package_version", lambda deb: "1")
    monkeypatch.setattr(unlabelled, "package_names", lambda: ["one", "lost", "two"])
    monkeypatch.setattr(unlabelled, "CLIP", RATE)
    monkeypatch.setattr(unlabelled, "PIECES", 3)
    monkeypatch.setattr(conversion, "ProcessPoolExecutor", lambda num_workers, **_: ThreadPoolExecutor(num_workers))
    command = ["--unlabelled", "--output_dir", str(corpus), "--cache_dir", str(corpus / "cache")]
    return lambda *options: build.main([*command, *options])


def test_recordings_without_labels_join_the_corpus(
    prepare: Callable[..., int], corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    assert prepare() == 1
    output = capsys.readouterr()
    assert "left out lost: apt-get failed" in output.err and "clips" in output.out
    rows = table(corpus / "unlabelled.csv")
    clips = Mp3Dataset(corpus / "unlabelled_segments_mp3.hdf", num_classes=527)
    assert clips.names == [row["name"] for row in rows] and not clips.targets().any()
    assert [row["package"] for row in rows[:4]] == [
        f"{split}-{k}" for split, k in zip(("balanced_train",) * 2 + ("unbalanced_train",) * 2, (0, 2, 0, 1), strict=True)
    ]
    sources = {(row["package"], row["source"]): float(row["seconds"]) for row in rows[4:]}
    assert sources == {
        ("one", "usr/share/one/data.pk3/in/zip.wav"): pytest.approx(0.5, abs=0.05),
        ("one", "usr/share/one/data.tar.gz/in/tar.wav"): pytest.approx(0.5, abs=0.05),
        ("one", "usr/share/one/long.wav"): 1.0,  # three pieces, of which the last one counts here
        ("one", "usr/share/one/short/0.ogg (+1)"): pytest.approx(0.8, abs=0.05),
        ("one", "usr/share/one/short/2.ogg"): pytest.approx(0.4, abs=0.05),
        ("two", "usr/share/two/own.wav"): pytest.approx(0.7, abs=0.05),
        ("two", "usr/share/two/taken.wav"): pytest.approx(0.5, abs=0.05),  # archives are not compared across packages
    }
    assert [row["source"] for row in rows].count("usr/share/one/long.wav") == 3
    assert {row["licence"] for row in rows[4:]} == {"CC0-1.0; GPL-2+", "see its copyright file"}
    assert (corpus / "copyright" / "one.txt").read_bytes().startswith(b"Files")
    reasons = {row["source"].rpartition("/")[2]: row["reason"] for row in table(corpus / "unlabelled_rejected.tsv", "\t")}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "again.ogg": "same bytes as another file of the package",
        "broken.wav": "unreadable",
        "tick.wav": "too short",
        "evaluated.flac": "near copy of a recording held out",
        "validated.wav": "near copy of a recording held out",
        "trained.wav": "near copy of a labelled clip",
    }


def test_validation_has_the_labels_of_fold_5(prepare: Callable[..., int], corpus: Path) -> None:
    prepare()
    validation = Mp3Dataset(corpus / "validation_segments_mp3.hdf", num_classes=527)
    rows = {row["name"]: row for row in table(corpus / "clips.csv")}
    assert {rows[name]["package"] for name in validation.names} == {"balanced_train-1", "unbalanced_train-2"}
    assert validation.targets().any(1).all()


def test_files_that_an_earlier_package_has_are_left_out(
    prepare: Callable[..., int], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "checksums", lambda deb: {"usr/share/two/taken.wav": "a", "usr/share/one/long.wav": "a"})
    prepare()
    sources = {row["source"] for row in table(corpus / "unlabelled.csv")}
    assert "usr/share/one/long.wav" in sources and "usr/share/two/own.wav" in sources
    assert "usr/share/two/taken.wav" not in sources


def test_hours_are_limited(prepare: Callable[..., int], corpus: Path) -> None:
    prepare("--max_hours", "0.0005")
    assert {row["package"] for row in table(corpus / "unlabelled.csv")[4:]} == {"one"}


def test_an_interrupted_build_reads_only_what_is_left(
    prepare: Callable[..., int], corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    read, harvest, is_interrupted = [], unlabelled.harvest, True

    def watched(name: str, *rest: object) -> unlabelled.Harvest:
        if is_interrupted and name == "two":
            raise KeyboardInterrupt
        read.append(name)
        return harvest(name, *rest)

    monkeypatch.setattr(unlabelled, "harvest", watched)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    assert read == ["one"] and not (corpus / "unlabelled_segments_mp3.hdf").exists()
    is_interrupted = False
    prepare()
    assert read == ["one", "two"]
    rows = table(corpus / "unlabelled.csv")
    assert [row["name"] for row in rows] == Mp3Dataset(corpus / "unlabelled_segments_mp3.hdf", num_classes=527).names
    assert {row["package"] for row in rows[4:]} == {"one", "two"}
    assert len(table(corpus / "unlabelled_rejected.tsv", "\t")) == 6

    capsys.readouterr()
    assert prepare() == 0 and read == ["one", "two"]  # it is finished
    assert f"{len(rows)} clips" in capsys.readouterr().out


def test_a_build_whose_clips_are_lost_starts_anew(prepare: Callable[..., int], corpus: Path) -> None:
    prepare()
    first = (corpus / "unlabelled.csv").read_bytes()
    (corpus / "unlabelled_segments_mp3.hdf").unlink()
    prepare()
    assert (corpus / "unlabelled.csv").read_bytes() == first
    assert len(Mp3Dataset(corpus / "unlabelled_segments_mp3.hdf", num_classes=527)) == len(table(corpus / "unlabelled.csv"))


def test_copies_of_recordings_are_found(
    prepare: Callable[..., int], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prepare()
    folder = tmp_path / "evaluated"
    folder.mkdir()
    soundfile.write(folder / "other.wav", burst(50), RATE)
    command = ["--corpus_dir", str(corpus), "--audio_dir", str(folder)]
    assert copies.main(command) == 0
    soundfile.write(folder / "copy.wav", 0.5 * burst(40, 0.7), RATE)
    capsys.readouterr()
    assert copies.main(command) == 1
    most_similar = capsys.readouterr().out.splitlines()[0]
    assert "copy.wav" in most_similar and "two: usr/share/two/own.wav" in most_similar


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("CC0-1.0; MIT", "permissive"),
        ("Expat; CC-BY-SA-3.0", "share-alike"),
        ("CC-BY-SA-3.0; GPL-2+", "copyleft"),
        ("see its copyright file", "not stated"),
        ("Khronos", "other"),
    ],
)
def test_the_strictest_licence_counts(names: str, kind: str) -> None:
    assert licence_kind(names) == kind


def test_hours_are_summed_by_kind_of_licence() -> None:
    rows = [{"licence": names, "seconds": seconds} for names, seconds in (("MIT", "1800"), ("CC0", "5400"), ("GPL-2", "360"))]
    found = {line.split()[0]: line.split()[1:4] for line in hours_by_kind(rows).splitlines()[1:]}
    assert found["permissive"] == ["2", "clips", "2.00"] and found["copyleft"] == ["1", "clips", "0.10"]
    assert found["share-alike"] == ["0", "clips", "0.00"]


def test_mistakes_are_one_line(
    prepare: Callable[..., int], corpus: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    assert "without --unlabelled" in failing_message(build.main, "--unlabelled", "--output_dir", tmp_path)
    (corpus / "unlabelled_segments_mp3.hdf").write_bytes(b"precious")
    assert "remove it" in failing_message(build.main, "--unlabelled", "--output_dir", corpus)


def test_no_evaluation_package_is_among_the_sources() -> None:
    names = unlabelled.package_names()
    assert len(names) > 400 and "hedgewars-data" in names
    assert not {package.name for package in tables.packages() if package.split == "eval"} & set(names)
