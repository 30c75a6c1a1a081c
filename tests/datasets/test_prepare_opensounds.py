"""datasets.prepare.opensounds.build: its tables, its computed signals, and a whole build from made-up packages, offline."""

import csv
import io
import re
import shutil
import struct
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from datasets.audio import decode, encode_mp3
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.labels import audioset_labels
from datasets.prepare.opensounds import build as opensounds
from datasets.prepare.opensounds import sources as opensounds_sources
from datasets.prepare.opensounds import tables as opensounds_tables
from datasets.prepare.opensounds.sources import SIGNALS, Note, PackageError, Sound
from datasets.prepare.opensounds.tables import (
    Package,
    Rule,
    packages,
    parents,
    presets,
    rules,
    sentences,
    with_ancestors,
)

RATE = opensounds_sources.SAMPLE_RATE


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


# Tables


def test_every_package_is_in_one_split_and_can_be_read():
    assert len({package.name for package in packages()}) == len(packages())
    assert {package.split for package in packages()} == {"train", "eval"}
    assert {package.licence_class for package in packages()} == {"permissive", "share-alike", "copyleft"}
    assert {package.reader for package in packages()} <= {"files", "zip", "soundfont", "espeak", "flite", "signals"}
    splits = [package.split for package in packages()]
    assert splits == sorted(splits, reverse=True), "training comes first, so that evaluation gives way to it"


def test_rules_compile_and_belong_to_packages_with_files():
    with_files = [package.name for package in packages() if package.reader in ("files", "zip")]
    rows = opensounds_tables._rows("opensounds/rules.tsv")
    assert {row["package"] for row in rows} == set(with_files)
    assert sum(len(rules(name)) for name in with_files) == len(rows)  # parsing them checks that the labels exist
    for name in with_files:
        assert len({rule.pattern for rule in rules(name)}) == len(rules(name))
        for rule in rules(name):
            re.compile(rule.pattern)
            assert rule.combine in ("", "speech", "steps")


def test_presets_are_within_midi():
    assert len({(p.bank, p.program, p.low if p.style == "drum" else 0) for p in presets()}) == len(presets())
    for preset in presets():
        assert 0 <= preset.low <= preset.high <= 127 and preset.labels
        assert preset.style in ("melodic", "polyphonic", "effect", "drum")
        assert (preset.program is None) == (preset.style == "drum") == (preset.bank == opensounds_sources.DRUM_BANK)


def test_ontology_has_only_labels_and_no_cycles():
    assert {*parents(), *(parent for found in parents().values() for parent in found)} <= set(audioset_labels())
    for label in parents():
        assert label not in with_ancestors(parents()[label])


@pytest.mark.parametrize(
    ("label", "ancestors"),
    [  # by hand, from the ontology as published
        ("Moo", {"Cattle, bovinae", "Livestock, farm animals, working animals", "Animal"}),
        ("Hi-hat", {"Cymbal", "Percussion", "Musical instrument", "Music"}),
        ("Police car (siren)", {"Siren", "Alarm", "Emergency vehicle", "Motor vehicle (road)", "Vehicle"}),
        ("Speech", set()),
    ],
)
def test_ancestors(label, ancestors):
    assert with_ancestors((label,))[0] == label
    assert set(with_ancestors((label,))) == {label, *ancestors}
    assert len(with_ancestors((label, *ancestors))) == 1 + len(ancestors)


def test_unknown_labels_are_named():
    with pytest.raises(ValueError, match="Mooo"):
        opensounds_tables.parse_labels("Moo;Mooo")


def test_there_is_something_to_say():
    assert len(sentences()) >= 5 and all(sentences())


# Sounds that are made here


def signal(name: str, seconds: float = 3.0) -> np.ndarray:
    _, make = SIGNALS[name]
    return make(np.random.default_rng(5), np.arange(int(seconds * RATE)) / RATE)


def strongest(waveform: np.ndarray, count: int) -> list[float]:
    """The `count` strongest separate frequencies in Hz, by a zero-padded spectrum."""
    size = 1 << 18
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size)) ** 2
    found = []
    for _ in range(count):
        peak = int(power.argmax())
        found.append(peak * RATE / size)
        reach = 2 * size // len(waveform)  # main lobe of the window
        power[max(0, peak - reach) : peak + reach + 1] = 0
    return sorted(found)


