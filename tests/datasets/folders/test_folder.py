"""datasets.folders.folder: what users put into folders, and splits that keep groups together."""

from __future__ import annotations

import itertools
import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.audio import encode_mp3
from datasets.folders.folder import FolderData, fold_names, scan, split, with_drawn_folds

BUNDLED = sorted((Path(__file__).resolve().parents[3] / "resources" / "recordings").glob("*.ogg"))
NFC, NFD = (unicodedata.normalize(form, "Vögel") for form in ("NFC", "NFD"))


def write(path: Path, seed: int, seconds: float = 0.1, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)
    if path.suffix.lower() == ".mp3":
        path.write_bytes(encode_mp3(samples, rate))
    else:
        soundfile.write(path, samples, rate, format="FLAC" if path.suffix.lower() == ".flac" else "WAV")
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes: real recordings (dog), synthetic ones of several formats, nested (cat)."""
    root = tmp_path / "data"
    (root / "dog").mkdir(parents=True)
    for path in BUNDLED:
        (root / "dog" / path.name).write_bytes(path.read_bytes())
    for seed, name in enumerate(("a.wav", "LOUD.WAV", "deep/er/b.Flac", "deep/c.mp3", "ogg in disguise.wav")):
        write(root / "cat" / name, seed)
    return root


def left_out(data: FolderData) -> dict[str, str]:
    assert len(dict(data.left_out)) == len(data.left_out)
    return dict(data.left_out)


def test_a_folder_a_class(root):
    data = scan(root)
    assert data.class_names == ("cat", "dog") and data.single_label
    assert data.names == (
        "cat/LOUD.WAV", "cat/a.wav", "cat/deep/c.mp3", "cat/deep/er/b.Flac", "cat/ogg in disguise.wav",
        *(f"dog/{path.name}" for path in BUNDLED),
    )  # fmt: skip
    assert data.targets.tolist() == [[1, 0]] * 5 + [[0, 1]] * len(BUNDLED)
    assert (data.splits, data.folds, data.groups, data.segments) == (None,) * 4
    assert (data.left_out, data.warnings, data.skipped) == ((), (), {})
    np.testing.assert_allclose(data.seconds[:5], 0.1)
    assert data.report().splitlines() == [data.report()] and "2 classes, one label each; 0.1 to" in data.report()
    clips = data.clips([6, 0], clip_seconds=1.0)
    assert clips.names == [data.names[6], "cat/LOUD.WAV"] and clips.targets().tolist() == [[0, 1], [1, 0]]
    assert [len(clip.waveform) for clip in clips] == [32000, 32000]


def test_everything_unusable_is_named(root, tmp_path):
    outside = write(tmp_path / "outside" / "secret.wav", 99)
    (root / "cat" / "notes.txt").write_text("not audio")
    (root / "cat" / "README").write_text("not audio")
    (root / "cat" / "picture.JPG").write_bytes(b"not audio")
    (root / "cat" / "video.M4A").write_bytes(b"no container")
    (root / "cat" / "._a.wav").write_bytes(b"what macOS writes")
    (root / "cat" / ".hidden.wav").write_bytes(b"")
    (root / ".git").mkdir()
    (root / ".git" / "a.wav").write_bytes(b"")
    (root / "empty class").mkdir()
    (root / "text class").mkdir()
    (root / "text class" / "a.txt").write_text("text")
    (root / "cat" / "empty.wav").write_bytes(b"")
    (root / "cat" / "text.wav").write_text("I am no sound")
    whole = write(tmp_path / "whole.wav", 5, 1.0).read_bytes()
    (root / "cat" / "no samples.wav").write_bytes(whole[:44])
    (root / "stray.wav").write_bytes(whole)
    (root / "cat" / "link in.wav").symlink_to("a.wav")
    (root / "cat" / "broken.wav").symlink_to("nowhere.wav")
    (root / "cat" / "self.wav").symlink_to("self.wav")
    (root / "linked class").symlink_to(outside.parent)
    (root / "text class" / "again").symlink_to(outside.parent)
    (root / "text class" / "link out.wav").symlink_to(outside)
    (root / "dog" / "loop").symlink_to(root)
    (root / "dog" / "copy.wav").write_bytes((root / "cat" / "a.wav").read_bytes())
    os.mkfifo(root / "dog" / "pipe.wav")
    data = scan(root)
    assert len(data.paths) == 5 + len(BUNDLED) + 1 and data.class_names == ("cat", "dog", "linked class")
    assert data.skipped == {".txt": 2, "": 1, ".jpg": 1}
    reasons = left_out(data)
    for name, reason in {
        "empty class": "class without",
        "text class": "class without",
        "cat/empty.wav": "empty",
        "cat/text.wav": "cannot be decoded",
        "cat/video.M4A": "cannot be decoded",
        "cat/no samples.wav": "",
        "stray.wav": "no class folder",
        "cat/link in.wav": "same file as cat/a.wav",
        "cat/broken.wav": "broken link",
        "cat/self.wav": "broken link",
        "text class/again": "same folder",
        "text class/link out.wav": "same file as linked class/secret.wav",
        "dog/loop": "same folder",
        "dog/copy.wav": "same bytes as cat/a.wav (which is of cat)",
        "dog/pipe.wav": "no regular file",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons
    assert "4 files are no audio: .txt (2)" in data.report()
    assert "  and 10 more" in data.report(limit=5)
    for clip in data.clips(range(len(data.paths))):  # no surprise in the middle of an epoch
        assert clip.waveform.isfinite().all()


def test_damaged_recordings_are_used_up_to_the_damage(root, tmp_path):
    suffixes = ("wav", "mp3", "flac")
    for name in map("whole.{}".format, suffixes):
        content = write(tmp_path / name, 5, 3.0).read_bytes()
        (root / "cat" / name).write_bytes(content[: len(content) // 2])
    for decode_all in (False, True):
        data = scan(root, decode_all=decode_all)
        assert set(dict(data.warnings)) == {f"cat/whole.{suffix}" for suffix in suffixes} and not data.left_out
        assert "3 used although damaged" in data.report() and "shorter than its header says" in data.report()
    assert data.seconds[[data.names.index(f"cat/whole.{suffix}") for suffix in suffixes]] == pytest.approx(1.5, abs=0.3)
    for clip in data.clips(range(len(data.paths))):
        assert clip.waveform.any()


def test_damage_in_the_middle_is_found_on_request(root, tmp_path):
    flac = bytearray(write(tmp_path / "whole.flac", 5, 5.0).read_bytes())
    flac[len(flac) // 2 : len(flac) // 2 + 3000] = bytes(3000)
    (root / "dog" / "damaged.flac").write_bytes(flac)
    samples = np.zeros(1000, np.float32)
    samples[500] = np.nan
    soundfile.write(root / "dog" / "nan.wav", samples, 16000, subtype="FLOAT")
    assert {"dog/damaged.flac", "dog/nan.wav"} <= set(scan(root).names)
    data = scan(root, decode_all=True)
    assert set(left_out(data)) == {"dog/nan.wav"} and set(dict(data.warnings)) == {"dog/damaged.flac"}


def test_names_of_the_world(root):
    for seed, name in enumerate((f"{NFC}/Ämsel.wav", f"{NFD}/Grünfink.wav", "鳥/うぐいす.wav", "a;b, 'c'\n/x\ty.wav"), 20):
        write(root / name, seed)
    data = scan(root)
    assert data.class_names == (NFC, "a;b, 'c'\n", "cat", "dog", "鳥")
    assert data.targets.sum(0).tolist() == [2, 1, 5, len(BUNDLED), 1]
    os.makedirs(os.fsencode(root) + b"/bad \xff\n name")
    (root / os.fsdecode(b"bad \xff\n name") / "x.wav").write_bytes(b"")
    data = scan(root)
    data.report().encode()  # can be printed
    assert left_out(data)[r"bad \udcff\n name/x.wav"] == "its name is not UTF-8; rename it"


def test_a_folder_next_to_train_and_test_is_refused(root, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "parts" / part).mkdir(parents=True)
        os.rename(root / ("dog" if part == "train" else "cat"), tmp_path / "parts" / part / "dog")
    (tmp_path / "parts" / "extra").mkdir()
    with pytest.raises(ValueError, match="extra"):
        scan(tmp_path / "parts")


def test_folders_called_train_and_test_are_a_split(root, tmp_path):
    other = tmp_path / "other"
    for seed, (part, name) in enumerate(itertools.product(("Train", "val", "test"), ("cat", "dog"))):
        write(other / part / name / "a.wav", seed)
    write(other / "val" / "stray.wav", 9999)
    data = scan(other)
    assert data.class_names == ("cat", "dog") and data.splits == ("train",) * 2 + ("test",) * 2 + ("val",) * 2
    assert set(left_out(data)) == {"val/stray.wav"}
    assert [part.tolist() for part in split(data)] == [[0, 1], [4, 5], [2, 3]]


def test_copies_are_distinguished_from_files_that_begin_alike(root):
    content = write(root / "cat" / "long.wav", 40, 10.0).read_bytes()
    (root / "dog" / "other end.wav").write_bytes(content[:-2] + b"ab")
    (root / "dog" / "same.wav").write_bytes(content)
    data = scan(root)
    assert "dog/other end.wav" in data.names and set(left_out(data)) == {"dog/same.wav"}


def test_nothing_to_learn_from_is_an_error(tmp_path, root):
    with pytest.raises(NotADirectoryError, match="nowhere"):
        scan(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 classes"):
        scan(tmp_path / "empty")
    with pytest.raises(ValueError, match="1 classes.*LOUD.WAV: lies in no class folder"):
        scan(root / "cat" / "deep" / "..")
    (root / "only").mkdir()
    (root / "cat").rename(root / "only" / "cat")
    with pytest.raises(ValueError, match="1 classes.*one folder per class"):
        scan(root / "only")


# CSV


def table(root: Path, *rows: str, columns: str = "path,labels") -> Path:
    path = root.parent / "list.csv"
    path.write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")
    return path


def test_a_single_label_table(root):
    data = scan(root, table(root, "cat/a.wav,meow", "dog/speech.ogg, woof ", "cat/deep/c.mp3,meow"))
    assert data.class_names == ("meow", "woof") and data.targets.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert data.single_label and data.names == ("cat/a.wav", "dog/speech.ogg", "cat/deep/c.mp3")


def test_several_labels_or_none_are_multi_label(root):
    data = scan(root, table(root, "cat/a.wav,b; a;b", "dog/speech.ogg,c", "dog/wind.ogg,"))
    assert not data.single_label and data.class_names == ("a", "b", "c")
    assert data.targets.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    one = scan(root, table(root, "cat/a.wav,a", "dog/speech.ogg,"))  # there or not: one class is enough
    assert not one.single_label and one.targets.tolist() == [[1], [0]]


def test_columns_of_a_table(root):
    rows = [("cat/a.wav,x,TRAIN,1"), ("dog/speech.ogg,y,validation,2"), ("dog/wind.ogg,y,Test,"), ("cat/deep/c.mp3,x,train,1")]
    data = scan(root, table(root, *rows, columns="path,labels,split,group"))
    assert data.splits == ("train", "val", "test", "train") and data.groups == ("1", "2", "dog/wind.ogg", "1")
    assert [part.tolist() for part in split(data)] == [[0, 3], [1], [2]]
    rows = ("cat/a.wav,x,2", "dog/speech.ogg,y,10", "dog/wind.ogg,y,2")
    data = scan(root, table(root, *rows, columns="path,labels,fold"))
    assert [part.tolist() for part in split(data)] == [[1], [0, 2], []]
    assert [part.tolist() for part in split(data, fold="10")] == [[0, 2], [1], []]
    with pytest.raises(ValueError, match="fold '3'.*2, 10"):
        split(data, fold="3")
    with pytest.raises(ValueError, match="no fold column"):
        split(scan(root), fold="1")


def test_drawn_folds_are_held_out_one_by_one_and_keep_groups_together(tmp_path, caplog):
    rows = [f"{write(tmp_path / 'data' / f'{i}.wav', i).name},{'xy'[i % 2]},{i // 2}" for i in range(11)]
    data = scan(tmp_path / "data", table(tmp_path / "data", *rows, columns="path,labels,group"))
    folds = with_drawn_folds(data, 3, seed=0)
    held_out = [split(folds, fold=fold).val for fold in fold_names(folds)]
    assert fold_names(folds) == ["1", "2", "3"] and sorted(np.concatenate(held_out)) == list(range(11))
    assert not caplog.text
    with pytest.raises(ValueError, match="6 groups"):
        with_drawn_folds(data, 7)


def test_folds_are_not_drawn_where_there_are_some(root):
    for column, cells in (("fold", "12"), ("split", ("train", "val"))):
        rows = [f"{path},{label},{cell}" for path, label, cell in zip(("cat/a.wav", "dog/wind.ogg"), "xy", cells, strict=True)]
        with pytest.raises(ValueError, match=column):
            with_drawn_folds(scan(root, table(root, *rows, columns=f"path,labels,{column}")), 2)


def test_classes_without_a_training_clip_are_named(root, caplog):
    """A class with a single clip, in the fold that it is in."""
    rows = ("cat/a.wav,x,1", "dog/speech.ogg,y,1", "cat/deep/c.mp3,x,2")
    data = scan(root, table(root, *rows, columns="path,labels,fold"))
    split(data, fold="2")
    assert not caplog.text
    split(data, fold="1")
    assert "1 classes" in caplog.text and caplog.text.rstrip().endswith(": y")


def test_rows_that_cannot_be_used_are_named(root, tmp_path):
    outside = write(tmp_path / "outside.wav", 1)
    (root / "out").symlink_to(tmp_path)  # links may lead anywhere, paths may not
    (tmp_path / "link in.wav").symlink_to(root / "cat" / "deep" / "c.mp3")
    data = scan(
        root,
        table(
            root, "cat/a.wav,x", "dog/speech.ogg,y", "cat/../cat/a.wav,y", "nowhere.wav,z", "../outside.wav,x", f"{outside},x",
            "out/outside.wav,x", ",x", "dog,x", f"{root}/dog/wind.ogg,y", "../link in.wav,x",
        ),
    )  # fmt: skip
    assert data.names == ("cat/a.wav", "dog/speech.ogg", "out/outside.wav", "dog/wind.ogg")
    reasons = [reason for _, reason in data.left_out]
    copy = "same file as cat/a.wav (which is of x)"
    expected = ("not found", "outside of", "outside of", "no path", "no regular file", "outside of", copy)
    for reason, part in zip(reasons, expected, strict=False):
        assert part in reason
    assert dict(data.left_out)["z"] == "class without a usable recording" and len(reasons) == 8


def test_tables_spell_names_as_they_like(root):
    write(root / NFD / "a.wav", 30)
    write(root / NFC / "b.wav", 31)
    data = scan(root, table(root, f"{NFC}/a.wav,{NFD}", f"{NFD}/b.wav,{NFC}", "cat/a.wav,cat"))
    assert data.names == (f"{NFC}/a.wav", f"{NFC}/b.wav", "cat/a.wav") and data.class_names == (NFC, "cat")


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("file,label", ["a,b"], "path, labels is missing; there are file, label"),
        ("path,labels", [], "no rows"),
        ("path,labels,split", ["cat/a.wav,x,rest"], "line 2: split 'rest'"),
        ("path,labels,fold", ["cat/a.wav,x,"], "line 2: the fold is empty"),
        ("path,labels,split,fold", ["cat/a.wav,x,train,1"], "keep one"),
    ],
)
def test_damaged_tables_are_refused(root, columns, rows, message):
    with pytest.raises(ValueError, match=message):
        scan(root, table(root, *rows, columns=columns))


# Splits


def made_up(targets, groups=None, splits=None) -> FolderData:
    targets = np.asarray(targets, np.uint8)
    names = tuple(map(str, range(len(targets))))
    classes = tuple(f"class {k}" for k in range(targets.shape[1]))
    single_label = bool((targets.sum(1) == 1).all())
    paths, seconds = tuple(map(Path, names)), np.ones(len(names))
    return FolderData(classes, paths, names, targets, seconds, single_label, splits, None, groups, (), {})


def single(*counts: int) -> np.ndarray:
    return np.eye(len(counts), dtype=np.uint8)[np.repeat(np.arange(len(counts)), counts)]


@pytest.mark.parametrize(
    ("counts", "share", "in_val"),
    [
        ((3, 3), 0.2, [1, 1]),
        ((5, 10, 43), 0.2, [1, 2, 9]),
        ((4, 4), 0.9, [3, 3]),
        ((2,) * 500, 0.2, [1] * 500),
    ],
)
def test_splits_are_stratified(counts, share, in_val):
    data = made_up(single(*counts))
    parts = split(data, share)
    assert data.targets[parts.val].sum(0).tolist() == in_val
    assert sorted([*parts.train, *parts.val]) == list(range(sum(counts))) and not len(parts.test)


def test_splits_follow_the_seed(caplog):
    data = made_up(single(30, 30))
    for one, other in zip(split(data, seed=3), split(data, seed=3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert split(data, seed=3).val.tolist() != split(data, seed=4).val.tolist()
    assert not caplog.records


def test_single_clips_stay_in_training(caplog):
    data = made_up(single(1, 5, 1))
    with caplog.at_level(logging.WARNING):
        parts = split(data)
    assert data.targets[parts.val].sum(0).tolist() == [0, 1, 0]
    assert "2 classes have no clip to spare and are not validated on: class 0, class 2" in caplog.text
    with pytest.raises(ValueError, match="0 to validate on"):
        split(made_up(single(1, 1)))


@pytest.mark.parametrize("seed", range(2))
def test_groups_stay_together(seed):
    rng = np.random.default_rng(seed)
    targets = single(*rng.integers(20, 60, 8))
    groups = tuple(f"{k}.{rng.integers(2 + k)}" for k in targets.argmax(1))  # class k comes from 2 + k recordings
    data = made_up(targets, groups)
    parts = split(data, 0.25, seed)
    train, val = ({groups[index] for index in part} for part in (parts.train, parts.val))
    assert not train & val and train | val == set(groups)
    assert (targets[parts.val].sum(0) > 0).all() and (targets[parts.train].sum(0) > 0).all()
    assert 0.15 < len(parts.val) / len(targets) < 0.4


def test_the_only_group_of_a_class_stays_in_training(caplog):
    data = made_up(single(6, 6, 6), tuple("aaaaaabbbcccdddeee"))
    parts = split(data)
    assert data.targets[parts.val].sum(0).tolist() == [0, 3, 3] and "class 0" in caplog.text
    mixed = made_up(single(4, 4), tuple("abababab"))  # groups across classes
    parts = split(mixed)
    assert mixed.targets[parts.val].sum(0).tolist() == [2, 2]


def test_several_labels_are_stratified():
    rng = np.random.default_rng(0)
    targets = (rng.random((2000, 30)) < np.geomspace(0.002, 0.5, 30)).astype(np.uint8)
    targets = targets[:, targets.sum(0) > 1]
    parts = split(made_up(targets), 0.2)
    shares = targets[parts.val].sum(0) / targets.sum(0)
    assert (targets[parts.val].sum(0) > 0).all() and (targets[parts.train].sum(0) > 0).all()
    assert np.abs(shares[targets.sum(0) > 50] - 0.2).max() < 0.06
    unlabelled = targets.sum(1) == 0
    assert 0.1 < unlabelled[parts.val].sum() / unlabelled.sum() < 0.3 or unlabelled.sum() < 10


def test_a_group_on_both_sides_is_refused():
    data = made_up(single(2, 2), groups=("a", "b", "b", "c"), splits=("train", "train", "val", "val"))
    with pytest.raises(ValueError, match="group 'b' is in train and val"):
        split(data)


def test_validation_is_drawn_from_training_where_only_a_test_is_named():
    data = made_up(single(5, 5), splits=("test", *["train"] * 8, "test"))
    parts = split(data)
    assert parts.test.tolist() == [0, 9] and len(parts.val) == 2 and len(parts.train) == 6
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(data, share)
