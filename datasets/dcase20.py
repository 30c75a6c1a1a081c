"""TAU Urban Acoustic Scenes 2020 Mobile, development set: 10 scenes in clips of 10 s, by several devices in several cities.

The folder is that of the original download: audio/, meta.csv and evaluation_setup/fold1_{train,test,evaluate}.csv.
"""

from pathlib import Path, PurePosixPath

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


def training_set(
    dataset_dir: str | Path | None = None,
    *,
    sample_rate: int = 32000,
    clip_seconds: float | None = CLIP_SECONDS,
    cache_dir: str | Path | None = None,
) -> Recordings:
    """The 13,965 clips of fold1_train.csv.

    Raises FileNotFoundError for a missing folder, table or recording, ValueError for a damaged table; likewise `test_set`.
    """
    return _open(dataset_dir, "train", sample_rate, clip_seconds, cache_dir)


def test_set(
    dataset_dir: str | Path | None = None,
    *,
    sample_rate: int = 32000,
    clip_seconds: float | None = CLIP_SECONDS,
    cache_dir: str | Path | None = None,
) -> Recordings:
    """The 2,970 clips of fold1_evaluate.csv, the fold's test files with their scenes."""
    return _open(dataset_dir, "evaluate", sample_rate, clip_seconds, cache_dir)


def city_by_name(dataset_dir: str | Path | None, part: str) -> dict[str, str]:
    """City of each clip of fold1_<part>.csv ("train" or "evaluate") by the clip's name; errors as `read_list`."""
    return {
        PurePosixPath(row["filename"]).name: city_of(row["identifier"]) for row in read_list(LOCATION.resolve(dataset_dir), part)
    }


def device_of(filename: str) -> str:
    """Device of a file such as audio/airport-barcelona-0-0-a.wav (scene, city, location, segment, device): here "a".

    Raises ValueError for a name of another form or a device that is none of `DEVICES`.
    """
    parts = PurePosixPath(filename).stem.split("-")
    if len(parts) != 5 or parts[-1] not in DEVICES:
        raise UserError(f"{filename!r} is not scene-city-location-segment-device.wav with a device of {', '.join(DEVICES)}")
    return parts[-1]


def city_of(identifier: str) -> str:
    """City of a recording location such as barcelona-203: what is before '-'. ValueError for another form."""
    city, dash, _ = identifier.partition("-")
    if not (city and dash):
        raise UserError(f"{identifier!r} is not city-location, as meta.csv has it")
    return city


def read_list(folder: Path, part: str) -> list[dict[str, str]]:
    """Rows of fold1_<part>.csv ("train" or "evaluate"): filename, scene_label and, from meta.csv, identifier and source_label.

    Raises FileNotFoundError, and ValueError for what contradicts the form of the tables or is not in meta.csv.
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


def _open(
    dataset_dir: str | Path | None, part: str, sample_rate: int, clip_seconds: float | None, cache_dir: str | Path | None
) -> Recordings:
    folder = LOCATION.resolve(dataset_dir)
    rows = read_list(folder, part)
    files = [row["filename"] for row in rows]
    return Recordings(
        [folder / file for file in files],
        one_hot([SCENES.index(row["scene_label"]) for row in rows], NUM_CLASSES),
        [PurePosixPath(file).name for file in files],
        sample_rate=sample_rate,
        clip_seconds=clip_seconds,
        cache_dir=cache_dir,
    )
