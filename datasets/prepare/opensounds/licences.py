"""The licences of Debian packages, by their copyright files."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

NO_NAMES = "see its copyright file"
KINDS = {
    "copyleft": r"GPL|GNU|FDL|MPL|EPL|CDDL|QPL|Artistic|\bFAL|free.?art|OFL|\bSIL\b",
    "share-alike": r"BY-(NC-)?SA|share-?alike",
    "permissive": r"expat|MIT|X11|BSD|ISC|zlib|apache|BSL|boost|CC-?0|CC[- ]BY|public.?domain|permissive|unlicense|WTFPL|FSF",
}  # the strictest first


def licences(copyright_file: bytes) -> str:
    """Short names of the licences in a machine-readable copyright file, else where to look."""
    names = re.findall(r"^License: *(\S.*)$", copyright_file.decode(errors="replace"), re.MULTILINE)
    return "; ".join(dict.fromkeys(name.strip() for name in names)) or NO_NAMES


def licence_kind(names: str) -> str:
    """The strictest kind of licence among `names`, a key of KINDS; "not stated" or "other" where none is known."""
    if names == NO_NAMES:
        return "not stated"
    return next((kind for kind, known in KINDS.items() if re.search(known, names, re.IGNORECASE)), "other")


def hours_by_kind(rows: Iterable[Mapping[str, str]]) -> str:
    """Clips and hours of rows with the columns seconds and licence, in all and by kind of licence, as lines of text.

    A package counts as its strictest licence, which need not be that of its sounds.
    """
    clips, seconds = Counter(), Counter()
    for row in rows:
        kind = licence_kind(row["licence"])
        clips[kind] += 1
        seconds[kind] += float(row["seconds"])
    kinds = [f"{kind:12} {clips[kind]:6} clips {seconds[kind] / 3600:6.2f} h" for kind in (*KINDS, "other", "not stated")]
    return "\n".join(
        [f"unlabelled: {clips.total()} clips, {seconds.total() / 3600:.2f} h; by the strictest licence of the package:", *kinds]
    )