def test_dialing_is_dtmf():
    waveform = signal("dialing")
    loud = np.convolve(np.abs(waveform), np.ones(160) / 160, "same") > 0.02 * np.abs(waveform).max()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    keys = [waveform[a + 200 : b - 200] for a, b in edges.reshape(-1, 2)]
    assert 5 <= len(keys) <= 11
    for key in keys:
        row, column = strongest(key, 2)
        assert min(abs(row - exact) for exact in (697, 770, 852, 941)) < 10
        assert min(abs(column - exact) for exact in (1209, 1336, 1477)) < 10


def test_sine_is_one_line():
    waveform = signal("sine")
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    (frequency,) = strongest(waveform, 1)
    line = round(frequency * len(waveform) / RATE)
    assert power[line - 3 : line + 4].sum() > 0.9999 * power.sum()


@pytest.mark.parametrize(("name", "slope"), [("white noise", 0.0), ("pink noise", -3.0)])
def test_noise_slope(name, slope):
    waveform = signal(name)
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    octaves = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in 125 * 2.0 ** np.arange(6)]
    assert np.polyfit(range(6), 10 * np.log10(octaves), 1)[0] == pytest.approx(slope, abs=0.3)  # dB per octave


def test_signals_are_in_range_repeatable_and_differ_between_splits():
    def made(split: str) -> list[Sound]:
        return list(opensounds_sources.signal_sounds(package("p", split, "signals", amount=1)))

    assert [sound.source for sound in made("train")] == [f"{name} 0" for name in SIGNALS]
    for train, evaluation, repeated in zip(made("train"), made("eval"), made("train"), strict=True):
        assert np.isfinite(train.waveform).all() and 0.01 < np.abs(train.waveform).max() <= 10 ** (-6 / 20)
        assert train.labels == evaluation.labels and set(train.labels) <= set(audioset_labels())
        assert 3 * RATE <= len(train.waveform) <= 8 * RATE
        assert len(train.waveform) != len(evaluation.waveform)
        np.testing.assert_array_equal(train.waveform, repeated.waveform)


def test_midi_file_ends_a_note_before_the_next_of_the_same_tick():
    notes = [Note(0.0, 0.5, 60, 100), Note(0.5, 0.5, 60, 90)]
    score = opensounds_sources.midi_file(notes, bank=8, program=4, channel=1)
    assert score[:14] == b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
    track = score[22:]
    assert struct.unpack(">I", score[18:22])[0] == len(track)
    half = bytes([0x83, 0x60])  # 480 ticks as a variable-length quantity: 3 * 128 + 96
    assert track == (
        bytes([0, 0xB1, 0, 8, 0, 0xC1, 4])
        + (bytes([0, 0x91, 60, 100]) + half + bytes([0x81, 60, 0]))
        + (bytes([0, 0x91, 60, 90]) + half + bytes([0x81, 60, 0]))
        + (bytes([0x87, 0x40]) + b"\xff\x2f\x00")
    )


def test_font_presets():
    records = [(b"Piano", 0, 0), (b"Kit", 8, 128), (b"EOP", 0, 0)]
    content = b"".join(struct.pack("<20sHH14s", name, program, bank, b"") for name, program, bank in records)
    font = b"RIFF....sfbkLIST....pdtaphdr" + struct.pack("<I", len(content)) + content + b"pbag"
    assert opensounds_sources.font_presets(font) == {(0, 0), (128, 8)}


def test_phrases_fit_their_slots():
    for preset in presets():
        if preset.style == "drum":
            continue
        for phrase in opensounds_sources._instrument_phrases(preset, package("font", amount=8)):
            assert phrase.notes
            for note in phrase.notes:
                assert 0 < note.seconds and note.start + note.seconds <= 3.0
                assert preset.low <= note.pitch <= preset.high and 0 < note.velocity < 128


# From sounds to clips


def clips_of(waveform: np.ndarray, source: str = "a.wav", **of_package: str) -> tuple[list, list]:
    rejected = []
    sound = Sound(source, ("Moo",), waveform.astype(np.float32), RATE, "recording")
    made = opensounds.clips_of(sound, package("p", **of_package), "1", lambda *line: rejected.append(line))
    return list(made), rejected


def test_clip_names_look_like_those_of_audioset_and_never_change():
    name = opensounds.clip_name("scratch", "usr/share/scratch/Cat.mp3", 0)
    assert name == "YTo8KTzenot_.mp3"
    assert re.fullmatch(r"Y[\w-]{11}\.mp3", name)


