"""The files of the page: which there are, where they lie, and a copy of them for any static host."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from models.assets import BUNDLED_DIR
from models.errors import UserError
from models.files import replacing_folder
from web.runtime import fetch

STATIC = Path(__file__).resolve().parent / "static"
MODEL = "mn04_distilled"
LEGAL = ("LICENSE", "ThirdPartyNotices.txt")  # of ONNX Runtime's package for Python, which is the same code


def site_files() -> dict[str, Path]:
    """Return what each path below the page's address is; ONNX Runtime is downloaded if it is not there, see `runtime.fetch`."""
    files = {path.relative_to(STATIC).as_posix(): path for path in sorted(STATIC.rglob("*")) if path.is_file()}
    files |= {f"runtime/{path.name}": path for path in fetch()}
    files[f"models/{MODEL}.onnx"] = BUNDLED_DIR / f"{MODEL}.onnx"
    files |= {f"recordings/{path.name}": path for path in sorted((BUNDLED_DIR / "recordings").glob("*.ogg"))}
    files |= {"licences/resources.md": BUNDLED_DIR / "README.md", "licences/model.md": BUNDLED_DIR / f"{MODEL}.md"}
    onnxruntime = Path(find_spec("onnxruntime").origin).parent
    files |= {f"licences/onnxruntime/{Path(name).stem}.txt": onnxruntime / name for name in LEGAL if (onnxruntime / name).is_file()}
    return files


def write_site(folder: Path) -> None:
    """Copy the page into a new or empty folder, which appears when it is complete; `UserError` for one that holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose a new one, or remove it first")
    with replacing_folder(folder) as temporary:
        for name, path in site_files().items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
