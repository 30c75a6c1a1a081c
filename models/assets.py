"""Release assets: found in the resources folder, else downloaded, checked, and only then given their name."""

from __future__ import annotations

import difflib
import http.client
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from models import files
from models.errors import IS_CHECKOUT, UserError
from models.registry import BUNDLED, PRETRAINED, RELEASE_URL

logger = logging.getLogger(__name__)

BUNDLED_DIR = Path(__file__).resolve().parent.parent / "resources"
ATTEMPTS = 3  # a transfer whose connection breaks resumes where it stopped
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0
LEFTOVER_S = 24 * 3600.0  # after which an unfinished download is that of a process that was killed


class AssetError(UserError):
    """A file that cannot be downloaded, or is not what it should be."""


def resources_dir() -> Path:
    """Return the folder of downloads: EFFICIENTAT_RESOURCES, else resources/ of the checkout, else ~/.cache/efficientat."""
    if folder := os.environ.get("EFFICIENTAT_RESOURCES"):
        return Path(folder)
    if IS_CHECKOUT:  # else nothing is written next to the code
        return BUNDLED_DIR
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


def fetch(asset: str, check: Callable[[Path], None]) -> Path:
    """Return the path of `asset` in the resources folder, downloading it first if it is not there.

    `check(path)` raises for a file that is not what it should be; it sees the download under a temporary name, which is removed
    when anything fails, so that the asset's own name never stands for a damaged file. What a killed download left is removed a
    day later, by the next one of the same asset. Raises `AssetError`.
    """
    path = resources_dir() / asset
    if path.is_file():
        return path
    url = release_url() + urllib.parse.quote(asset, safe="()")
    try:
        files.remove_leftovers(path, LEFTOVER_S)
        with files.replacing(path) as temporary:
            _download(url, temporary, asset)
            try:
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


def _download(url: str, path: Path, description: str) -> None:
    """Write `url` to `path` with a progress bar; a connection that breaks is resumed, `ATTEMPTS` times at most."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, path, description)
            return
        except urllib.error.HTTPError:
            raise  # the server answered; asking again changes nothing
        except (OSError, http.client.HTTPException) as error:
            connected = path.exists()
            if attempt == ATTEMPTS or not connected:
                raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
            logger.warning("%s: connection lost (%s), trying again", description, error)


def _transfer(url: str, path: Path, description: str) -> None:
    """Fetch what is missing of `path` and check the length that the server announced."""
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if done and response.status != 206:  # the server sends everything again
            done = 0
        announced = response.headers.get("Content-Length")
        total = done + int(announced) if announced else None
        with (
            open(path, "ab" if done else "wb") as file,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=description, leave=False) as bar,
        ):
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


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
