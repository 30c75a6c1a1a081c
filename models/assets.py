"""Release assets: found in the resources folder, else downloaded, checked, and only then given their name."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import files
from models.errors import IS_CHECKOUT, UserError
from models.registry import BUNDLED, PRETRAINED, RELEASE_URL, full_name

BUNDLED_DIR = Path(__file__).resolve().parent.parent / "resources"
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


def release_url(published: str = RELEASE_URL) -> str:
    """Return the address below which assets lie, ending in "/": EFFICIENTAT_RELEASE_URL, for all, else the published one."""
    url = os.environ.get("EFFICIENTAT_RELEASE_URL") or published
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
    release: str = RELEASE_URL,
) -> Path:
    """Return the path of `asset`, of the release at an address, in the resources folder, downloading it first if it is not there.

    A download must have `size` bytes (None: `max_bytes` at most) and the hash `sha256`, where they are known; then `check(path)`
    raises for a file that is not what it should be. It sees the download under a temporary name, which is removed when anything
    fails, so that the asset's own name never stands for a damaged file. What killed downloads left is removed an hour later, by the
    next download. A file that is there already is the user's: it is returned as it is. Raises `AssetError`.
    """
    path = resources_dir() / asset
    if path.is_file():
        return path
    from models.download import download  # its modules take 20 ms to import

    url = release_url(release) + urllib.parse.quote(asset, safe="()+")
    try:
        sweep(path.parent)
        with files.replacing(path) as temporary:
            try:
                download(url, temporary, asset, size or max_bytes)
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
    import hashlib  # loads OpenSSL, which the bundled model does not need

    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def checkpoint_path(name: str) -> Path:
    """Return where the checkpoint of a released or bundled model lies, or will lie, or a path as it is.

    Raises `UserError` for what is neither a name nor looks like a path.
    """
    name = full_name(name)
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
