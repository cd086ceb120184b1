"""Images by Pillow, which reads only common formats, and none of more pixels than allowed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO  # what Pillow's writers take is of many types

from PIL import Image, ImageOps, UnidentifiedImageError

from penstock_jobs.media import ImageFormat, ImageResize
from services.media.ports import Made, Refused

#: What is read. Not among them is what Pillow lets other programs read, such as EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

#: The tag that says how the camera was held, and what it says when that was on its side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)

_WRITTEN: dict[ImageFormat, dict[str, Any]] = {
    "jpeg": {"quality": 85, "optimize": True},
    "png": {"optimize": True},
    "webp": {"quality": 85},
}

#: Characters of a reason.
_TOLD = 300


class Pillow:
    """See ``Images``. *max_pixels*: of a source."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def resize(self, source: int, target: int, wanted: ImageResize) -> Made:
        """See ``Images.resize``."""
        image = self._read(source, (wanted.width, wanted.height))
        if wanted.format == "jpeg":
            image = _on_white(image)
        written = io.BytesIO()
        image.save(written, wanted.format, icc_profile=image.info.get("icc_profile"), **_WRITTEN[wanted.format])
        with open(target, "wb", closefd=False) as file:
            file.write(written.getbuffer())
        return Made(image.width, image.height)

    def _read(self, source: int, box: tuple[int, int]) -> Image.Image:
        """The image in *source*, small enough for *box*. Raises ``Refused``, and ``OSError`` for the disk's errors."""
        try:
            with open(source, "rb", closefd=False) as file, self._opened(file) as image:
                return _upright(image, box)
        except (Refused, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise Refused(f"it is no image of a format that is read: {', '.join(FORMATS)}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Refused(" ".join(str(error).split())[:_TOLD] or type(error).__name__) from error

    @contextmanager
    def _opened(self, file: BinaryIO) -> Iterator[Image.Image]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it thinks of foreign bytes helps nobody, and the bound is ours
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > self._max_pixels:
                    size = f"{image.width}x{image.height}"
                    raise Refused(
                        f"it is {size}, and at most {self._max_pixels} pixels (MEDIA_MAX_IMAGE_PIXELS) are taken"
                    )
                yield image


def size_of(descriptor: int) -> tuple[int, int]:
    """The width and height of the image in the file behind *descriptor*, one of our own."""
    with open(descriptor, "rb", closefd=False) as file, Image.open(file, formats=FORMATS) as image:
        return image.size


def _upright(image: Image.Image, box: tuple[int, int]) -> Image.Image:
    """*image* as it was meant to be looked at, within *box*, with nothing but its colours beside it."""
    if image.format == "JPEG":  # made small first: only as much of it is read as that takes
        on_its_side = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
        image.thumbnail(box[::-1] if on_its_side else box)
        return _plain(ImageOps.exif_transpose(image))
    image = _plain(ImageOps.exif_transpose(image))
    image.thumbnail(box)
    return image


def _plain(image: Image.Image) -> Image.Image:
    """*image* in a mode that every format can be written in, without whatever else its file said of it."""
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    image.info = {} if profile is None else {"icc_profile": profile}
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    white.info = image.info
    return white
