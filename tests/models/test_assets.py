"""Downloads against a server that misbehaves: what arrives is right, or nothing is left behind."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import socket
import time
from pathlib import Path

import pytest
import torch

from models import assets, checkpoints, download
from models.assets import AssetError
from models.checkpoints import CheckpointError
from models.config import Arch
from models.registry import BUNDLED, PRETRAINED, RELEASE_URL

ASSET = PRETRAINED["mn01_as"].asset


def assert_equal_states(state, expected) -> None:
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name


def test_default_folder_and_address(monkeypatch):
    for unset in (lambda name: monkeypatch.delenv(name, raising=False), lambda name: monkeypatch.setenv(name, "")):
        unset("EFFICIENTAT_RESOURCES")
        unset("EFFICIENTAT_RELEASE_URL")
        assert assets.resources_dir() == Path(assets.__file__).resolve().parents[1] / "resources"
        assert assets.release_url() == RELEASE_URL
    assert RELEASE_URL.endswith("/")


def test_fresh_download_then_no_more_questions(release, resources, left_in, mn01_state, mn01_bytes):
    release.files[ASSET] = mn01_bytes
    assert_equal_states(checkpoints.load("mn01_as").state, mn01_state)
    assert left_in(resources) == [ASSET]
    assert (resources / ASSET).read_bytes() == mn01_bytes
    assert_equal_states(checkpoints.load_model("mn01_as").state_dict(), mn01_state)
    assert release.paths == [f"/release/{ASSET}"]


def test_file_put_there_by_hand_is_used_without_the_server(release, resources, mn01_state, mn01_bytes):
    resources.mkdir(parents=True)
    (resources / ASSET).write_bytes(mn01_bytes)
    assert_equal_states(checkpoints.load("mn01_as").state, mn01_state)
    assert release.paths == []


def test_architecture_of_a_released_model_needs_no_download(release):
    assert checkpoints.architecture("mn10_as_mels_40")[1].n_mels == 40
    assert release.paths == []


@pytest.mark.parametrize(("name", "ending"), [("mn40_as(3)", ""), ("mn40_as_no_im_pre(2)", "/")])
def test_parentheses_in_asset_names_and_an_address_with_or_without_slash(name, ending, release, resources, left_in, monkeypatch):
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", release.url.rstrip("/") + ending)
    asset = PRETRAINED[name].asset
    release.files[asset] = b"weights"
    path = assets.fetch(asset, check=lambda path: None)
    assert path == resources / asset and path.read_bytes() == b"weights"
    assert release.paths == [f"/release/{asset}"] and left_in(resources) == [asset]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("faults", [[300_000, 1000], [0]], ids=str)
def test_a_transfer_resumes_after_its_connection_is_cut(faults, ranges, release, resources, left_in, mn01_state, mn01_bytes):
    assert len(mn01_bytes) > 301_000
    release.files[ASSET] = mn01_bytes
    release.ranges, release.faults = ranges, list(faults)
    assert_equal_states(checkpoints.load("mn01_as").state, mn01_state)
    assert (resources / ASSET).read_bytes() == mn01_bytes
    assert left_in(resources) == [ASSET]
    assert len(release.paths) == len(faults) + 1
    if faults[0]:
        assert release.range_headers[1] == f"bytes={faults[0]}-"  # what has arrived is not fetched twice


def test_a_transfer_resumes_after_its_connection_stalls(release, resources, left_in, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    release.files["a.pt"] = bytes(range(256)) * 100
    release.faults = ["stall"]
    start = time.monotonic()
    assert assets.fetch("a.pt", check=lambda path: None).read_bytes() == release.files["a.pt"]
    assert time.monotonic() - start < 10  # the server itself gives up after 20 s
    assert left_in(resources) == ["a.pt"]


def test_connection_that_is_always_cut_leaves_nothing(release, resources, left_in, mn01_bytes):
    release.files[ASSET] = mn01_bytes
    release.always = 100
    with pytest.raises(AssetError):
        checkpoints.load("mn01_as")
    assert left_in(resources) == []
    assert 1 < len(release.paths) < 10
    release.always = None  # and the next call is not in its way
    checkpoints.load("mn01_as")
    assert left_in(resources) == [ASSET]


class Evil:
    """Pickles to a call that creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def legacy(content) -> bytes:
    """What `torch.save` wrote before torch 1.6."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def wrong_bodies(mn01_bytes, pickled, random_state) -> dict[str, bytes]:
    """What a server may send in place of the weights of mn01_as."""
    flipped = bytearray(mn01_bytes)
    flipped[len(flipped) // 2] ^= 0xFF
    state = random_state(Arch(527, 0.1))
    first = next(iter(state))
    return {
        "empty": b"",
        "text": b"Not Found",
        "web page": b"<!DOCTYPE html>\n<html><body>Sign in to the network</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "cut legacy file": legacy(state)[:-1000],
        "cut": mn01_bytes[: len(mn01_bytes) * 2 // 3],
        "bit flip": bytes(flipped),
        "other width": pickled(random_state(Arch(527, 0.2))),
        "other head": pickled(random_state(Arch(527, 0.1, head_type="fully_convolutional"))),
        "other class count": pickled(random_state(Arch(10, 0.1))),
        "one tensor less": pickled({name: tensor for name, tensor in state.items() if name != first}),
        "wrong shape": pickled({**state, first: state[first].flatten()}),
        "not a tensor": pickled({**state, first: [1.0]}),
        "not finite": pickled({**state, first: state[first] / 0}),
        "a list": pickled([1, 2, 3]),
    }


def test_download_that_is_not_what_it_should_be_is_refused_and_removed(wrong_bodies, release, resources, left_in, subtests):
    for kind, body in wrong_bodies.items():
        release.files[ASSET] = body
        with subtests.test(kind):
            with pytest.raises(AssetError) as caught:
                checkpoints.load("mn01_as")
            assert release.url in str(caught.value)
            assert left_in(resources) == []


def test_wrong_file_put_there_by_hand_is_a_checkpoint_error(wrong_bodies, release, resources, left_in, subtests):
    resources.mkdir(parents=True)
    for kind in wrong_bodies.keys() - {"bit flip"}:  # checksums are verified once, when downloaded
        (resources / ASSET).write_bytes(wrong_bodies[kind])
        with subtests.test(kind):
            with pytest.raises(CheckpointError) as caught:
                checkpoints.load("mn01_as")
            assert ASSET in str(caught.value) or "mn01_as" in str(caught.value)
            assert left_in(resources) == [ASSET]  # the user's file is the user's
    assert release.paths == []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", ["torch", "torch legacy", 0, 2, 4])
def test_pickle_that_would_execute_code_is_refused(protocol, release, resources, left_in, tmp_path, pickled):
    marker = tmp_path / "executed"
    content = {"features.0.0.weight": Evil(marker)}
    if protocol == "torch":
        body = pickled(content)
    elif protocol == "torch legacy":
        body = legacy(content)
    else:
        body = pickle.dumps(content, protocol)
    release.files[ASSET] = body
    with pytest.raises(AssetError):
        checkpoints.load("mn01_as")
    assert not marker.exists()
    assert left_in(resources) == []
    (tmp_path / "own.pt").write_bytes(body)
    with pytest.raises(CheckpointError):
        checkpoints.load(tmp_path / "own.pt")
    assert not marker.exists()


@pytest.mark.parametrize("status", [404, 403, 500])
def test_server_that_refuses(status, release, resources, left_in):
    if status != 404:
        release.status = status
    with pytest.raises(AssetError) as caught:
        checkpoints.load("mn01_as")
    assert release.url + ASSET in str(caught.value)
    assert left_in(resources) == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_server_down_names_address_folder_and_a_remedy(closed_port, resources, left_in, monkeypatch):
    url = f"http://127.0.0.1:{closed_port}/release/"
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", url)
    with pytest.raises(AssetError) as caught:
        checkpoints.load("mn01_as")
    message = str(caught.value)
    assert url + ASSET in message and str(resources) in message
    assert any(name in message for name in BUNDLED)
    assert left_in(resources) == []


def test_release_in_a_folder(resources, tmp_path, monkeypatch, mn01_state, mn01_bytes):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / ASSET).write_bytes(mn01_bytes)
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", folder.as_uri())
    assert_equal_states(checkpoints.load("mn01_as").state, mn01_state)
    with pytest.raises(AssetError):
        checkpoints.load("mn02_as")
    asset = PRETRAINED["mn40_as(3)"].asset
    (folder / asset).write_bytes(b"weights")
    assert assets.fetch(asset, check=lambda path: None).read_bytes() == b"weights"


@pytest.mark.parametrize("url", ["http://[bad/", "ftp://127.0.0.1/", "data:text/plain,", "/somewhere", "127.0.0.1:80"])
def test_other_schemes_are_refused(url, resources, left_in, monkeypatch):
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", url)
    with pytest.raises(AssetError, match="EFFICIENTAT_RELEASE_URL"):
        checkpoints.load("mn01_as")
    assert left_in(resources) == []


def fail(*_args, **_kwargs):
    raise OSError(errno.EROFS, "Read-only file system")


def test_full_disk_leaves_nothing(release, resources, left_in, monkeypatch):
    """The disk takes the first part of the file and no more."""

    class Full(io.FileIO):
        def write(self, data) -> int:
            if self.tell():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(download, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(download, "open", Full, raising=False)
    release.files["a.pt"] = bytes(5000)
    with pytest.raises(AssetError, match="No space left"):
        assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == []


def test_what_killed_downloads_left_is_removed_later(release, resources, left_in):
    resources.mkdir(parents=True)
    old, recent, other, mine = (
        resources / name for name in (".a.pt.0123abcd.part", ".a.pt.4567cdef.part", ".b.pt.0123abcd.part", ".a.pt.x.part")
    )
    for path in (old, recent, other, mine):
        path.write_bytes(b"half")
    for path in (old, other, mine):
        os.utime(path, (0, time.time() - 2 * 3600))
    release.files["a.pt"] = b"weights"
    assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == sorted(["a.pt", recent.name, mine.name])


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_does_not_end_is_cut_off(announced, release, resources, left_in):
    release.files["a.pt"] = bytes(3_000_000)
    release.announced = announced
    with pytest.raises(AssetError, match="1000000") as error:
        assets.fetch("a.pt", check=lambda path: None, max_bytes=1_000_000)
    assert release.url + "a.pt" in str(error.value)
    assert left_in(resources) == [] and len(release.paths) == 1


def test_a_body_that_drips_ends_in_an_error(release, resources, left_in, monkeypatch):
    """Each byte comes before the connection counts as lost."""
    monkeypatch.setattr(download, "SLOWEST_S", 0.2)
    release.files["a.pt"] = bytes(1000)
    release.always = "drip"
    start = time.monotonic()
    with pytest.raises(AssetError, match=r"a\.pt.*http"):
        assets.fetch("a.pt", check=lambda path: None)
    assert time.monotonic() - start < 10 and left_in(resources) == []
    monkeypatch.setattr(download, "SLOWEST_BYTES", 1)  # now it is fast enough
    monkeypatch.setattr(download, "DEADLINE_S", 0.5)
    with pytest.raises(AssetError, match=r"http.*a\.pt.*0\.5 s"):
        assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == []


def test_headers_that_drip_end_in_an_error(release, resources, left_in, monkeypatch):
    monkeypatch.setattr(download, "ANSWER_S", 0.5)
    release.always = "drip headers"
    release.files["a.pt"] = b"weights"
    with pytest.raises(AssetError, match=r"a\.pt.*0\.5 s"):
        assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == []


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a.pt", "data:text/plain,x", "http://[bad/"])
def test_redirects_to_anything_but_the_web_are_refused(target, release, resources, left_in):
    release.redirect = target
    with pytest.raises(AssetError) as error:
        assets.fetch("a.pt", check=lambda path: None)
    assert release.url + "a.pt" in str(error.value) and left_in(resources) == []


def test_a_redirect_within_the_web_is_followed(release, resources):
    release.files["b.pt"] = b"weights"
    release.redirect = release.url + "b.pt"
    assert assets.fetch("a.pt", check=lambda path: None).read_bytes() == b"weights"


@pytest.mark.parametrize("status", [201, 204, 206, 300])
def test_other_answers_are_refused(status, release, resources, left_in):
    release.files["a.pt"] = b"weights"
    release.success = status
    with pytest.raises(AssetError, match=r"a\.pt.*http"):
        assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == []


def test_another_part_than_the_missing_one_is_not_appended(release, resources, left_in):
    release.files["a.pt"] = bytes(range(256)) * 100
    release.faults, release.shift = [1000], 1
    with pytest.raises(AssetError):
        assets.fetch("a.pt", check=lambda path: None)
    assert left_in(resources) == []


@pytest.mark.parametrize(("size", "sha256"), [(6, None), (None, "0" * 64), (8, None)])
def test_size_and_hash_are_those_of_the_registry(size, sha256, release, resources, left_in):
    release.files["a.pt"] = b"weights"
    with pytest.raises(AssetError, match="http"):
        assets.fetch("a.pt", lambda path: None, size, sha256)
    assert left_in(resources) == []
    assert assets.fetch("a.pt", lambda path: None, 7, hashlib.sha256(b"weights").hexdigest()).is_file()


def test_a_download_of_other_bytes_than_the_released_ones_is_refused(release, resources, left_in, pickled, random_state):
    """Though they are fitting weights."""
    entry = PRETRAINED["mn04_as"]
    release.files[entry.asset] = pickled(random_state(entry.arch))
    with pytest.raises(AssetError, match="http"):
        checkpoints.load("mn04_as")
    assert left_in(resources) == []


def test_interrupted_download_leaves_nothing(release, resources, left_in):
    def interrupt(path: Path) -> None:
        assert path.read_bytes() == b"weights"
        raise KeyboardInterrupt

    release.files["a.pt"] = b"weights"
    with pytest.raises(KeyboardInterrupt):
        assets.fetch("a.pt", check=interrupt)
    assert left_in(resources) == []


def test_resources_folder_that_is_a_file_is_an_asset_error(release, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "file"))
    with pytest.raises(AssetError):
        assets.fetch("a.pt", check=lambda path: None)
    assert (tmp_path / "file").read_text() == "in the way"


def test_read_only_resources_folder_is_an_asset_error(release, resources, monkeypatch):
    """On a read-only file system even removing a file that is not there fails."""
    resources.mkdir(parents=True)
    release.files["a.pt"] = b"weights"
    monkeypatch.setattr(download, "open", fail, raising=False)
    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr(os, "unlink", fail)
    monkeypatch.setattr(os, "remove", fail)
    with pytest.raises(AssetError):
        assets.fetch("a.pt", check=lambda path: None)
