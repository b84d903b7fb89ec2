"""Info bars: drawn here on textures, real ones, and pictures that only look like it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_alibi_seg.data import KINDS, find_info_bar, open_image, synthesize

SHAPE = (400, 512)


def texture(shape=SHAPE, seed=0) -> np.ndarray:
    """Something like a micrograph, uint8."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), 4)
    smooth /= np.abs(smooth).max()
    return np.clip(120 + 90 * smooth + rng.normal(0, 9, shape), 0, 255).astype(np.uint8)


def text(rows: int, n: int, seed=1) -> np.ndarray:
    """A line of n made-up characters of 5 x 7 cells, (rows, n * width) bool."""
    rng = np.random.default_rng(seed)
    glyphs = []
    for _ in range(n):
        glyph = rng.random((7, 5)) < 0.35
        glyph[:, 0] = glyph[0] = True  # in one piece, and as high as the line
        glyphs.append(np.pad(glyph, ((0, 0), (0, 2))))
    return np.kron(np.hstack(glyphs), np.ones((rows // 7, rows // 7), bool)) > 0


def bar(
    n_cols=SHAPE[1], *, rows=40, level=0, ink=255, ruler=True, n_text=24
) -> np.ndarray:
    """Plain with a line of text and a ruler, uint8."""
    out = np.full((rows, n_cols), level, np.uint8)
    if n_text:
        line = text(14, n_text)
        out[12:26, 20 : 20 + line.shape[1]][line] = ink
    if ruler:
        out[17:21, n_cols - 110 : n_cols - 30] = ink
    return out


def with_bar(drawn: np.ndarray, *, at="bottom", shape=SHAPE) -> np.ndarray:
    image = texture(shape)
    image[-len(drawn) :] = drawn
    return image if at == "bottom" else image[::-1]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=quality)
    return np.array(Image.open(file))


def rows_of(image: np.ndarray, **options) -> tuple[int, int] | None:
    found = find_info_bar(open_image(image, **options))
    if found is None:
        return None
    assert (found.x0, found.x1) == (0, image.shape[1])
    return found.y0, found.y1


# ------------------------------------------------------------------------------- found


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(bar(), id="dark"),
        pytest.param(bar(level=255, ink=0), id="light"),
        pytest.param(bar(level=60, ink=230), id="grey"),
        pytest.param(bar(ruler=False), id="text only"),
        pytest.param(bar(n_text=3), id="little text"),
        pytest.param(np.pad(bar(rows=34), 3, constant_values=255)[:, 3:-3], id="frame"),
    ],
)
@pytest.mark.parametrize(
    ("at", "rows"), [("bottom", (360, 400)), ("top", (0, 40))], ids=["bottom", "top"]
)
def test_bar_is_found_to_the_row(drawn, at, rows):
    image = with_bar(drawn, at=at)
    assert rows_of(image) == rows
    assert rows_of(image.astype(np.uint16) * 257) == rows
    assert rows_of(image.astype(np.float32) / 255 - 0.5) == rows


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("level", [0, 255], ids=["dark", "light"])
def test_bar_survives_compression(level, quality):
    image = jpeg(with_bar(bar(level=level, ink=255 - level)), quality)
    y0, y1 = rows_of(image)
    assert abs(y0 - 360) <= 2
    assert y1 == 400


def test_text_may_be_brighter_than_a_dim_16_bit_picture():
    image = with_bar(np.zeros((40, SHAPE[1]), np.uint8)).astype(np.uint16) * 40 + 900
    image[360:] = bar().astype(np.uint16) * 257
    assert rows_of(image) == (360, 400)


