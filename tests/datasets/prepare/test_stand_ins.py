"""datasets.prepare.stand_ins on a tiny corpus of pieces of the bundled recordings."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from datasets import audio, dcase20, esc50, fsd50k
from datasets.labels import audioset_labels
from datasets.prepare import stand_ins
from datasets.prepare.opensounds.tables import parents

IMPLIED = {ancestor for found in parents().values() for ancestor in found}
LEAVES = [label for label in audioset_labels() if label not in IMPLIED]
COMMON, CLASSES = LEAVES[0], LEAVES[:50]
PARENT = next(parents()[label][0] for label in CLASSES if parents().get(label))  # of one of the classes


@pytest.fixture(scope="module")
def corpus_dir(write_tiny_corpus):
    """Evaluation: 50 classes of 8 recordings (one has 42, one two takes), and a parent. Training: 12 of them, and others."""
    evaluation = [((label,), f"e{i % 3}") for label in CLASSES for i in range(8)]
    evaluation += [((COMMON,), "e0", f"common {i % 34}") for i in range(37)]
    evaluation += [((COMMON, CLASSES[1]), "e1", "twice"), ((CLASSES[1],), "e1", "twice")]
    evaluation += [((PARENT,), "e2") for _ in range(12)]
    balanced = [((label,), f"t{i % 2}") for label in CLASSES[:12] for i in range(6)]
    unbalanced = [((label,), "t2", f"pair {i // 2}") for i, label in enumerate(LEAVES[50:190])]
    return write_tiny_corpus({"balanced_train": balanced, "unbalanced_train": unbalanced, "eval": evaluation})


def arguments(data_set: str, corpus_dir: Path, output_dir: Path, *options: str) -> list[str]:
    return [data_set, "--corpus_dir", str(corpus_dir), "--output_dir", str(output_dir), *options]


def build(data_set: str, corpus_dir: Path, output_dir: Path, *options: str) -> int:
    return stand_ins.main(arguments(data_set, corpus_dir, output_dir, *options))


def build_dcase20(corpus_dir: Path, output_dir: Path, clips: int = 1) -> int:
    return build("dcase20", corpus_dir, output_dir, "--train_clips", str(clips), "--test_clips", str(clips))


@pytest.fixture(scope="module")
def folders(corpus_dir, tmp_path_factory):
    """The three stand-ins, by name."""
    folder = tmp_path_factory.mktemp("data")
    assert build("esc50", corpus_dir, folder / "esc50") == build("fsd50k", corpus_dir, folder / "fsd50k") == 0
    assert build_dcase20(corpus_dir, folder / "dcase20") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["dcase20", "esc50", "fsd50k"]
    return {path.name: path for path in folder.iterdir()}


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def origins(corpus_dir: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Row of clips.csv by the file that was made of it."""
    clips = {row["name"]: row for row in rows_of(corpus_dir / "clips.csv")}
    return {row["file"]: clips[row["corpus_clip"]] for row in rows_of(folder / "origins.csv")}


def mp3s_of(paths) -> dict[str, bytes]:
    found = {}
    for path in paths:
        with h5py.File(path) as file:
            found |= {name.decode(): mp3.tobytes() for name, mp3 in zip(file["audio_name"], file["mp3"], strict=True)}
    return found


def test_esc50_is_read_and_its_folds_share_no_recording(corpus_dir, folders):
    folder = folders["esc50"]
    rows, made_of = rows_of(folder / "meta" / "esc50.csv"), origins(corpus_dir, folder)
    assert list(rows[0]) == ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    assert sum(len(esc50.test_set(folder, fold)) for fold in esc50.FOLDS) == len(rows) == 48 * 8 + 10 + 40
    assert all(len(esc50.training_set(folder, fold)) + len(esc50.test_set(folder, fold)) == len(rows) for fold in esc50.FOLDS)

    clips = {row["filename"]: made_of[f"audio/{row['filename']}"] for row in rows}
    assert {clip["split"] for clip in clips.values()} == {"eval"} and len({clip["name"] for clip in clips.values()}) == len(rows)
    sources, recordings = defaultdict(set), defaultdict(set)
    for row in rows:
        recording = clips[row["filename"]]["recording"]
        sources[recording].add((row["src_file"], row["fold"]))
        recordings[row["src_file"]].add(recording)
        assert row["filename"] == f"{row['fold']}-{row['src_file']}-{row['take']}-{row['target']}.wav"
    assert all(len(found) == 1 for found in [*sources.values(), *recordings.values()])
    assert Counter(len({row["src_file"] for row in rows if row["target"] == str(target)}) for target in range(50))[40] == 1
    assert sorted(row["take"] for row in rows if clips[row["filename"]]["recording"] == "e1/twice") == ["A", "B"]


