"""The package for browsers: fetched once, checked, and only what is needed of it unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from models.assets import AssetError
from web.runtime import RUNTIME, Package, fetch


def archive(**links: str) -> bytes:
    """A package with two files, of which `links` are symbolic links instead, and two that nobody asks for."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in ("package/dist/a.mjs", "package/dist/b.wasm", "package/more.txt", "../escaped.txt"):
            member = tarfile.TarInfo(name)
            if name in links:
                member.type, member.linkname = tarfile.SYMTYPE, links[name]
            else:
                member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return content.getvalue()


@pytest.fixture
def publish(tmp_path: Path, empty_resources: Path):
    """Put an archive into a registry, a folder; return the package that it is the right one of."""

    def published(content: bytes) -> Package:
        path = tmp_path / "registry" / "some" / "-" / "some-1.0.tgz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = hashlib.sha512(content).hexdigest()
        files = ("package/dist/a.mjs", "package/dist/b.wasm")
        return Package("some", "1.0", len(content), digest, files, (tmp_path / "registry").as_uri())

    return published


def test_only_named_files_are_unpacked_and_later_runs_need_no_network(publish, tmp_path: Path, empty_resources: Path) -> None:
    package = publish(archive())
    files = fetch(package)
    assert [path.read_text() for path in files] == list(package.files)
    assert sorted(path.name for path in empty_resources.rglob("*")) == ["a.mjs", "b.wasm", "some-1.0"]
    assert not list(tmp_path.rglob("escaped.txt"))
    assert fetch(replace(package, registry=(tmp_path / "gone").as_uri())) == files


@pytest.mark.parametrize("attack", ["other bytes", "more bytes", "link"])
def test_what_is_not_the_release_is_refused_and_leaves_nothing(attack: str, publish, empty_resources: Path) -> None:
    content = archive()
    package = publish(content)
    if attack == "other bytes":
        package = replace(package, sha512=hashlib.sha512(b"").hexdigest())
    elif attack == "more bytes":
        package = replace(package, size=len(content) - 1)
    else:
        package = publish(archive(**{"package/dist/b.wasm": "/etc/passwd"}))
    with pytest.raises(AssetError) as error:
        fetch(package)
    assert "\n" not in str(error.value) and package.url in str(error.value)
    assert list(empty_resources.iterdir()) == []


def test_without_a_network_one_line_says_where_the_files_go(publish, tmp_path: Path, empty_resources: Path) -> None:
    package = replace(publish(archive()), registry=(tmp_path / "gone").as_uri())
    with pytest.raises(AssetError, match="a.mjs and b.wasm"):
        fetch(package)


def test_a_folder_that_lacks_a_file_is_one_line(publish, empty_resources: Path) -> None:
    package = publish(archive())
    package.folder.mkdir(parents=True)
    (package.folder / "a.mjs").touch()
    with pytest.raises(AssetError, match=r"lacks b\.wasm"):
        fetch(package)


def test_the_release_is_pinned() -> None:
    assert len(RUNTIME.sha512) == 128 and RUNTIME.version in RUNTIME.url and RUNTIME.url.startswith("https://registry.npmjs.org/")
