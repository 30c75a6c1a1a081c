"""Release assets: found in the resources folder, else downloaded, checked, and only then given their name."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import http.client
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models import files
from models.errors import IS_CHECKOUT, UserError
from models.registry import BUNDLED, PRETRAINED, RELEASE_URL

logger = logging.getLogger(__name__)

BUNDLED_DIR = Path(__file__).resolve().parent.parent / "resources"
ATTEMPTS = 3  # a transfer whose connection breaks resumes where it stopped
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0  # without any byte
ANSWER_S = 60.0  # until a server has answered, redirects included
SLOWEST_BYTES, SLOWEST_S = 50_000, 60.0  # fewer bytes in this time are a stalled connection as well
DEADLINE_S = 6 * 3600.0  # of a whole download
MAX_BYTES = 1 << 30  # of an asset whose size is not known; the largest released model has 273 MB
LEFTOVER_S = 3600.0  # after which an unfinished download is that of a process that was killed


class AssetError(UserError):
    """A file that cannot be downloaded, or is not what it should be."""


def resources_dir() -> Path:
    """Return the folder of downloads: EFFICIENTAT_RESOURCES, else resources/ of the checkout, else ~/.cache/efficientat."""
    if folder := os.environ.get("EFFICIENTAT_RESOURCES"):
        return Path(folder)
    if IS_CHECKOUT:  # else nothing is written next to the code
        return BUNDLED_DIR
    return user_cache_dir()


def user_cache_dir() -> Path:
    """Return the project's folder in the user's cache: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "efficientat"


def release_url() -> str:
    """Return the address below which the assets lie, ending in "/": EFFICIENTAT_RELEASE_URL, else the published release."""
    url = os.environ.get("EFFICIENTAT_RELEASE_URL") or RELEASE_URL
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError as error:
        raise AssetError(f"EFFICIENTAT_RELEASE_URL is no address: {url!r} ({error})") from error
    if scheme not in ("https", "http", "file"):
        raise AssetError(f"EFFICIENTAT_RELEASE_URL must begin with https://, http:// or file://, not {url!r}")
    return url.rstrip("/") + "/"


def fetch(
    asset: str,
    check: Callable[[Path], Any],
    size: int | None = None,
    sha256: str | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Return the path of `asset` in the resources folder, downloading it first if it is not there.

    A download must have `size` bytes (None: `max_bytes` at most) and the hash `sha256`, where they are known; then `check(path)`
    raises for a file that is not what it should be. It sees the download under a temporary name, which is removed when anything
    fails, so that the asset's own name never stands for a damaged file. What killed downloads left is removed an hour later, by the
    next download. A file that is there already is the user's: it is returned as it is. Raises `AssetError`.
    """
    path = resources_dir() / asset
    if path.is_file():
        return path
    url = release_url() + urllib.parse.quote(asset, safe="()")
    try:
        sweep(path.parent)
        with files.replacing(path) as temporary:
            try:
                _download(url, temporary, asset, size or max_bytes)
                _check_content(temporary, size, sha256)
                check(temporary)
            except UserError as error:
                reason = str(error).replace(os.fspath(temporary), asset)
                raise AssetError(f"the download of {url} was refused and removed: {reason}") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise AssetError(
            f"{asset} is neither in {path.parent} nor could it be downloaded from {url} ({reason}); without a network, put the "
            f"file there yourself, or use the bundled model {', '.join(BUNDLED)}"
        ) from error
    return path


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder: those not written to for `LEFTOVER_S`."""
    for leftover in folder.glob(f".*.{8 * '[0-9a-f]'}.part"):
        with contextlib.suppress(OSError):  # another process may be faster
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()


def _check_content(path: Path, size: int | None, sha256: str | None) -> None:
    if size is not None and (found := path.stat().st_size) != size:
        raise AssetError(f"it has {found} bytes instead of {size}")
    if sha256 is not None and (found := content_hash(path)) != sha256:
        raise AssetError(f"its SHA-256 is {found} instead of {sha256}")


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, path: Path, description: str, max_bytes: int) -> None:
    """Write `url` to `path` with a progress bar; a connection that breaks is resumed, `ATTEMPTS` times at most."""
    deadline = time.monotonic() + DEADLINE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, path, description, max_bytes, deadline)
            return
        except urllib.error.HTTPError:
            raise  # the server answered; asking again changes nothing
        except (OSError, http.client.HTTPException) as error:
            connected = path.exists()
            if attempt == ATTEMPTS or not connected:
                raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
            logger.warning("%s: connection lost (%s), trying again", description, error)


def _transfer(url: str, path: Path, description: str, max_bytes: int, deadline: float) -> None:
    """Fetch what is missing of `path` and check the length that the server announced."""
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with _opened(request) as response:
        if done and not _continues(response, done):  # the server sends everything again
            done = 0
        if response.status not in (200, 206 if done else 200, None):  # None: a file
            raise OSError(f"the server answered with status {response.status}")
        announced = response.headers.get("Content-Length")
        if announced is not None and not re.fullmatch(r"\d{1,18}", announced, re.ASCII):
            raise OSError(f"the server announced {announced!r:.50} bytes")
        total = done + int(announced) if announced else None
        if total is not None and total > max_bytes:
            raise AssetError(f"the server announced {total} bytes; it should have {max_bytes} at most")
        with (
            open(path, "ab" if done else "wb") as file,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=description, leave=False) as bar,
        ):
            since, received = time.monotonic(), 0
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                now = time.monotonic()
                if done > max_bytes:
                    raise AssetError(f"the server sends more than {max_bytes} bytes")
                if now > deadline:
                    raise AssetError(f"it takes more than {DEADLINE_S:g} s; {done} bytes have arrived")
                if now - since > SLOWEST_S:
                    if received < SLOWEST_BYTES:
                        raise TimeoutError(f"{received} bytes in {now - since:.0f} s")
                    since, received = now, 0
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


def _continues(response: Any, done: int) -> bool:
    """Whether an answer holds what is missing behind the first `done` bytes."""
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _opened(request: urllib.request.Request) -> Any:
    """Return the answer of a server, whose headers may not drip in for longer than `ANSWER_S` either."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if not answers:
        raise TimeoutError(f"no answer in {ANSWER_S:g} s")
    [answer] = answers
    if isinstance(answer, ValueError):  # an address, or a redirect to one, that is none
        raise OSError(f"{type(answer).__name__}: {answer}") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects from https to https, and from http to both; to nothing else, such as files of this machine."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        url = args[-1]
        if urllib.parse.urlsplit(url).scheme not in {"https", req.type}:
            raise urllib.error.URLError(f"it redirects to {url!r:.200}, which is refused")
        return super().redirect_request(req, *args)


def checkpoint_path(name: str) -> Path:
    """Return where the checkpoint of a released or bundled model lies, or will lie, or a path as it is.

    Raises `UserError` for what is neither a name nor looks like a path.
    """
    if name in PRETRAINED:
        return resources_dir() / PRETRAINED[name].asset
    if name in BUNDLED:
        return BUNDLED_DIR / BUNDLED[name]
    if Path(name).exists() or Path(name).suffix or "/" in name or os.sep in name:
        return Path(name)
    known = [*PRETRAINED, *BUNDLED]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"unknown model {name!r}; {hint}Known: {', '.join(known)}, or the path of a file (.pt or .onnx)")