def test_esc50_classes_are_the_rarest_labels_evenly_over_the_folds(corpus_dir, folders):
    rows, made_of = rows_of(folders["esc50"] / "meta" / "esc50.csv"), origins(corpus_dir, folders["esc50"])
    per_fold = Counter((row["category"], row["fold"]) for row in rows)
    sizes = Counter(row["category"] for row in rows)
    assert sorted(sizes.values()) == [8] * 48 + [10, 40] and len(per_fold) == 250
    for category, size in sizes.items():
        shares = [per_fold[category, str(fold)] for fold in esc50.FOLDS]
        assert sum(shares) == size and max(shares) - min(shares) <= 1
    assert all(category == category.lower() and category.isidentifier() for category in sizes)
    assert esc50.class_names(folders["esc50"])[int(rows[0]["target"])] == rows[0]["category"]
    both = [row["category"] for row in rows if ";" in made_of[f"audio/{row['filename']}"]["labels"]]
    assert len(both) == 1 and sizes[both[0]] == 10
    assert PARENT not in {made_of[f"audio/{row['filename']}"]["labels"] for row in rows}


def test_esc50_wavs_hold_the_recordings_and_then_silence(corpus_dir, folders):
    folder = folders["esc50"]
    mp3s = mp3s_of([corpus_dir / "eval_segments_mp3.hdf"])
    for file, clip in list(origins(corpus_dir, folder).items())[::40]:
        info = soundfile.info(folder / file)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (44100, 1, 220500, "PCM_16")
        waveform, expected = soundfile.read(folder / file)[0], audio.load(mp3s[clip["name"]], 44100)
        assert np.abs(waveform[: len(expected)] - expected.clip(-1, 1)).max() < 1e-4 and not waveform[len(expected) :].any()
    assert esc50.test_set(folder, 1)[0].waveform.shape == (160000,)


def test_fsd50k_keeps_the_mp3s_and_its_labels_agree(corpus_dir, folders):
    folder = folders["fsd50k"]
    parts = {"train": fsd50k.training_set(folder), "val": fsd50k.validation_set(folder), "eval": fsd50k.evaluation_set(folder)}
    made_of = origins(corpus_dir, folder)
    before = mp3s_of(corpus_dir.glob("*.hdf"))
    after = mp3s_of(folder.glob("*.hdf"))
    assert after.keys() == made_of.keys() and all(after[name] == before[clip["name"]] for name, clip in made_of.items())

    names = {part: set(dataset.names) for part, dataset in parts.items()}
    assert all(names.values()) and sum(map(len, names.values())) == len(after)
    assert {made_of[name]["split"] for name in names["eval"]} == {"eval"}
    train, val = ({made_of[name]["recording"] for name in names[part]} for part in ("train", "val"))
    assert not train & val and "eval" not in {made_of[name]["split"] for name in names["train"] | names["val"]}

    vocabulary, truth = fsd50k.class_names(folder), folder / "FSD50K.ground_truth"
    assert list(vocabulary) == sorted(vocabulary) and not any("," in label or " " in label for label in vocabulary)
    listed = {row["fname"]: row for table in ("dev", "eval") for row in rows_of(truth / f"{table}.csv")}
    assert {f"{number}.mp3" for number in listed} == set(after) and all(number.isdecimal() for number in listed)
    for part, dataset in parts.items():
        for name, target in zip(dataset.names, dataset.targets(), strict=True):
            row = listed[name.removesuffix(".mp3")]
            assert row.get("split", "eval") == part
            assert set(row["labels"].split(",")) == {vocabulary[i] for i in np.flatnonzero(target)}
            own = [label.replace(", ", "_and_").replace(" ", "_") for label in made_of[name]["labels_with_ancestors"].split(";")]
            assert set(row["labels"].split(",")) == set(own) & set(vocabulary) != set()
    assert parts["eval"].lengths().max() == 9600  # of 0.3 s


def test_fsd50k_leaves_out_clips_without_a_frequent_label(corpus_dir, folders):
    counts = Counter(label for row in rows_of(corpus_dir / "clips.csv") for label in row["labels_with_ancestors"].split(";"))
    frequent = set(sorted(counts, key=lambda label: (-counts[label], label))[:200])
    expected = [row["name"] for row in rows_of(corpus_dir / "clips.csv") if frequent & set(row["labels_with_ancestors"].split(";"))]
    made_of = origins(corpus_dir, folders["fsd50k"])
    assert sorted(clip["name"] for clip in made_of.values()) == sorted(expected)