def test_colour_and_alpha_do_not_matter():
    grey = with_bar(bar())
    rgb = np.stack([grey, grey // 2, 255 - grey // 3], axis=-1)
    rgb[360:] = np.where(bar()[..., None] > 0, [255, 220, 0], [0, 0, 90])
    assert rows_of(rgb) == (360, 400)
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)
    assert rows_of(rgba) == (360, 400)


def test_rows_of_the_picture_below_a_bar_belong_to_it():
    image = with_bar(bar())
    image[-2:] = texture(seed=5)[-2:]
    assert rows_of(image) == (360, 400)


def test_bar_on_a_picture_that_is_black_there():
    image = np.zeros(SHAPE, np.uint8)
    image[60:250, 100:400] = texture()[60:250, 100:400]
    image[360:] = bar()
    y0, y1 = rows_of(image)
    assert y1 == 400
    assert 250 < y0 < 372, "all of the writing, nothing of the sample"


class Recorder:
    """Reads from a source and keeps which rows were wanted."""

    def __init__(self, source):
        self.source, self.windows = source, []

    def read(self, window):
        self.windows.append(window)
        return self.source.read(window)


@pytest.mark.parametrize(
    ("image", "starts"),
    [
        pytest.param(with_bar(bar(), shape=(6000, 512)), [5232], id="bar"),
        pytest.param(texture((6000, 512)), [5232, 0], id="no bar"),
    ],
)
def test_only_rows_near_the_ends_are_read(image, starts):
    source = open_image(image)
    recorder = Recorder(source)
    find_info_bar(replace(source, _reader=recorder))
    assert [w.y0 for w in recorder.windows] == starts
    assert {w.shape for w in recorder.windows} == {(768, 512)}


# --------------------------------------------------------------------------- not found


def padded(value):
    image = texture()
    image[360:] = value
    return image


def dusty():
    image = padded(0)
    specks = np.random.default_rng(3).random((40, SHAPE[1])) < 0.01
    image[360:][specks] = 255
    return image


def fading():
    image = texture().astype(float)
    return (image * np.clip(np.linspace(8, -1, 400), 0, 1)[:, None]).astype(np.uint8)


def discs_on_black():
    rng = np.random.default_rng(4)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE, np.uint8)
    for _ in range(60):
        y, x, r = rng.integers(400), rng.integers(512), rng.integers(4, 12)
        image[(yy - y) ** 2 + (xx - x) ** 2 < r * r] = 255
    return image


def overlay():
    image = texture()
    line = text(14, 24)
    image[372:386, 20 : 20 + line.shape[1]][line] = 255
    return image


NOT_BARS = {
    "texture": texture(),
    "padded with black": padded(0),
    "padded with white": padded(255),
    "dust on black": dusty(),
    "fading to black": fading(),
    "binary": (texture() > 120).astype(np.uint8) * 255,
    "grey levels": texture() // 64 * 64,
    "discs on black": discs_on_black(),
    "text over the picture": overlay(),
    "constant": np.zeros(SHAPE, np.uint8),
    "not a number": np.full(SHAPE, np.nan, np.float32),
    "bar on a side": np.ascontiguousarray(np.rot90(with_bar(bar()))),
    "bar cut away": with_bar(bar())[:360],
    "bar amid the picture": np.concatenate([with_bar(bar()), texture()]),
    "tiny": with_bar(bar())[-47:, -60:],
    "one row": texture()[:1],
}


@pytest.mark.parametrize("name", NOT_BARS)
def test_no_bar_is_seen_in(name):
    image = NOT_BARS[name]
    assert rows_of(image) is None
    assert rows_of(np.ascontiguousarray(image[::-1])) is None


@pytest.mark.parametrize("kind", KINDS)
def test_no_bar_is_seen_in_samples(kind):
    for seed in range(3):
        assert rows_of(synthesize(kind, (256, 256), seed=seed).image) is None


# -------------------------------------------------------------------------------- real

# Looked at one by one.
WITH_BAR = {
    "nanocomposite": (lambda n: n >= 23, (771, 819)),
    "zircon_bse": (lambda n: True, (764, 819)),
    "zircon_cl": (lambda n: True, (768, 819)),
}


def test_real_micrographs(shared_dir):
    files = sorted((shared_dir / "data" / "unlabelled").glob("*.jpg"))
    found, expected = {}, {}
    for path in files:
        family, number = path.stem.rsplit("_", 1)
        has_bar, rows = WITH_BAR.get(family, (lambda n: False, None))
        expected[path.name] = rows if has_bar(int(number)) else None
        window = find_info_bar(open_image(path))
        found[path.name] = None if window is None else (window.y0, window.y1)
    assert len([rows for rows in expected.values() if rows]) == 49
    assert found == expected


def test_no_bar_is_seen_in_other_real_images(shared_dir):
    data = shared_dir / "data"
    files = [
        *(data / "public").glob("*/images/*"),
        *(data / "homogeneous").iterdir(),
        *(data / "large").iterdir(),
    ]
    assert len(files) > 20
    for path in files:
        options = {"plane": 16} if "electrode" in path.name else {}
        assert find_info_bar(open_image(path, **options)) is None, path.name
