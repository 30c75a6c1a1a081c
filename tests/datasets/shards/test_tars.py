"""Tars in webdataset's layout: what they hold, whatever lies between, and that nothing else is touched."""

import io
import json
import random
import tarfile

import pytest

from datasets.shards.clips import ShardError, clip_name
from datasets.shards.tars import read_tar

ID = "--aE2O5G5WE"
LABELS = json.dumps({"labels": ["/m/04rlf", "/m/09x0r"]}).encode()


def write(path, members: dict[str, bytes], **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_recordings_and_their_records_are_joined_in_any_order(tmp_path):
    members = {
        f"{ID}.flac": b"one",
        f"{ID}.json": LABELS,
        "sub/b.json": json.dumps(["Speech"]).encode(),
        "README.md": b"no clip",
        "._c.flac": b"resource fork",
        f"Y{ID}_30.000.WAV": b"three",
        "sub/b.mp3": b"two",
        "d.ogg": b"four",
        "d.txt": b"/m/09x0r,/m/04rlf\n",
        "e.json": LABELS,
    }
    clips = {clip.key: clip for clip in read_tar(write(tmp_path / "a.tar", members))}
    read = {key: clip.stored and clip.stored.read() for key, clip in clips.items()}
    assert read == {ID: b"one", "b": b"two", f"Y{ID}_30.000": b"three", "d": b"four", "e": None}
    assert {key: clips[key].classes() for key in (ID, "b", "d")} == {ID: (0, 137), "b": (0,), "d": (0, 137)}
    with pytest.raises(ShardError, match="labels"):
        clips[f"Y{ID}_30.000"].classes()


@pytest.mark.parametrize(
    ("record", "classes"),
    [
        ({"labels": ["/m/09x0r"]}, (0,)),
        ({"labels": [3, 4], "human_labels": ["Speech", "Music"]}, (0, 137)),  # numbers could count anything
        ({"tags": "Music"}, (137,)),
        ({"mids": "/m/04rlf,/m/09x0r"}, (0, 137)),
        ({"labels": []}, ()),
    ],
)
def test_labels(tmp_path, record, classes):
    [clip] = read_tar(write(tmp_path / "a.tar", {"a.flac": b"x", "a.json": json.dumps(record).encode()}))
    assert clip.classes() == classes


@pytest.mark.parametrize("record", [b"{", b'{"labels": ["/m/nothing"]}', b'{"labels": [0]}', b"null", b"[" * 100_000, b" " * 2**21])
def test_labels_that_are_none_are_an_error_of_the_clip(tmp_path, record):
    [clip] = read_tar(write(tmp_path / "a.tar", {"a.flac": b"x", "a.json": record}))
    assert clip.stored.read() == b"x"
    with pytest.raises(ShardError, match="a has no labels"):
        clip.classes()


def test_names_and_links_in_a_tar_lead_nowhere(tmp_path):
    path = write(tmp_path / "a.tar", {"../../escaped.flac": b"inside", "/etc/passwd.flac": b"inside too"})
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.SYMTYPE, "link.flac"), (tarfile.LNKTYPE, "hard.flac"), (tarfile.FIFOTYPE, "pipe.flac")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert {clip.key: clip.stored.read() for clip in read_tar(path)} == {"escaped": b"inside", "passwd": b"inside too"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar"]


def test_a_cut_tar_gives_what_is_there_and_an_error(tmp_path):
    whole = write(tmp_path / "a.tar", {f"{number}.flac": bytes([number]) * 5000 for number in range(5)}).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    read = []
    with pytest.raises(ShardError, match=r"cut\.tar"):
        read.extend(clip.stored.read() for clip in read_tar(cut))
        pytest.fail("no error")
    clips = read_tar(cut)
    assert next(clips).stored.read() == b"\0" * 5000


def test_damage_is_one_error(tmp_path):
    whole = write(tmp_path / "a.tar", {f"{number}.{kind}": LABELS for number in range(9) for kind in ("flac", "json")}).read_bytes()
    generator = random.Random(0)
    outcomes = set()
    for _ in range(100):
        content = bytearray(whole)
        at = generator.randrange(len(content) // 512) * 512 + generator.randrange(200)  # headers and contents
        content[at : at + 20] = generator.randbytes(20)
        (tmp_path / "a.tar").write_bytes(content)
        try:
            outcomes.add(len([clip.stored and clip.stored.read() for clip in read_tar(tmp_path / "a.tar")]))
        except ShardError as error:
            assert "a.tar" in str(error)
            outcomes.add("refused")
    assert {9, "refused"} <= outcomes


@pytest.mark.parametrize("content", [b"", b"nothing of value" * 100])
def test_what_is_no_tar_is_named(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ShardError, match=r"a\.tar"):
        list(read_tar(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ID, f"Y{ID}.mp3"),
        (f"Y{ID}", f"Y{ID}.mp3"),
        (f"{ID}_30", f"Y{ID}.mp3"),
        (f"Y{ID}_30.000", f"Y{ID}.mp3"),
        (f"{ID}_30000_40000", f"Y{ID}.mp3"),
        ("Yabcdefghij_30", "YYabcdefghij.mp3"),  # an id that begins with Y
        ("YYabcdefghij", "YYabcdefghij.mp3"),
        ("clip.mp3", "clip.mp3"),
        ("another clip", "another clip"),
    ],
)
def test_names_are_those_of_the_hdf5_files(key, name):
    assert clip_name(key) == name
