"""datasets.prepare.hear_tasks on a tiny corpus of pieces of the bundled recordings."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from datasets import audio, hear
from datasets.hdf5_mp3 import Mp3Writer
from datasets.prepare import hear_tasks
from datasets.strong_labels import LabelledEvent

FAMILIES = {
    "Bowed string instrument": "Cello",
    "Brass instrument": "Trumpet",
    "Keyboard (musical)": "Piano",
    "Mallet percussion": "Vibraphone",
    "Plucked string instrument": "Banjo",
    "Wind instrument, woodwind instrument": "Flute",
}
STAMPS = ("tuxpaint-stamps-default", "stamps/{}_desc_%s.ogg")
SPEAKERS = {
    "Male speech, man speaking": [(STAMPS[0], STAMPS[1] % language) for language in ("fr", "ru", "da")]
    + [("fillets-ng-data-nl", "sound/a{}/nl/ka-v-{}.ogg")],
    "Female speech, woman speaking": [(STAMPS[0], STAMPS[1] % language) for language in ("es", "el")]
    + [("fillets-ng-data-nl", "sound/a{}/nl/ka-m-{}.ogg"), ("asterisk-core-sounds-fr-wav", "digits/{}.wav")],
    "Speech synthesizer": [("flite", "awb {}"), ("flite", "kal {}"), ("flite", "kal16 {}"), ("flite", "slt {}")],
}
OTHERS = {"Fowl": "Quack", "Insect": "Mosquito", "Siren": "Police car (siren)"} | {
    label: label
    for label in ("Bark", "Bleat", "Growling", "Helicopter", "Jet engine", "Traffic noise, roadway noise", "Train")
    + ("Vehicle horn, car horn, honking",)
}


def evaluation() -> tuple[list[tuple], dict[str, str]]:
    """Rows of the evaluation split, and what the recordings, of those that are not alone, come from."""
    rows, sources = [], {}

    def add(labels: tuple[str, ...], package: str, recording: str, source: str) -> None:
        rows.append((labels, package, recording))
        sources[f"{package}/{recording}"] = source

    for program, leaf in enumerate(FAMILIES.values()):
        for variant in range(4):
            for phrase in range(3):
                add((leaf,), "timgm6mb-soundfont", f"{variant}:{program} phrase {phrase}", f"{leaf} {variant}")
    for leaf, first in (("Snare drum", 36), ("Hi-hat", 46)):
        for key in range(first, first + 4):
            for kit in range(3):
                add((leaf,), "timgm6mb-soundfont", f"128:{kit} key {key}", f"key {key}")
    for label, speakers in SPEAKERS.items():
        for package, name in speakers:
            source = f"{package} {name}".replace("kal16", "kal")
            for i in range(4):
                add((label,), package, name.format(i, i), source)
    for label in OTHERS.values():
        for i in range(5):
            add((label,), "game", f"{label} {i // 2}", f"{label} {i // 2}")
    for i in range(70):
        add(("Caw",), "birds", f"crow{i}.wav", f"crow{i}")
    add(("Caw", "Bark"), "birds", "dog and crow", "both")
    add(("Thunder",), "game", "thunder", "thunder")
    return rows, sources


@pytest.fixture(scope="module")
def corpus_dir(write_tiny_corpus):
    training = [((leaf,), "t0") for leaf in [*FAMILIES.values(), *SPEAKERS, *OTHERS.values()] for _ in range(2)]
    return write_tiny_corpus({"balanced_train": training, "unbalanced_train": training, "eval": evaluation()[0]})


def arguments(corpus_dir: Path, output_dir: Path) -> list[str]:
    return ["--corpus_dir", str(corpus_dir), "--output_dir", str(output_dir)]


def build(corpus_dir: Path, output_dir: Path) -> int:
    return hear_tasks.main(arguments(corpus_dir, output_dir))


@pytest.fixture(scope="module")
def built(corpus_dir, tmp_path_factory):
    """The folder of the tasks, and what building it prints."""
    folder, printed = tmp_path_factory.mktemp("data") / "hear", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert build(corpus_dir, folder) == 0
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def folder(built):
    return built[0]


def tasks(folder: Path) -> dict[str, hear.HearTask]:
    return {task.name: task for task in map(hear.read_task, (folder / "tasks").iterdir())}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def origins(corpus_dir: Path, folder: Path) -> dict[str, dict[str, str]]:
    """The row of clips.csv that each file was made of."""
    clips = {row["name"]: row for row in rows_of(corpus_dir / "clips.csv")}
    return {row["file"]: clips[row["corpus_clip"]] for row in rows_of(folder / "origins.csv")}


def test_tasks_are_read_and_their_labels_are_those_of_the_clips(corpus_dir, folder):
    made_of, seen = origins(corpus_dir, folder), []
    found = tasks(folder)
    assert found.keys() == {"animals", "instruments", "speech", "vehicles"}
    assert [task.labels for task in found.values()] == [tuple(sorted(task.labels)) for task in found.values()]
    assert set(found["instruments"].labels) == {*FAMILIES, "Cymbal", "Drum"} and set(found["speech"].labels) == set(SPEAKERS)
    for task in found.values():
        assert task.single_label and task.metrics == ("top1_acc",) and task.split_mode == "new_split_kfold"
        assert (task.clip_seconds, task.sample_rates, len(task.splits)) == (3.0, (32000,), 5)
        for split in task.splits:
            recordings = task.recordings(split)
            for name, target in zip(recordings.names, recordings.targets(), strict=True):
                file = f"tasks/{task.path.name}/32000/{split}/{name}"
                own = set(made_of[file]["labels_with_ancestors"].split(";")) & set(task.labels)
                assert own == {task.labels[i] for i in np.flatnonzero(target)} and len(own) == 1
                assert made_of[file]["split"] == "eval"
                seen.append(file)
    assert sorted(seen) == sorted(made_of)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.wav")}
    assert files == made_of.keys() and len({clip["name"] for clip in made_of.values()}) == len(files)


def test_folds_share_no_source_and_have_all_classes(corpus_dir, folder):
    sources, made_of = evaluation()[1], origins(corpus_dir, folder)
    folds_of, sources_of, sizes = defaultdict(set), defaultdict(set), defaultdict(Counter)
    for file, clip in made_of.items():
        _, task, _, fold, _ = file.split("/")
        source, label = sources[clip["recording"]], clip["labels"]
        folds_of[task, source].add(fold)
        folds_of[task, "class " + label].add(fold)
        sources_of[task, "class " + label].add(source)
        sizes[task][fold] += 1
    assert len(sources_of) == 8 + 3 + 6 + 6
    for key, folds in folds_of.items():
        assert len(folds) == min(5, len(sources_of.get(key, "1")))
    assert {len(found) for (task, _), found in sources_of.items() if task.startswith("instruments")} == {4}
    assert sorted(len(found) for (task, _), found in sources_of.items() if task.startswith("speech")) == [3, 4, 4]
    assert max(sizes["animals-v1-full"].values()) - min(sizes["animals-v1-full"].values()) <= 2
    birds = [clip for clip in made_of.values() if clip["package"] == "birds"]
    assert len(birds) == 60 and {clip["labels"] for clip in birds} == {"Caw"}


def test_wavs_hold_the_recordings_and_then_silence(corpus_dir, folder):
    with h5py.File(corpus_dir / "eval_segments_mp3.hdf") as file:
        mp3s = {name.decode(): mp3.tobytes() for name, mp3 in zip(file["audio_name"], file["mp3"], strict=True)}
    for file, clip in list(origins(corpus_dir, folder).items())[::25]:
        info = soundfile.info(folder / file)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (32000, 1, 96000, "PCM_16")
        waveform, expected = soundfile.read(folder / file)[0], audio.load(mp3s[clip["name"]], 32000)
        assert np.abs(waveform[: len(expected)] - expected.clip(-1, 1)).max() < 1e-4 and not waveform[len(expected) :].any()


def test_what_the_evaluation_kit_reads(folder):
    assert all(path.is_dir() for path in (folder / "tasks").iterdir())  # it takes everything there for a task
    for path in (folder / "tasks").iterdir():
        metadata = json.loads((path / "task_metadata.json").read_text())
        assert path.name == f"{metadata['task_name']}-{metadata['version']}-{metadata['mode']}"
        assert metadata["nfolds"] == len(metadata["splits"]) == 5 and metadata["splits"] == sorted(metadata["splits"])
        indices = [int(row["idx"]) for row in rows_of(path / "labelvocabulary.csv")]
        assert indices == list(range(len(hear.read_task(path).labels)))


def test_counts_are_printed_and_kept(built):
    folder, printed = built
    lines = {line.partition(":")[0]: line for line in printed.splitlines() if ": " in line}
    assert lines.keys() >= {"instruments", "speech", "animals", "vehicles"}
    for name, task in tasks(folder).items():
        sizes = np.sum([task.recordings(split).targets().sum(axis=0) for split in task.splits], axis=0)
        assert f" {sizes.sum()} clips of " in lines[name] and lines[name].endswith(f" {sizes.max() / sizes.sum():.3f}")
        assert ", ".join(str(len(task.recordings(split))) for split in task.splits) in lines[name]
        assert f" in {len(task.labels)} classes of {sizes.min()} to {sizes.max()} clips" in lines[name]
    assert " 30 clips of 18 recordings and 18 sources " in lines["vehicles"]
    readme = (folder / "README.txt").read_text()
    assert "NOT" in readme and lines["speech"] in readme


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_again(corpus_dir, folder, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert build(corpus_dir, folder) == 0 and len(capsys.readouterr().out.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (tmp_path / "again").mkdir()
    assert build(corpus_dir, tmp_path / "again") == 0
    assert content(tmp_path / "again") == content(folder)


def test_mistakes_are_one_line_and_change_nothing(corpus_dir, write_tiny_corpus, tmp_path, failing_message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    rows = evaluation()[0]
    missing = [row for row in rows if row[0] != ("Train",)] + [(("Train",), "game", "one train")] * 3
    small = write_tiny_corpus({"balanced_train": rows[:1], "unbalanced_train": rows[:1], "eval": missing})
    for corpus, output_dir in ((tmp_path / "no", tmp_path / "new"), (corpus_dir, tmp_path / "other"), (small, tmp_path / "new")):
        before = sorted(tmp_path.rglob("*"))
        failing_message(hear_tasks.main, *arguments(corpus, output_dir))
        assert sorted(tmp_path.rglob("*")) == before


def test_a_task_of_events_from_soundscapes(tmp_path, failing_message, capsys):
    scenes, output = tmp_path / "scenes", tmp_path / "out"
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 32000).astype(np.float32)
    for part, hdf5 in (("train", "balanced_train"), ("validation", "validation"), ("eval", "eval")):
        with Mp3Writer(scenes / f"{hdf5}_segments_mp3.hdf", 527) as writer:
            for number in range(2):
                writer.add(f"Y{part[:5]:_<5}{number:06}.mp3", audio.encode_mp3(sound, 32000), np.zeros(527))
        rows = [f"{part[:5]:_<5}000000_0\t{times}" for times in ("0.1\t0.25\t/m/b", "0.2\t0.9\t/m/a")]
        table = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel", *rows, f"{part[:5]:_<5}000001_0\t\t\t"]
        (scenes / f"audioset_{part}_strong.tsv").write_text("\n".join(table))
    (scenes / "strong_classes.tsv").write_text("mid\tdisplay_name\n/m/a\tBark\n/m/b\tBell\n")
    words = ["--soundscapes_dir", str(scenes), "--output_dir", str(output)]
    assert hear_tasks.main(words) == 0
    assert "2 to train with 2 events" in capsys.readouterr().out
    task = hear.read_task(output / "tasks" / "soundscapes-v1-full")
    assert task.is_event and task.labels == ("Bark", "Bell") and task.splits == ("train", "valid", "test")
    for split in task.splits:
        assert task.events(split) == [[LabelledEvent(0.1, 0.25, 1), LabelledEvent(0.2, 0.9, 0)], []]
        assert [abs(len(clip.waveform) - 32000) < 3000 for clip in task.recordings(split)] == [True, True]
    failing_message(hear_tasks.main, *words)
    failing_message(hear_tasks.main, "--soundscapes_dir", output, "--output_dir", tmp_path / "other")
    assert not (tmp_path / "other").exists()
