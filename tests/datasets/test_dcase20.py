"""datasets.dcase20 and its preparation, on a small copy of the published layout."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import soundfile

from datasets import dcase20
from datasets.prepare import dcase20 as prepare_dcase20

NAME = "TAU-urban-acoustic-scenes-2020-mobile-development"
TRAIN = [(scene, city, device) for scene in dcase20.SCENES for city in ("barcelona", "lyon") for device in ("a", "s1")]
TEST = [(scene, city, device) for scene in dcase20.SCENES for city, device in (("lyon", "b"), ("milan", "s6"))]


def row(number: int, scene: str, city: str, device: str) -> tuple[str, str, str, str]:
    return f"audio/{scene}-{city}-{number}-{number * 40}-{device}.wav", scene, f"{city}-{number}", device


def table(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(cells) + "\n" for cells in rows))


@pytest.fixture
def development(tmp_path):
    """The folder of the download, with clips of 0.1 s in stereo."""
    folder = tmp_path / "downloads" / NAME
    train = [row(number, *entry) for number, entry in enumerate(TRAIN)]
    test = [row(number, *entry) for number, entry in enumerate(TEST, 1000)]
    unused = [row(5000, "tram", "paris", "s4")]
    table(folder / "meta.csv", [("filename", "scene_label", "identifier", "source_label"), *train, *test, *unused])
    setup = folder / "evaluation_setup"
    table(setup / "fold1_train.csv", [("filename", "scene_label"), *(cells[:2] for cells in train)])
    table(setup / "fold1_test.csv", [("filename",), *(cells[:1] for cells in test)])
    table(setup / "fold1_evaluate.csv", [("filename", "scene_label"), *(cells[:2] for cells in test)])
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    for name, *_ in [*train, *test, *unused]:
        soundfile.write(folder / name, 0.1 * rng.standard_normal((4410, 2)), 44100, subtype="PCM_24")
    return folder


def arguments(source, output_dir, *options) -> list[str]:
    return ["--source", str(source), "--output_dir", str(output_dir), *options]


def run(source, output_dir, *options) -> int:
    return prepare_dcase20.main(arguments(source, output_dir, *options))


def test_real_file_names_are_parsed():
    for name, device in (
        ("audio/airport-barcelona-0-0-a.wav", "a"),
        ("audio/metro_station-lyon-1120-33989-s1.wav", "s1"),
        ("street_pedestrian-helsinki-164-5021-c.wav", "c"),
        ("audio/public_square-milan-1101-42501-s6.wav", "s6"),
    ):
        assert dcase20.device_of(name) == device
    for name in ("audio/airport-barcelona-0-0.wav", "audio/airport-barcelona-0-0-d.wav", "airport.wav", ""):
        with pytest.raises(ValueError, match="scene-city-location-segment-device"):
            dcase20.device_of(name)
    assert [dcase20.city_of(name) for name in ("barcelona-0", "lyon-1120")] == ["barcelona", "lyon"]
    for identifier in ("barcelona", "-12", ""):
        with pytest.raises(ValueError, match="city-location"):
            dcase20.city_of(identifier)


def test_sets_devices_and_cities(development, tmp_path):
    training, test = dcase20.training_set(development), dcase20.test_set(development, cache_dir=tmp_path / "cache")
    assert (len(training), len(test)) == (40, 20)
    assert [dcase20.device_of(name) for name in training.names] == [device for _, _, device in TRAIN]
    assert [dcase20.device_of(name) for name in test.names] == ["b", "s6"] * 10
    assert dcase20.city_by_name(development, "evaluate") == dict(zip(test.names, ["lyon", "milan"] * 10, strict=True))
    assert test.names[6] == "metro_station-lyon-1006-40240-b.wav" and test.targets().argmax(1).tolist() == sorted([*range(10)] * 2)
    clip = test[6]
    assert clip.waveform.shape == (320000,) and dcase20.SCENES[int(clip.target.argmax())] == "metro_station"
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="meta.csv.*--dataset_dir.*DCASE20_DIR.*datasets.prepare.dcase20"):
        dcase20.training_set(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("meta.csv", "source_label", "device", "source_label is missing"),
        ("evaluation_setup/fold1_train.csv", "airport-barcelona-0-0-a", "../airport-barcelona-0-0-a", "not in meta.csv"),
        ("evaluation_setup/fold1_train.csv", "\tbus", "\ttram", "not in meta.csv"),
        ("meta.csv", "barcelona-0\t", "barcelona\t", "city-location"),
    ],
)
def test_damaged_tables_are_refused(development, file, old, new, message):
    path = development / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        dcase20.training_set(development)


def test_scenes_and_places_are_checked(development):
    for path in (development / "meta.csv", development / "evaluation_setup" / "fold1_train.csv"):
        path.write_text(path.read_text().replace("audio/airport", "audio/../airport"))
    with pytest.raises(ValueError, match="not audio/<file>"):
        dcase20.training_set(development)


def test_preparation_from_zips_keeps_the_originals(development, tmp_path, capsys):
    zips, wavs = tmp_path / "zips", sorted((development / "audio").iterdir())
    zips.mkdir()
    for part, files in (("audio.1", wavs[:30]), ("audio.2", wavs[30:])):
        with zipfile.ZipFile(zips / f"{NAME}.{part}.zip", "w") as archive:
            for file in files:
                archive.write(file, f"{NAME}/audio/{file.name}")
    with zipfile.ZipFile(zips / f"{NAME}.meta.zip", "w") as archive:
        for file in (development / "meta.csv", *(development / "evaluation_setup").iterdir()):
            archive.write(file, f"{NAME}/{file.relative_to(development)}")
    out = tmp_path / "out"
    assert run(zips, out) == 0
    output = capsys.readouterr()
    assert "60 of 60 clips" in output.out and "warning: 40 clips to train instead of the published 13965" in output.err
    test = dcase20.test_set(out)
    assert len(dcase20.training_set(out)) == 40 and len(test) == 20
    assert test.paths[0].read_bytes() == (development / "audio" / test.names[0]).read_bytes()
    assert not list((out / "audio").glob("*paris*"))  # outside of the fold
    test.paths[3].unlink()
    assert run(zips, out) == 0 and "1 written now" in capsys.readouterr().out


def test_preparation_resamples_on_request(development, tmp_path, capsys, failing_message):
    out = tmp_path / "out"
    (development / "audio" / "tram-milan-1019-40760-s6.wav").write_bytes(b"broken")
    assert run(development.parent, out, "--sample_rate", "32000") == 0
    assert "1 unreadable" in capsys.readouterr().out
    clips = dcase20.training_set(out)
    info = soundfile.info(clips.paths[0])
    assert (info.samplerate, info.channels, info.frames) == (32000, 1, 3200)
    np.testing.assert_allclose(clips[0].waveform, dcase20.training_set(development)[0].waveform, atol=1e-4)
    assert "another rate (32000)" in failing_message(prepare_dcase20.main, *arguments(development, out))
    assert "can be read as it is" in failing_message(prepare_dcase20.main, *arguments(development, development))
