r"""Build small image sets in ImageNet's layout, train/<class>/ and val/<class>/, for ex_imagenet.py.

    python -m datasets.prepare.characters digits --output_dir data/digits
    python -m datasets.prepare.characters letters --fonts_dir data/aenigma --output_dir data/letters

digits: the 1797 handwritten digits, 8 x 8 pixels, that scikit-learn ships (E. Alpaydin and C. Kaynak, UCI, 1998). They seem to come
one writer after the other, and the last fifth is validated on, so that its writers are probably new.

letters: 26 letters, upper and lower case in one class, and ten digits, drawn in white on black with the fonts (.ttf, .otf) below
--fonts_dir; Debian's package fonts-aenigma has 465 very different ones. One font family in five is validated on.
"""

import argparse
import hashlib
import io
import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from datasets.images import PARTS
from datasets.prepare.command_line import command_parser
from models.command import run
from models.errors import UserError
from models.files import replacing_folder

if TYPE_CHECKING:
    from PIL import ImageFont

SIZE = 64  # side of a letter's image in pixels
MARGIN = 4  # pixels around a letter
FONT_SIZE = 96  # at which letters are drawn, before they are brought to the size of the image
VALIDATION_SHARE = 5  # one in so many


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("characters", __doc__)
    parser.add_argument("data_set", choices=("digits", "letters"), help="which set")
    parser.add_argument("--fonts_dir", type=Path, help="folder of the fonts that letters are drawn with")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the images; returns 0. Raises OSError, and UserError where a folder holds something already, or no fonts."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.data_set == "letters") != (args.fonts_dir is not None):
        parser.error("letters need --fonts_dir, digits do not")
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        raise UserError(f"{args.output_dir} is not empty; remove it, or give another --output_dir")
    images = digits() if args.data_set == "digits" else letters(args.fonts_dir)
    counts = dict.fromkeys(PARTS, 0)
    with replacing_folder(args.output_dir) as folder:
        for part, label, name, pixels in images:
            path = folder / part / label / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(pixels))
            counts[part] += 1
    print(f"{args.output_dir}: {counts['train']} images to train, {counts['val']} to validate on")
    return 0


def digits() -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Part, class, name and pixels (8, 8) uint8 of each of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    first_validated = len(data.images) - len(data.images) // VALIDATION_SHARE
    for i, (image, digit) in enumerate(zip(data.images, data.target, strict=True)):
        part = PARTS[i >= first_validated]
        yield part, str(digit), f"{i:04d}", np.round(image * (255 / 16)).astype(np.uint8)


def letters(fonts_dir: Path) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Part, class, name and pixels (SIZE, SIZE) uint8 of each character of each font; those that are blank are left out."""
    paths = sorted(path for path in fonts_dir.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))
    if not paths:
        raise UserError(f"{fonts_dir} holds no fonts (.ttf, .otf); unpack a package there, such as Debian's fonts-aenigma")
    from PIL import ImageFont

    for path in tqdm(paths, unit="font", disable=None):
        try:
            font = ImageFont.truetype(path, FONT_SIZE)
        except OSError as error:
            raise UserError(f"{path} is not a readable font: {error}") from error
        part = PARTS[_hashed(family(font.getname()[0] or path.stem)) % VALIDATION_SHARE == 0]
        for character in string.ascii_letters + string.digits:
            pixels = drawn(font, character)
            if pixels is not None:
                case = "upper" if character.isupper() else "lower"
                yield part, character.upper(), f"{path.stem}_{case}", pixels


def family(name: str) -> str:
    """The first word of a font's name: "Ataxia Outline" is of one family with "Ataxia"."""
    return name.lower().split()[0]


def drawn(font: "ImageFont.FreeTypeFont", character: str) -> np.ndarray | None:
    """A character, white on black, as large as it fits into (SIZE, SIZE) uint8; None where the font has no ink for it."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(character)
    glyph = Image.new("L", (max(int(right - left), 1), max(int(bottom - top), 1)))
    ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=font)
    if not glyph.getbbox():
        return None
    glyph = glyph.crop(glyph.getbbox())
    scale = (SIZE - 2 * MARGIN) / max(glyph.size)
    glyph = glyph.resize([max(round(side * scale), 1) for side in glyph.size])
    image = Image.new("L", (SIZE, SIZE))
    image.paste(glyph, ((SIZE - glyph.width) // 2, (SIZE - glyph.height) // 2))
    return np.asarray(image)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _hashed(text: str) -> int:
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)


if __name__ == "__main__":
    run(main)
