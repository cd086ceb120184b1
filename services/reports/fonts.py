"""The letters of the PDFs: DejaVu where it is installed, and a word for every character that the font does not have."""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import reportlab
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from penstock import ConfigError

#: Debian's package fonts-dejavu-core: most alphabets of Europe and beyond.
DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")

#: Comes with reportlab, and has the letters of western Europe.
VERA = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"

#: From here on reportlab writes characters that cannot be copied out of the PDF again.
_BEYOND = 0x10000

#: What the bold font of a family may be called.
_BOLD = ("{}-Bold", "{}Bd")

#: What reportlab raises for a font that is cut off or damaged.
_UNREADABLE = (TTFError, OSError, struct.error, LookupError)


@dataclass(slots=True)
class Lettering:
    """A font in its two weights, with the *glyphs* it has. *replaced* gathers the characters that it does not have."""

    regular: str
    bold: str
    glyphs: Container[int]
    replaced: set[str] = field(default_factory=set)

    def line(self, text: str) -> str:
        """*text* on one line, in characters that the font has."""
        return text if text.isascii() and text.isprintable() else "".join(map(self._known, text))

    def _known(self, character: str) -> str:
        if not character.isprintable():
            return " "
        if ord(character) in self.glyphs and ord(character) < _BEYOND:
            return character
        self.replaced.add(character)
        return "?"


def lettering(font: Path | None = None) -> Lettering:
    """The TrueType *font*, else DejaVu, else Vera. Raises ``ConfigError`` for a file that is no such font."""
    path = font or (DEJAVU if DEJAVU.is_file() else VERA)
    try:
        regular, bold = _registered(path)
    except _UNREADABLE as error:
        raise ConfigError(f"REPORTS_FONT {path}: no TrueType font that can be used: {error}") from error
    return Lettering(regular.fontName, bold.fontName, regular.face.charToGlyph)


@cache
def _registered(path: Path) -> tuple[TTFont, TTFont]:
    """The font at *path* and the bold one beside it, else itself: read once, and known to reportlab by their names."""
    bold = next((found for name in _BOLD if (found := path.with_stem(name.format(path.stem))).is_file()), path)
    fonts = [TTFont(each.stem, str(each)) for each in (path, bold)]
    for font in fonts:
        pdfmetrics.registerFont(font)
    return fonts[0], fonts[1]