def test_long_recordings_become_segments(monkeypatch):
    assert opensounds.CLIP_SECONDS == 10.0  # as in AudioSet
    monkeypatch.setattr(opensounds, "CLIP_SECONDS", 1.0)
    clips, _ = clips_of(np.concatenate([burst(seed, 0.7) for seed in range(5)]))
    assert [clip.seconds for clip in clips] == [1.0, 1.0]  # the package allows two
    assert len({clip.name for clip in clips}) == 2 and len({clip.recording for clip in clips}) == 1


def test_silence_is_trimmed_levels_are_set_and_useless_sounds_rejected():
    silence = np.zeros(RATE, np.float32)
    ((clip,), _) = clips_of(np.concatenate([silence, 0.05 * burst(1), silence]))
    waveform, rate = decode(clip.mp3)
    assert rate == RATE and 0.4 < clip.seconds < 0.6
    assert len(waveform) == round(clip.seconds * RATE)
    assert 20 * np.log10(np.sqrt((waveform**2).mean())) == pytest.approx(-30, abs=0.5)
    ((loud,), _) = clips_of(20 * burst(2))
    assert np.abs(decode(loud.mp3)[0]).max() < 1.1
    assert clips_of(silence)[1] == [("a.wav", "segment 0 is nearly silent")]
    assert clips_of(burst(3)[:100])[1] == [("a.wav", "too short")]


def test_fingerprint_knows_copies():
    original = opensounds.fingerprint(burst(1))
    louder = opensounds.fingerprint(0.2 * burst(1))
    longer = opensounds.fingerprint(np.concatenate([np.zeros(777, np.float32), burst(1), 0.01 * burst(5)]))
    recoded = opensounds.fingerprint(decode(encode_mp3(burst(1), RATE))[0])
    for copy in (louder, longer, recoded):
        assert original @ copy > opensounds.DUPLICATE_SIMILARITY
    assert max(original @ opensounds.fingerprint(burst(seed)) for seed in range(2, 30)) < 0.9


def test_takes_share_a_fold():
    folds = {opensounds.fold_of(f"kit/Snare-{take}.wav") for take in ("Soft", "Hard", "1", "12")}
    assert len(folds) == 1 and folds <= {1, 2, 3, 4, 5}
    assert len({opensounds.fold_of(f"kit/{chr(97 + i)}.wav") for i in range(26)}) == 5


