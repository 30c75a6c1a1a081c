"""Archives that unpack to more than they should: refused by what they declare, and by what they hold."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.prepare import archives
from datasets.prepare.archives import ArchiveError, ShortHeader, read_tarred, read_zipped
from datasets.prepare.downloads import Download, read
from datasets.prepare.opensounds import debian, unlabelled
from datasets.prepare.opensounds.debian import PackageError
from models.errors import UserError

CONTENT = bytes(100_000)


def zipped(name: str, declared: int | None = None) -> bytes:
    """A zip of one file, which may declare another size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, CONTENT)
    content = file.getvalue()
    if declared is not None:
        content = content.replace(len(CONTENT).to_bytes(4, "little"), declared.to_bytes(4, "little"))
    return content


def tarred(name: str, mode: str, **attributes: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(CONTENT)
        for key, value in attributes.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(CONTENT))
    return file.getvalue()


@pytest.mark.parametrize("declared", [None, 10, 100_000_000])
def test_a_zip_is_read_up_to_a_size(declared: int | None) -> None:
    """Whatever it declares, no more than that is unpacked."""
    with zipfile.ZipFile(io.BytesIO(zipped("a.wav", declared))) as archive:
        with pytest.raises((ArchiveError, zipfile.BadZipFile)):
            read_zipped(archive, "a.wav", len(CONTENT) - 1)
        if declared is None:
            assert read_zipped(archive, "a.wav", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_is_read_up_to_a_size(mode: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred("a.wav", mode)), tarinfo=ShortHeader) as archive:
        [member] = archive
        with pytest.raises(ArchiveError):
            read_tarred(archive, member, len(CONTENT) - 1)
        assert read_tarred(archive, member, len(CONTENT)) == CONTENT


def test_a_header_that_fills_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile reads the name of the next file into memory, however long it says it is."""
    content = tarred("a.wav", "w:gz", type=tarfile.GNUTYPE_LONGNAME)
    monkeypatch.setattr(archives, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(content), tarinfo=ShortHeader) as archive:
        archive.getmembers()
    long_name = "a" * 500
    with tarfile.open(fileobj=io.BytesIO(tarred(long_name, "w:gz")), tarinfo=ShortHeader) as archive:
        assert archive.getnames() == [long_name]


def test_a_download_with_too_large_a_file_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped("a.wav"))
    entry = Download(path).find("a.wav")
    assert read(entry) == CONTENT
    monkeypatch.setattr(read_zipped, "__defaults__", (1000,))
    with pytest.raises(UserError, match=r"a\.zip") as error:
        read(entry)
    assert "\n" not in str(error.value)


def test_an_archive_within_a_package_is_read_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"usr/a.zip": zipped("a.wav"), "usr/b.tar.xz": tarred("b.wav", "w:xz")}
    assert [path for path, _ in unlabelled.recordings(files)] == ["usr/a.zip/a.wav", "usr/b.tar.xz/b.wav"]
    monkeypatch.setattr(read_zipped, "__defaults__", (1000,))
    monkeypatch.setattr(read_tarred, "__defaults__", (1000,))
    assert list(unlabelled.recordings(files)) == []


def test_a_file_that_is_too_large_does_not_hide_the_others_of_its_zip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_zipped, "__defaults__", (1000,))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, size in (("a.wav", 10), ("b.wav", 1001), ("c.wav", 1000)):
            archive.writestr(name, bytes(size))
    found = unlabelled.recordings({"usr/x.zip": content.getvalue()})
    assert [(path, len(data)) for path, data in found] == [("usr/x.zip/a.wav", 10), ("usr/x.zip/c.wav", 1000)]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_package_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n")
    (root / "a.wav").write_bytes(CONTENT)
    deb = tmp_path / "x_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
    assert debian.read_files(deb, lambda path: path == "a.wav") == {"a.wav": CONTENT}
    monkeypatch.setattr(debian, "MAX_PACKAGE_BYTES", len(CONTENT) - 1)
    assert debian.read_files(deb, lambda path: path == "b.wav") == {}
    with pytest.raises(PackageError, match=r"x_1_all\.deb"):
        debian.read_files(deb, lambda path: path == "a.wav")
