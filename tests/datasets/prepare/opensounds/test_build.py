"""Whole builds of the open corpus from made-up packages, offline, and a real package file."""

import csv
import io
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from datasets.audio import encode_mp3
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.labels import audioset_labels
from datasets.prepare import conversion
from datasets.prepare.opensounds import audio_files, build, debian, signals, tables
from datasets.prepare.opensounds.debian import PackageError
from datasets.prepare.opensounds.sounds import SAMPLE_RATE as RATE
from datasets.prepare.opensounds.tables import Package, Rule


def package(name: str, split: str = "train", reader: str = "files", licence: str = "CC0", amount: int = 0) -> Package:
    return Package(name, split, licence, "permissive", reader, segments=2, amount=amount)


def burst(seed: int, seconds: float = 0.5) -> np.ndarray:
    """A decaying sound with a spectrum of its own: a random chord in a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * t) for frequency in rng.uniform(200, 8000, 5))
    return (0.1 * (chord + 0.1 * rng.standard_normal(len(t))) * np.exp(-2 * t / seconds)).astype(np.float32)


def encoded(waveform: np.ndarray, kind: str = "WAV", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=kind)
    return file.getvalue()


PACKAGES = (
    package("farm", licence="CC-BY-3.0"),
    package("signals-train", reader="signals", amount=1),
    package("game", "eval", "zip"),
    package("borrower", "eval"),
    package("lost", "eval"),
)
RULES = {
    "farm": (
        Rule("unused", (), "", 0, 0),
        Rule("cow", ("Moo",), "", 0, 0),
        Rule("walk", ("Walk, footsteps",), "steps", 2, 0),
        Rule("prompt", ("Speech",), "speech", 0, 3),
        Rule("nothing", ("Quack",), "", 0, 0),
    ),
    "game": (Rule("boom", ("Explosion",), "", 0, 0),),
    "borrower": (Rule("wav|ogg", ("Moo",), "", 0, 0),),
}
BORROWED = encode_mp3(0.3 * burst(2), RATE)


def pk3() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../boom.wav", encoded(burst(300)))
        archive.writestr("sound/boom2.wav", encoded(burst(301)))
        archive.writestr("boom.txt", "no sound")
    return file.getvalue()


FILES = {
    "farm": {
        **{f"usr/share/animals/cow{k}.wav": encoded(burst(k)) for k in range(4)},
        "usr/share/animals/unused cow.wav": encoded(burst(99)),
        **{f"usr/share/animals/walk{k}.wav": encoded(burst(100 + k, 0.2)) for k in range(4)},
        **{f"usr/share/animals/prompt{k}.flac": encoded(burst(200 + k, 0.7), "FLAC", 16000) for k in range(5)},
        "usr/share/animals/broken cow.wav": b"RIFF and no more",
        "usr/share/doc/farm/copyright": b"CC-BY-3.0, by the cows",
    },
    "game": {"usr/share/game/data.pk3": pk3()},
    "borrower": {
        "a/stolen.wav": BORROWED,
        "a/same.wav": encoded(burst(3)),
        "a/own.ogg": encoded(burst(400), "OGG"),
        "a/own.mp3": b"",
    },
}


def arguments(folder, *options) -> list[str]:
    return ["--output_dir", str(folder), "--cache_dir", str(folder.parent / "cache"), *options]


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Three packages with files, one with signals and one that cannot be fetched; returns a function that builds."""

    def fetch(name, debs_dir):
        if name == "lost":
            raise PackageError("apt-get failed with exit code 100: E: Unable to locate package lost")
        return debs_dir / f"{name}_1.deb"

    def read(package, deb):
        files = FILES[package.name]
        return {path: content for path, content in files.items() if debian.is_needed(path, package)}

    for module in (build, tables):
        monkeypatch.setattr(module, "packages", lambda: PACKAGES)
    for module in (audio_files, tables):
        monkeypatch.setattr(module, "rules", RULES.__getitem__)
    monkeypatch.setattr(debian, "fetch_deb", fetch)
    monkeypatch.setattr(debian, "read_deb", read)
    monkeypatch.setattr(debian, "version_of", lambda package, deb: "1")
    monkeypatch.setattr(build, "missing_tools", lambda chosen, debs_dir: [])
    # threads see what is patched here
    monkeypatch.setattr(conversion, "ProcessPoolExecutor", lambda num_workers, **_: ThreadPoolExecutor(num_workers))
    monkeypatch.setattr(signals, "SIGNALS", {"sine": signals.SIGNALS["sine"]})
    return lambda folder="corpus", *options: build.main(arguments(tmp_path / folder, *options))