# Whole builds from made-up packages

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
        **{f"usr/share/farm/cow{k}.wav": encoded(burst(k)) for k in range(4)},
        "usr/share/farm/unused cow.wav": encoded(burst(99)),
        **{f"usr/share/farm/walk{k}.wav": encoded(burst(100 + k, 0.2)) for k in range(4)},
        **{f"usr/share/farm/prompt{k}.flac": encoded(burst(200 + k, 0.7), "FLAC", 16000) for k in range(5)},
        "usr/share/farm/broken cow.wav": b"RIFF and no more",
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


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Three packages with files, one with signals and one that cannot be had; returns a function that builds."""

    def fetch(name, debs_dir):
        if name == "lost":
            raise PackageError("apt-get failed with exit code 100: E: Unable to locate package lost")
        return debs_dir / f"{name}_1.deb"

    def read(package, deb):
        files = FILES[package.name]
        return {path: content for path, content in files.items() if opensounds_sources.is_needed(path, package)}

    for module in (opensounds, opensounds_tables):
        monkeypatch.setattr(module, "packages", lambda: PACKAGES)
    for module in (opensounds_sources, opensounds_tables):
        monkeypatch.setattr(module, "rules", RULES.__getitem__)
    monkeypatch.setattr(opensounds_sources, "fetch_deb", fetch)
    monkeypatch.setattr(opensounds_sources, "read_deb", read)
    monkeypatch.setattr(opensounds_sources, "version_of", lambda package, deb: "1")
    monkeypatch.setattr(opensounds, "missing_tools", lambda chosen, debs_dir: [])
    # threads see what is patched here
    monkeypatch.setattr(opensounds, "ProcessPoolExecutor", lambda num_workers, **_: ThreadPoolExecutor(num_workers))
    monkeypatch.setattr(opensounds_sources, "SIGNALS", {"sine": SIGNALS["sine"]})

    def build(folder: str = "corpus", *options: str) -> int:
        folders = ["--output_dir", str(tmp_path / folder), "--cache_dir", str(tmp_path / "cache")]
        return opensounds.main([*folders, *options])

    return build


def table(path, delimiter=",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_build_is_an_audioset_folder(made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(opensounds, "BALANCED_RECORDINGS", 2)
    assert made_up() == 1  # one package is lost, all others are there
    out, err = capsys.readouterr()
    assert "opensounds: left out lost: apt-get failed with exit code 100: E: Unable to locate" in err
    assert "balanced_train" in out and "labels have" in out
    corpus = tmp_path / "corpus"
    rows = {row["name"]: row for row in table(corpus / "clips.csv")}
    recordings, counts = {}, {}
    for split in opensounds.SPLITS:
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
        *(f"{split}_segments_mp3.hdf" for split in opensounds.SPLITS),
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
    assert reasons["borrower", "a/stolen.wav"] == "copy of farm: usr/share/farm/cow2.wav"
    assert reasons["borrower", "a/same.wav"] == "same samples as another clip"
    assert reasons["farm", "nothing"] == "no file matches this rule"
    assert reasons["farm", "usr/share/farm/broken cow.wav"].startswith("unreadable")
    assert len(reasons) == 4


def test_build_is_repeatable(made_up, tmp_path):
    made_up("one", "--num_workers", "1")
    made_up("two", "--num_workers", "3")
    assert (tmp_path / "one" / "clips.csv").read_bytes() == (tmp_path / "two" / "clips.csv").read_bytes()
    for split in opensounds.SPLITS:
        files = [tmp_path / name / f"{split}_segments_mp3.hdf" for name in ("one", "two")]
        one, two = (Mp3Dataset(file, num_classes=527) for file in files)
        assert one.names == two.names
        for k in range(len(one)):
            np.testing.assert_array_equal(one[k].waveform, two[k].waveform)


def test_subset_of_packages(made_up, tmp_path):
    assert made_up("corpus", "--packages", "farm|game") == 0
    assert {row["package"] for row in table(tmp_path / "corpus" / "clips.csv")} == {"farm", "game"}


def test_an_interrupted_build_leaves_nothing_that_looks_complete(made_up, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(opensounds.os, "replace", interrupt)
    assert made_up() == 130
    assert "interrupted" in capsys.readouterr().err
    assert not list((tmp_path / "corpus").rglob("*.hdf"))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--packages", "nowhere"], "farm, signals-train"), (["--packages", "("], "missing ), unterminated")],
)
def test_user_mistakes_are_one_line(made_up, capsys, options, message):
    assert made_up("corpus", *options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_corpus_is_never_overwritten(made_up, tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "eval_segments_mp3.hdf").write_bytes(b"precious")
    assert made_up() == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert (tmp_path / "corpus" / "eval_segments_mp3.hdf").read_bytes() == b"precious"


def test_nothing_to_be_had_is_an_error(made_up, capsys):
    assert made_up("corpus", "--packages", "lost") == 2
    assert "no clips; lost: apt-get failed" in capsys.readouterr().err


def test_missing_programs_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(opensounds.shutil, "which", lambda tool: None)
    assert opensounds.main(["--output_dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "not installed: apt-get, dpkg-deb, espeak-ng, flite, fluidsynth; apt-get install" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_real_package_file(monkeypatch, tmp_path):
    monkeypatch.setattr(opensounds_tables, "rules", RULES.__getitem__)
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: farm\nVersion: 1:2.3-4\nArchitecture: all\nMaintainer: a <a@b>\nDescription: cows\n"
    )
    for path, content in FILES["farm"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "usr/share/farm/link to cow.wav").symlink_to("cow1.wav")
    debs = tmp_path / "debs"
    debs.mkdir()
    subprocess.run(["dpkg-deb", "--build", root, debs / "farm_2.3_all.deb"], check=True, capture_output=True)

    deb = opensounds_sources.fetch_deb("farm", debs)  # cached: needs no apt-get
    farm = package("farm")
    assert opensounds_sources.version_of(farm, deb) == "1:2.3-4"
    expected = {path: content for path, content in FILES["farm"].items() if "unused" not in path}
    assert opensounds_sources.read_deb(farm, deb) == expected

    deb.write_bytes(deb.read_bytes()[:-2000])
    with pytest.raises(PackageError, match="remove it and run again"):
        opensounds_sources.read_deb(farm, deb)
