"""How the folder of a data set is found."""

import os
from pathlib import Path


def find_dir(dataset_dir: str | Path | None, variable: str, default: Path, advice: str) -> Path:
    """Folder of a data set: `dataset_dir`, else the environment variable, else `default`.

    Raises FileNotFoundError, with the advice, when it is not a folder.
    """
    folder = Path(dataset_dir or os.environ.get(variable) or default).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} not found; pass --dataset_dir, set {variable}, or {advice}")
    return folder
