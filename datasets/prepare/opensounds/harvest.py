"""All clips of one package: its sounds by its reader, as clips."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets.audio import AudioError
from datasets.prepare.opensounds import debian
from datasets.prepare.opensounds.audio_files import file_sounds
from datasets.prepare.opensounds.clips import EncodedClip, clips_of
from datasets.prepare.opensounds.debian import PackageError
from datasets.prepare.opensounds.signals import signal_sounds
from datasets.prepare.opensounds.soundfonts import soundfont_sounds
from datasets.prepare.opensounds.sounds import LabelledSound, Reject
from datasets.prepare.opensounds.speech import speech_sounds
from datasets.prepare.opensounds.tables import Package


@dataclass
class Harvest:
    """What came out of one package."""

    package: Package
    clips: list[EncodedClip] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)  # (package, source, reason)
    copyright: bytes = b""
    failure: str = ""


def harvest(package: Package, deb: Path | None) -> Harvest:
    """Make all clips of one package; runs in a worker process."""
    result = Harvest(package)

    def reject(source: str, reason: str) -> None:
        result.rejected.append((package.name, source, reason))

    try:
        version = debian.version_of(package, deb)
        files = debian.read_deb(package, deb) if deb else {}
        result.copyright = files.pop(debian.copyright_path(package), b"")
        for sound in sounds(package, files, reject):
            result.clips += clips_of(sound, package, version, reject)
    except (PackageError, AudioError, zipfile.BadZipFile) as error:
        result.failure = f"{package.name}: {error}"
    return result


def sounds(package: Package, files: dict[str, bytes], reject: Reject) -> Iterator[LabelledSound]:
    """All sounds of a package; `files` are those `is_needed` picks from it."""
    if package.reader == "soundfont":
        if len(files) != 1:
            raise PackageError(f"{len(files)} soundfonts in the package, needed 1")
        return soundfont_sounds(package, *files.values())
    if package.reader in ("espeak", "flite"):
        return speech_sounds(package)
    if package.reader == "signals":
        return signal_sounds(package)
    return file_sounds(package, files if package.reader == "files" else debian.unzip(package, files), reject)