def table(path, delimiter=",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_build_is_an_audioset_folder(made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "BALANCED_RECORDINGS", 2)
    assert made_up() == 1  # one package is lost, all others are there
    out, err = capsys.readouterr()
    assert "left out lost: apt-get failed with exit code 100: E: Unable to locate" in err
    assert "balanced_train" in out and "labels have" in out
    corpus = tmp_path / "corpus"
    rows = {row["name"]: row for row in table(corpus / "clips.csv")}
    recordings, counts = {}, {}
    for split in build.SPLITS:
        clips = Mp3Dataset(corpus / f"{split}_segments_mp3.hdf", num_classes=527)
        recordings[split] = {rows[name]["recording"] for name in clips.names}
        counts[split] = len(clips)
        for k in range(len(clips)):
            clip = clips[k]
            row = rows[clip.name]
            present = {audioset_labels()[i] for i in clip.target.nonzero().flatten()}
            assert present == set(row["labels_with_ancestors"].split(";")) >= set(row["labels"].split(";"))
            assert row["split"] == split and clip.waveform.isfinite().all() and clip.waveform.abs().max() > 0.01
    assert len(rows) == sum(counts.values()) and all(counts.values())
    assert not recordings["balanced_train"] & recordings["unbalanced_train"]
    assert not (recordings["balanced_train"] | recordings["unbalanced_train"]) & recordings["eval"]
    assert {row["source"] for row in rows.values() if row["split"] == "eval"} == {
        "../../boom.wav",
        "sound/boom2.wav",
        "a/own.ogg",
    }
    assert (corpus / "copyright" / "farm.txt").read_bytes() == b"CC-BY-3.0, by the cows"
    assert not (tmp_path / "boom.wav").exists()
    assert {path.name for path in corpus.iterdir()} == {
        "clips.csv",
        "rejected.tsv",
        "copyright",
        *(f"{split}_segments_mp3.hdf" for split in build.SPLITS),
    }


def test_build_joins_rejects_and_drops_copies(made_up, tmp_path):
    made_up()
    rows = table(tmp_path / "corpus" / "clips.csv")
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("joined", "recording", "generated")}
    steps = [row for row in kinds["joined"] if row["labels"] == "Walk, footsteps"]
    assert len(steps) == 2 and all(3 < float(row["seconds"]) <= 4 and "(+1)" in row["source"] for row in steps)
    (speech,) = (row for row in kinds["joined"] if row["labels"] == "Speech")
    assert "(+2)" in speech["source"] and speech["original_rate"] == "16000"  # three of five: the cap of the rule
    assert [row["source"] for row in kinds["generated"]] == ["sine 0"]
    assert not [row for row in rows if "unused" in row["source"]]
    rejected = table(tmp_path / "corpus" / "rejected.tsv", "\t")
    reasons = {(row["package"], row["source"]): row["reason"] for row in rejected}
    assert reasons["borrower", "a/stolen.wav"] == "copy of farm: usr/share/animals/cow2.wav"
    assert reasons["borrower", "a/same.wav"] == "same samples as another clip"
    assert reasons["farm", "nothing"] == "no file matches this rule"
    assert reasons["farm", "usr/share/animals/broken cow.wav"].startswith("unreadable")
    assert len(reasons) == 4


def test_build_is_repeatable(made_up, tmp_path):
    made_up("one", "--num_workers", "1")
    made_up("two", "--num_workers", "3")
    assert (tmp_path / "one" / "clips.csv").read_bytes() == (tmp_path / "two" / "clips.csv").read_bytes()
    for split in build.SPLITS:
        files = [tmp_path / name / f"{split}_segments_mp3.hdf" for name in ("one", "two")]
        one, two = (Mp3Dataset(file, num_classes=527) for file in files)
        assert one.names == two.names
        for k in range(len(one)):
            np.testing.assert_array_equal(one[k].waveform, two[k].waveform)


def test_subset_of_packages(made_up, tmp_path):
    assert made_up("corpus", "--packages", "farm|game") == 0
    assert {row["package"] for row in table(tmp_path / "corpus" / "clips.csv")} == {"farm", "game"}


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--packages", "nowhere"], "farm, signals-train"), (["--packages", "("], "missing ), unterminated")],
)
def test_user_mistakes_are_one_line(made_up, tmp_path, failing_message, options, message):
    assert message in failing_message(build.main, *arguments(tmp_path, *options))


def test_a_corpus_is_never_overwritten(made_up, tmp_path, failing_message):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "eval_segments_mp3.hdf").write_bytes(b"precious")
    assert "exists; remove it" in failing_message(build.main, *arguments(tmp_path / "corpus"))
    assert (tmp_path / "corpus" / "eval_segments_mp3.hdf").read_bytes() == b"precious"


def test_no_available_package_is_an_error(made_up, tmp_path, failing_message):
    message = failing_message(build.main, *arguments(tmp_path / "corpus", "--packages", "lost"))
    assert "no clips; lost: apt-get failed" in message


def test_missing_programs_are_named(monkeypatch, tmp_path, failing_message):
    monkeypatch.setattr(build.shutil, "which", lambda tool: None)
    message = failing_message(build.main, "--output_dir", tmp_path)
    assert "not installed: apt-get, dpkg-deb, espeak-ng, flite, fluidsynth; apt-get install" in message


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_real_package_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "rules", RULES.__getitem__)
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: farm\nVersion: 1:2.3-4\nArchitecture: all\nMaintainer: a <a@b>\nDescription: cows\n"
    )
    for path, content in FILES["farm"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "usr/share/animals/link to cow.wav").symlink_to("cow1.wav")
    debs = tmp_path / "debs"
    debs.mkdir()
    subprocess.run(["dpkg-deb", "--build", root, debs / "bare.deb"], check=True, capture_output=True)
    assert debian.checksums(debs / "bare.deb") == {}
    (root / "DEBIAN" / "md5sums").write_text("0123  usr/share/animals/cow 1.wav\n4567  usr/share/animals/cow2.wav\n")
    subprocess.run(["dpkg-deb", "--build", root, debs / "farm_2.3_all.deb"], check=True, capture_output=True)

    deb = debian.fetch_deb("farm", debs)  # cached: needs no apt-get
    farm = package("farm")
    assert debian.version_of(farm, deb) == "1:2.3-4"
    expected = {path: content for path, content in FILES["farm"].items() if "unused" not in path}
    assert debian.read_deb(farm, deb) == expected
    assert debian.checksums(deb) == {"usr/share/animals/cow 1.wav": "0123", "usr/share/animals/cow2.wav": "4567"}

    deb.write_bytes(deb.read_bytes()[:-2000])
    with pytest.raises(PackageError, match="remove it and run again"):
        debian.read_deb(farm, deb)