def test_dcase20_scenes_devices_and_cities(corpus_dir, folders):
    folder = folders["dcase20"]
    training, test = dcase20.training_set(folder), dcase20.test_set(folder)
    assert training.targets().sum(axis=0).tolist() == test.targets().sum(axis=0).tolist() == [1] * 10
    assert set(map(dcase20.device_of, training.names)) == {"a", "b", "c", "s1", "s2", "s3"}
    assert set(map(dcase20.device_of, test.names)) == set(dcase20.DEVICES)
    cities = {part: dcase20.city_by_name(folder, part) for part in ("train", "evaluate")}
    assert set(cities["evaluate"].values()) - set(cities["train"].values())
    assert set(cities["evaluate"].values()) & set(cities["train"].values())
    assert test[0].waveform.shape == (320000,)

    made_of = origins(corpus_dir, folder)
    label_of_scene, city_of_package = defaultdict(set), defaultdict(set)
    for part, splits in (("train", {"balanced_train", "unbalanced_train"}), ("evaluate", {"eval"})):
        for name, city in cities[part].items():
            clip = made_of[f"audio/{name}"]
            assert clip["split"] in splits
            label_of_scene[name.partition("-")[0]].add(clip["labels"].split(";")[-1])
            city_of_package[clip["package"]].add(city)
    assert all(len(found) == 1 for found in [*label_of_scene.values(), *city_of_package.values()])
    assert len(set.union(*label_of_scene.values())) == 10

    setup = folder / "evaluation_setup"
    assert [list(row) for row in rows_of(setup / "fold1_test.csv", "\t")] == [["filename"]] * 10
    tested = [row["filename"] for row in rows_of(setup / "fold1_test.csv", "\t")]
    assert tested == [row["filename"] for row in rows_of(setup / "fold1_evaluate.csv", "\t")]
    for row in rows_of(folder / "meta.csv", "\t"):
        assert dcase20.device_of(row["filename"]) == row["source_label"]
        assert f"-{row['identifier']}-" in row["filename"] and (folder / row["filename"]).is_file()


def test_dcase20_repeats_clips_and_filters_them_by_device(corpus_dir, folders):
    folder, mp3s = folders["dcase20"], mp3s_of(corpus_dir.glob("*.hdf"))
    responses = defaultdict(list)
    for file, clip in origins(corpus_dir, folder).items():
        waveform, rate = soundfile.read(folder / file, dtype="float32")
        assert (rate, waveform.shape) == (44100, (441000,)) and soundfile.info(folder / file).subtype == "PCM_16"
        original = audio.load(mp3s[clip["name"]], 44100)
        repeated = np.tile(original, 441000 // len(original) + 1)[:441000]
        device = dcase20.device_of(file)
        if device == "a":
            assert np.abs(waveform - repeated.clip(-1, 1)).max() < 1e-4
        else:
            bands = [[np.abs(part).mean() for part in np.array_split(np.fft.rfft(x)[600:80000], 4)] for x in (waveform, repeated)]
            responses[device].append(np.log(bands[0]) - np.log(bands[1]))
    shapes = {device: np.mean([response - response.mean() for response in found], axis=0) for device, found in responses.items()}
    assert len(shapes) == 8 and all(0.05 < np.abs(shape).max() < 2 for shape in shapes.values())


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha1(b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)).hexdigest()


def test_the_same_again(corpus_dir, folders, tmp_path):
    first = {path: path.stat().st_mtime_ns for path in folders["dcase20"].rglob("*")}
    assert build_dcase20(corpus_dir, folders["dcase20"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folders["dcase20"].rglob("*")} == first
    (tmp_path / "again").mkdir()  # an empty folder is no obstacle
    assert build_dcase20(corpus_dir, tmp_path / "again") == 0
    assert digest(tmp_path / "again") == digest(folders["dcase20"])
    assert all("NOT" in (folder / "README.txt").read_text() for folder in folders.values())


def test_mistakes_are_one_line_and_change_nothing(corpus_dir, folders, tmp_path, failing_message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    (tmp_path / "no_mp3s").mkdir()
    (tmp_path / "no_mp3s" / "clips.csv").write_bytes((corpus_dir / "clips.csv").read_bytes())
    small = tmp_path / "small"
    small.mkdir()
    for path in corpus_dir.glob("*.hdf"):
        (small / path.name).symlink_to(path)
    (small / "clips.csv").write_text("".join((corpus_dir / "clips.csv").read_text().splitlines(keepends=True)[:30]))
    for data_set, corpus, output in (
        ("esc50", tmp_path / "nowhere", tmp_path / "new"),
        ("fsd50k", tmp_path / "no_mp3s", tmp_path / "new"),
        ("esc50", corpus_dir, tmp_path / "other"),
        ("esc50", corpus_dir, folders["fsd50k"]),
        ("esc50", corpus_dir, tmp_path / "other" / "mine.txt"),
        *((data_set, small, tmp_path / "new") for data_set in stand_ins.PUBLISHED),
    ):
        before = sorted(tmp_path.rglob("*"))
        failing_message(stand_ins.main, *arguments(data_set, corpus, output))
        assert sorted(tmp_path.rglob("*")) == before
