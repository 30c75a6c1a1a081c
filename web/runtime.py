"""ONNX Runtime for browsers: downloaded once from the npm registry, checked, and the needed files of it unpacked."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.assets import AssetError, resources_dir
from models.download import download
from models.errors import UserError
from models.files import replacing_folder

MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Package:
    """A release of a package of the npm registry, and which of its files are needed."""

    name: str
    version: str
    size: int  # bytes of the archive
    sha512: str  # of the archive; in base64 it is what the registry and lock files of npm call integrity
    files: tuple[str, ...]  # paths in the archive
    registry: str = "https://registry.npmjs.org"

    @property
    def url(self) -> str:
        return f"{self.registry}/{self.name}/-/{self.name}-{self.version}.tgz"

    @property
    def folder(self) -> Path:
        """Where its files lie, or will lie, by their own names."""
        return resources_dir() / f"{self.name}-{self.version}"


# for graphics cards; the page fetches them when it is asked to compute there
GRAPHICS = ("package/dist/ort.webgpu.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.asyncify.wasm")
RUNTIME = Package(
    name="onnxruntime-web",
    version="1.30.0",
    size=33106585,
    sha512="ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
    files=(
        "package/dist/ort.wasm.bundle.min.mjs",
        "package/dist/ort-wasm-simd-threaded.wasm",
        *GRAPHICS,
    ),
)


def fetch(package: Package = RUNTIME) -> list[Path]:
    """Return the files of a package, after a download if they are not there; the folder appears when it is complete.

    Raises `AssetError` where there is no network, and for an archive that is not the release.
    """
    folder = package.folder
    paths = [folder / PurePosixPath(name).name for name in package.files]
    if folder.is_dir():
        if missing := [path.name for path in paths if not path.is_file()]:
            raise AssetError(f"{folder} lacks {' and '.join(missing)}; put it there, or remove the folder to download it again")
    else:
        try:
            with replacing_folder(folder) as temporary:
                archive = temporary / "package.tgz"
                download(package.url, archive, folder.name, package.size)
                _check(archive, package)
                _unpack(archive, package, temporary)
                archive.unlink()
        except UserError as error:
            raise AssetError(f"the download of {package.url} was refused and removed: {error}") from error
        except OSError as error:
            names = " and ".join(path.name for path in paths)
            raise AssetError(
                f"{folder.name} is neither in {folder.parent} nor could it be downloaded from {package.url} "
                f"({getattr(error, 'reason', None) or error}); without a network, put {names} of that package into {folder}"
            ) from error
    return paths


def _check(archive: Path, package: Package) -> None:
    if (found := hashlib.sha512(archive.read_bytes()).hexdigest()) != package.sha512:
        raise AssetError(f"its SHA-512 is {found:.16}... instead of {package.sha512:.16}...")


def _unpack(archive: Path, package: Package, folder: Path) -> None:
    """Write the needed files into a folder under their last names; no other name in the archive is used."""
    with tarfile.open(archive) as tar:
        for name in package.files:
            member = tar.getmember(name)
            if not member.isfile() or member.size > MAX_FILE_BYTES:
                raise AssetError(f"{name} in it is no file of up to {MAX_FILE_BYTES} bytes")
            (folder / PurePosixPath(name).name).write_bytes(tar.extractfile(member).read())
