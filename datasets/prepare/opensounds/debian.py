"""Debian packages: fetching them, and reading the files that are needed from them without unpacking them to the disk."""

import contextlib
import io
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from datasets.prepare.archives import MAX_BYTES, ArchiveError, ShortHeader, read_tarred, read_zipped
from datasets.prepare.opensounds.tables import Package, rule_for
from models.errors import UserError

MAX_PACKAGE_BYTES = 1 << 32  # of all that is read of one: an archive of 0ad-data has 3.3 GB
MAX_CONTROL_BYTES = 1 << 26  # of the archive of checksums and scripts
AUDIO_SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".mp3", ".aif", ".aiff")


class PackageError(UserError):
    """A package could not be fetched or read, or a program failed; the message is one line."""


def run_tool(*command: str | Path, cwd: str | None = None) -> str:
    """Run a program and return its standard output; PackageError with its last complaint if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackageError(f"{command[0]} failed with exit code {done.returncode}: {complaint}")
    return done.stdout


def fetch_deb(name: str, debs_dir: Path) -> Path:
    """The package file in `debs_dir`, downloaded with apt-get if it is not there yet."""
    cached = sorted(debs_dir.glob(f"{name}_*.deb"))
    if not cached:
        with tempfile.TemporaryDirectory(dir=debs_dir, prefix=".download_") as folder:
            run_tool("apt-get", "-q", "download", name, cwd=folder)
            cached = [file.rename(debs_dir / file.name) for file in Path(folder).glob("*.deb")]
    return cached[-1]


def package_version(deb: Path) -> str:
    return run_tool("dpkg-deb", "-f", deb, "Version").strip()


def version_of(package: Package, deb: Path | None) -> str:
    """Version of a package file or of the installed synthesizer; '1' for computed signals."""
    if deb:
        return package_version(deb)
    return "1" if package.reader == "signals" else run_tool("dpkg-query", "-W", "-f=${Version}", package.name)


def copyright_path(package: Package) -> str:
    return f"usr/share/doc/{package.name}/copyright"


def is_needed(path: str, package: Package) -> bool:
    """Whether a file of a package must be read: its copyright file, and what its reader uses."""
    if package.reader == "files":
        used = path.lower().endswith(AUDIO_SUFFIXES) and rule_for(path, package.name) is not None
    else:
        used = path.lower().endswith({"zip": ".pk3", "soundfont": ".sf2"}[package.reader])
    return used or path == copyright_path(package)


def checksums(deb: Path) -> dict[str, str]:
    """MD5 sums of a package's files by path, as the package itself lists them; empty where it has no list."""
    with subprocess.Popen(["dpkg-deb", "--ctrl-tarfile", deb], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        content = unpacking.stdout.read(MAX_CONTROL_BYTES)
        unpacking.kill()  # where there is more
    with contextlib.suppress(tarfile.TarError, KeyError), tarfile.open(fileobj=io.BytesIO(content), mode="r:") as members:
        lines = members.extractfile("./md5sums").read().decode(errors="replace").splitlines()
        return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines if line)}
    return {}


def read_deb(package: Package, deb: Path) -> dict[str, bytes]:
    """The files of a package that its reader needs, by path."""
    return read_files(deb, lambda path: is_needed(path, package))


def read_files(deb: Path, is_needed: Callable[[str], bool]) -> dict[str, bytes]:
    """The needed regular files of a package by path; nothing is unpacked to disk."""
    command = ["dpkg-deb", "--fsys-tarfile", deb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        files, left = {}, MAX_PACKAGE_BYTES
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|", tarinfo=ShortHeader) as members:
                for member in members:
                    path = member.name.removeprefix("./")
                    if member.isfile() and is_needed(path):
                        files[path] = read_tarred(members, member, left)
                        left -= member.size
            while unpacking.stdout.read(1 << 20):  # padding; dpkg-deb fails when nobody reads it
                pass
        except (tarfile.TarError, ArchiveError) as error:
            unpacking.kill()
            raise PackageError(f"{deb} cannot be read ({error}); remove it and run again") from error
    if unpacking.returncode:
        raise PackageError(f"{deb} cannot be read (dpkg-deb: {unpacking.returncode}); remove it and run again")
    return files


def unzip(package: Package, archives: dict[str, bytes]) -> dict[str, bytes]:
    """The labelled audio files in zip archives, by path; read in memory, so no path leads anywhere.

    Raises ArchiveError for a file that is too large, and BadZipFile.
    """
    files, left = {}, MAX_PACKAGE_BYTES
    for _, archive in sorted(archives.items()):
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            for path in members.namelist():
                if path.lower().endswith(AUDIO_SUFFIXES) and rule_for(path, package.name):
                    files[path] = read_zipped(members, path, min(left, MAX_BYTES))
                    left -= len(files[path])
    return files
