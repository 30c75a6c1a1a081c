"""Where exported models are: bundled with the code, or in a cache that is filled on first use. Nothing here imports torch.

The name of an exported file in the cache has the hash of its checkpoint, so another checkpoint of the same name is exported again.
"""

from __future__ import annotations

import glob
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

from models import assets
from models.assets import AssetError
from models.errors import install_command
from models.registry import BUNDLED, PRETRAINED, full_name

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # of exported files; files of another version in the cache are exported again
WEIGHTS = ("float32", "float16", "int8")  # how a file keeps the network's weights; it always computes in float32
METADATA_KEY = "efficientat"
EXPORT_REQUIREMENTS = ("torch", "onnx")
_SCRIPT = Path(__file__).resolve().parents[2] / "export.py"


class ExportError(AssetError):
    """A model that cannot be exported here."""


def cache_dirs() -> list[Path]:
    """Return the folders of models that were exported on first use: below the downloads, and in the user's cache."""
    return [folder / "onnx" for folder in (assets.resources_dir(), assets.user_cache_dir())]


def cache_dir() -> Path:
    """Return the folder to export to: onnx/ in the folder of downloads or, where nobody can write there, in the user's cache."""
    first, own = cache_dirs()
    there = next(folder for folder in (first, *first.absolute().parents) if folder.exists())
    if os.access(there, os.W_OK):
        return first
    logger.warning("%s cannot be written to, so models are exported to %s", there, own)
    return own


def exported(name: str | os.PathLike[str]) -> Path:
    """Return the exported file of a model, which is exported if there is none; a path ending in .onnx is returned as it is.

    Raises `ValueError` for an unknown name, `FileNotFoundError` for a missing path and `ExportError` where exporting fails or
    is impossible with what is installed.
    """
    name = full_name(os.fspath(name))
    if name.endswith(".onnx"):
        return Path(name)
    bundled = assets.BUNDLED_DIR / f"{name}.onnx"
    if name in BUNDLED and bundled.is_file():
        return bundled
    checkpoint = assets.checkpoint_path(name)
    stem = name if name in PRETRAINED or name in BUNDLED else checkpoint.stem
    if checkpoint.is_file():
        file = f"{stem}-{assets.content_hash(checkpoint)[:16]}-v{FORMAT_VERSION}.onnx"
        if known := [folder / file for folder in cache_dirs() if (folder / file).is_file()]:
            return known[0]
        path = cache_dir() / file
        _export(name, path)
        return path
    if name not in PRETRAINED:
        raise FileNotFoundError(f"checkpoint {checkpoint} not found; give the path of a file or the name of a model")
    # Released files never change, so an exported file stays valid when its checkpoint is removed.
    downloads, _ = cache_dirs()
    if known := sorted(downloads.glob(f"{glob.escape(stem)}-{'?' * 16}-v{FORMAT_VERSION}.onnx")):
        return known[0]
    _require_exporter(name)
    logger.info("downloading %s", name)
    temporary = downloads / f"{stem}-{os.getpid()}.onnx"
    try:
        _export(name, temporary)  # which downloads the checkpoint, whose hash the name needs
        path = temporary.with_name(f"{stem}-{assets.content_hash(checkpoint)[:16]}-v{FORMAT_VERSION}.onnx")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _require_exporter(name: str) -> None:
    missing = [package for package in EXPORT_REQUIREMENTS if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(
            f"{name} has not been exported yet and that needs {' and '.join(missing)}: {install_command()}, or run "
            f"export.py --model_name {name} --output model.onnx elsewhere and give the path of the file; without both, use the "
            f"bundled model {', '.join(BUNDLED)}"
        )


def _export(name: str, path: Path) -> None:
    """Run export.py in another process, so that this one does not import torch."""
    _require_exporter(name)
    assets.sweep(path.parent)
    logger.info("exporting %s for ONNX Runtime to %s; this is done once", name, path)
    exporter = [str(_SCRIPT)] if assets.IS_CHECKOUT else ["-m", "efficientat.export"]
    command = [sys.executable, *exporter, "--model_name", name, "--output", str(path), "--compare"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"export.py ended with code {result.returncode}"]
        raise ExportError(
            f"{name} could not be exported to {path.parent} (EFFICIENTAT_RESOURCES names another folder): "
            + lines[-1].removeprefix("error: ")
        )
