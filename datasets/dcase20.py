"""TAU Urban Acoustic Scenes 2020 Mobile, development set: 10 scenes in clips of 10 s, by several devices in several cities.

The folder is that of the original download: audio/, meta.csv and evaluation_setup/fold1_{train,test,evaluate}.csv.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from datasets.csv_table import read_table
from datasets.location import Location
from datasets.recordings import Recordings, one_hot
from models.errors import UserError

SCENES = (
    "airport", "bus", "metro", "metro_station", "park",
    "public_square", "shopping_mall", "street_pedestrian", "street_traffic", "tram",
)  # fmt: skip
NUM_CLASSES = len(SCENES)
CLIP_SECONDS = 10.0
DEVICES = ("a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6")
LOCATION = Location("dcase20", "DCASE20_DIR", "build it in {default} with python -m datasets.prepare.dcase20")


def training_set(dataset_dir: str | Path | None = None, **options: Any) -> Recordings:
    """The 13,965 clips of fold1_train.csv; `options` are those of `Recordings`.

    Raises FileNotFoundError for a missing folder, table or recording, UserError for a damaged table; likewise `test_set`.
    """
    return _open(dataset_dir, "train", options)


def test_set(dataset_dir: str | Path | None = None, **options: Any) -> Recordings:
    """The 2,970 clips of fold1_evaluate.csv, the fold's test files with their scenes; `options` are those of `Recordings`."""
    return _open(dataset_dir, "evaluate", options)


def city_by_name(dataset_dir: str | Path | None, part: str) -> dict[str, str]:
    """City of each clip of fold1_<part>.csv ("train" or "evaluate") by the clip's name; errors as `read_list`."""
    return {
        PurePosixPath(row["filename"]).name: city_of(row["identifier"]) for row in read_list(LOCATION.resolve(dataset_dir), part)
    }


def device_of(filename: str) -> str:
    """Device of a file such as audio/airport-barcelona-0-0-a.wav (scene, city, location, segment, device): here "a".

    Raises UserError for a name of another form or a device that is none of `DEVICES`.
    """
    parts = PurePosixPath(filename).stem.split("-")
    if len(parts) != 5 or parts[-1] not in DEVICES:
        raise UserError(f"{filename!r} is not scene-city-location-segment-device.wav with a device of {', '.join(DEVICES)}")
    return parts[-1]


def city_of(identifier: str) -> str:
    """City of a recording location such as barcelona-203: what is before '-'. UserError for another form."""
    city, dash, _ = identifier.partition("-")
    if not (city and dash):
        raise UserError(f"{identifier!r} is not city-location, as meta.csv has it")
    return city


def read_list(folder: Path, part: str) -> list[dict[str, str]]:
    """Rows of fold1_<part>.csv ("train" or "evaluate"): filename, scene_label and, from meta.csv, identifier and source_label.

    Raises FileNotFoundError, and UserError for what contradicts the form of the tables or is not in meta.csv.
    """
    meta_columns = ("filename", "scene_label", "identifier", "source_label")
    meta = {row["filename"]: row for row in read_table(folder / "meta.csv", meta_columns, delimiter="\t", advice=LOCATION.remedies)}
    path = folder / "evaluation_setup" / f"fold1_{part}.csv"
    listed = read_table(path, ("filename", "scene_label"), delimiter="\t", advice=LOCATION.remedies)
    if not listed or len({row["filename"] for row in listed}) < len(listed):
        raise UserError(f"{path} is empty or names a file twice; fetch it again")
    rows = []
    for row in listed:
        name = row["filename"]
        if meta.get(name, {}).get("scene_label") != row["scene_label"]:
            raise UserError(f"{path}: {name} with scene {row['scene_label']} is not in meta.csv; fetch both again")
        if row["scene_label"] not in SCENES or PurePosixPath(name).parts != ("audio", PurePosixPath(name).name):
            raise UserError(f"{path}: {name} is not audio/<file> of one of the scenes {', '.join(SCENES)}")
        device_of(name), city_of(meta[name]["identifier"])  # which raise
        rows.append(meta[name])
    return rows


def _open(dataset_dir: str | Path | None, part: str, options: dict[str, Any]) -> Recordings:
    folder = LOCATION.resolve(dataset_dir)
    rows = read_list(folder, part)
    paths = [folder / row["filename"] for row in rows]
    targets = one_hot([SCENES.index(row["scene_label"]) for row in rows], NUM_CLASSES)
    return Recordings(paths, targets, [path.name for path in paths], **{"clip_seconds": CLIP_SECONDS} | options)
