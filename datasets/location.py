"""Where the folders of data sets are."""

import os
from dataclasses import dataclass
from pathlib import Path

_CODE = Path(__file__).resolve().parents[1]


def data_dir(name: str) -> Path:
    """Return a data set's default folder: data/NAME next to the code in a checkout, in the working directory if installed."""
    root = _CODE if (_CODE / "pyproject.toml").is_file() else Path.cwd()
    return root / "data" / name


@dataclass(frozen=True)
class Location:
    """How the folder of a data set is found, and what an error advises where it is not."""

    name: str  # of its default folder
    variable: str  # environment variable
    advice: str  # how to get the data into the default folder, which replaces "{default}"

    @property
    def default(self) -> Path:
        return data_dir(self.name)

    @property
    def remedies(self) -> str:
        """What a user can do where something is missing."""
        return f"pass --dataset_dir, set {self.variable}, or {self.advice.format(default=self.default)}"

    def resolve(self, dataset_dir: str | Path | None = None) -> Path:
        """Return the folder: `dataset_dir`, else the environment variable, else the default.

        Raises FileNotFoundError when it is not a folder.
        """
        folder = Path(dataset_dir or os.environ.get(self.variable) or self.default).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"folder {folder} not found; {self.remedies}")
        return folder
