"""Images resized: upright, within the box, bare of what else the file said; and what is none is told in a line."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any  # what Pillow's writers take

import pytest
from PIL import Image, ImageCms

from penstock_jobs.media import ImageResize
from services.media.images import Pillow
from services.media.ports import Made, Refused
from tests.support.clips import a_bomb

RED = (200, 0, 0)


def an_image(
    mode: str = "RGB", kind: str = "JPEG", size: tuple[int, int] = (100, 60), color: Any = RED, **how: Any
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind, **how)
    return file.getvalue()


def resized(data: bytes, max_pixels: int = 1_000_000, **wanted: Any) -> tuple[Made, Image.Image]:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(data)
        source.flush()
        job = ImageResize.model_validate({"folder": "a", "source": "b", "width": 40, "height": 40} | wanted)
        made = Pillow(max_pixels).resize(source.fileno(), target.fileno(), job)
        target.seek(0)
        image = Image.open(io.BytesIO(target.read()))
        image.load()
        return made, image


@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    ("mode", "kind", "color"),
    [
        ("RGB", "JPEG", RED),
        ("L", "JPEG", 100),
        ("CMYK", "JPEG", (0, 255, 255, 55)),
        ("RGB", "PNG", RED),
        ("RGBA", "PNG", (200, 0, 0, 255)),
        ("LA", "PNG", (100, 255)),
        ("I;16", "PNG", 100 * 256),
        ("1", "PNG", 1),
        ("P", "GIF", 1),
        ("RGB", "BMP", RED),
        ("RGB", "TIFF", RED),
        ("F", "TIFF", 100.0),
        ("RGBA", "WEBP", (200, 0, 0, 255)),
    ],
)
def test_whatever_is_read_is_written_in_every_format(mode: str, kind: str, color: Any, wanted: str) -> None:
    data = an_image(mode, kind, color=color)
    made, image = resized(data, format=wanted)
    assert made == Made(40, 24)
    assert (image.size, image.format) == ((40, 24), wanted.upper())
    expected = Image.open(io.BytesIO(data))
    if mode not in ("I;16", "F"):  # Pillow cuts those off at 255 when it converts them
        near(image.convert("RGB").getpixel((20, 12)), expected.convert("RGB").getpixel((50, 30)))
    else:
        near(image.convert("RGB").getpixel((20, 12)), (100, 100, 100))


def near(found: Any, expected: Any) -> None:
    assert all(abs(one - other) <= 4 for one, other in zip(found, expected, strict=True)), (found, expected)


@pytest.mark.parametrize(("size", "box", "becomes"), [((10, 6), (500, 500), (10, 6)), ((3, 1000), (5, 5), (1, 5))])
def test_it_fits_into_the_box_and_is_never_enlarged(
    size: tuple[int, int], box: tuple[int, int], becomes: tuple[int, int]
) -> None:
    _, image = resized(an_image(size=size), width=box[0], height=box[1])
    assert image.size == becomes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_taken_on_its_side_is_put_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (100, 60), "white")
    picture.paste(RED, (0, 0, 100, 30))
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    _, image = resized(file.getvalue(), format="png", width=30, height=50)
    assert image.size == (30, 50)
    near(image.getpixel((25, 25)), RED)  # its top was at the right
    near(image.getpixel((4, 25)), (255, 255, 255))


@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp"])
def test_nothing_of_what_the_file_said_beside_the_picture_is_left(wanted: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Camera", {0x9003: "2026:08:03 10:00:00"}
    data = an_image(exif=exif, comment=b"secret place")
    assert b"secret place" in data
    _, image = resized(data, format=wanted)
    assert not image.getexif()
    assert not {"comment", "exif", "xmp"} & image.info.keys()


def test_the_profile_of_its_colours_stays_with_it() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, image = resized(an_image(icc_profile=profile))
    assert image.info["icc_profile"] == profile
    _, grey = resized(an_image("L", color=100, icc_profile=profile))
    assert "icc_profile" not in grey.info


def test_what_is_transparent_stays_so_or_becomes_white() -> None:
    clear = an_image("RGBA", "PNG", color=(0, 0, 0, 0))
    for wanted, pixel in (("png", (0, 0, 0, 0)), ("jpeg", (255, 255, 255))):
        assert resized(clear, format=wanted)[1].getpixel((0, 0)) == pixel


def test_the_same_image_gives_the_same_bytes() -> None:
    data = an_image()
    assert resized(data)[1].tobytes() == resized(data)[1].tobytes()


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"This is no image.", "it is no image of a format that is read: JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (b"", "it is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
        (_half(an_image(size=(600, 600))), "image file is truncated"),
        (_half(an_image(kind="PNG", size=(600, 600))), "broken PNG|truncated"),
        (a_bomb(40, 40), "truncated"),
        (a_bomb(1001, 1000), r"it is 1001x1000, and at most 1000000 pixels \(MEDIA_MAX_IMAGE_PIXELS\) are taken"),
        (a_bomb(12_000, 12_000), "it is 12000x12000"),
        (a_bomb(50_000, 50_000), "2500000000 pixels"),
    ],
    ids=["text", "nothing", "eps", "half-jpeg", "half-png", "hollow", "large", "larger", "bomb"],
)
def test_what_is_no_image_is_refused_in_a_line(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        resized(data)
    assert "\n" not in str(caught.value)


def test_a_disk_that_cannot_be_read_or_written_is_no_fault_of_the_image() -> None:
    job = ImageResize(folder="a", source="b", width=40, height=40)
    with tempfile.TemporaryFile() as source, Path("/dev/full").open("wb") as full:
        source.write(an_image())
        source.flush()
        with pytest.raises(OSError, match="No space left"):
            Pillow(1_000_000).resize(source.fileno(), full.fileno(), job)
        with pytest.raises(OSError, match="Bad file descriptor"):
            Pillow(1_000_000).resize(full.fileno(), source.fileno(), job)
