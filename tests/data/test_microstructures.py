"""The sample generator: exact, repeatable, varied, and learnable but not trivial."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from napari_alibi_seg._base import PixelSize, SettingsError, Window
from napari_alibi_seg.data import open_image
from napari_alibi_seg.data._detector import Detector, correlated_noise, detect
from napari_alibi_seg.data._microstructures import KINDS, synthesize
from napari_alibi_seg.data._strokes import draw_scribbles

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "sample_data"

CLASSES = {
    "spinodal": ("dark phase", "bright phase"),
    "precipitates": ("matrix", "large precipitate", "fine precipitate"),
    "grains": ("ferrite", "pearlite", "grain boundary"),
    "fibres": ("matrix", "fibre", "void"),
    "graded": ("metal", "ceramic", "pore"),
}


def test_kinds_are_the_documented_ones() -> None:
    assert tuple(CLASSES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_micrograph_holds_what_it_says(kind: str) -> None:
    sample = synthesize(kind, (150, 201), seed=4)
    assert sample.kind == kind
    assert sample.class_names == CLASSES[kind]
    assert sample.image.shape == sample.mask.shape == (150, 201)
    assert (sample.image.dtype, sample.mask.dtype) == (np.uint8, np.uint8)
    assert np.unique(sample.mask).tolist() == [i + 1 for i in range(len(CLASSES[kind]))]
    assert sample.pixel_size.unit == "um"
    assert sample.pixel_size.y == sample.pixel_size.x > 0


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels_other_seed_other_pixels(kind: str) -> None:
    one, again, other = (synthesize(kind, (96, 96), seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.mask, again.mask)
    assert np.mean(one.mask != other.mask) > 0.1


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(64, 200), st.integers(64, 200)),
    seed=st.integers(0, 2**32),
)
def test_every_class_shows_in_every_field(
    kind: str, shape: tuple[int, int], seed: int
) -> None:
    mask = synthesize(kind, shape, seed=seed).mask
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES[kind]) + 1) / mask.size
    assert shares[0] == 0
    assert shares[1:].min() >= 0.003


@pytest.mark.parametrize("kind", KINDS)
def test_classes_differ_in_grey_but_overlap(kind: str) -> None:
    """Something to learn, yet no threshold that does it: the noise sees to that."""
    sample = synthesize(kind, (384, 384), seed=7)
    image, mask = sample.image.astype(float), sample.mask
    pixels = [image[mask == i] for i in range(1, mask.max() + 1)]
    means = sorted(p.mean() for p in pixels)
    spread = np.mean([p.std() for p in pixels])
    assert means[-1] - means[0] > 0.8 * spread
    assert np.diff(means).min() < 3 * spread


def test_without_noise_and_drift_a_phase_is_nearly_one_grey() -> None:
    noisy = synthesize("spinodal", (256, 256), seed=3)
    clean = synthesize("spinodal", (256, 256), seed=3, noise=0, drift=0)
    assert np.array_equal(noisy.mask, clean.mask)
    core = ndimage.binary_erosion(clean.mask == 2, iterations=3)
    assert clean.image[core].std() < 0.6 * noisy.image[core].std()


def test_half_the_pixel_size_shows_features_twice_as_large() -> None:
    def lines(pixel_size_um: float) -> float:
        seeds = range(6)
        masks = [
            synthesize("spinodal", (384, 384), seed=s, pixel_size_um=pixel_size_um).mask
            for s in seeds
        ]
        return float(np.mean([np.mean(m[:, 1:] != m[:, :-1]) for m in masks]))

    assert lines(0.05) / lines(0.025) == pytest.approx(2, rel=0.15)


def test_sixteen_bits_hold_a_twelve_bit_range() -> None:
    image = synthesize("fibres", (128, 128), bits=16).image
    assert image.dtype == np.uint16
    assert 255 < image.max() <= 4095
    assert np.unique(image).size > 256


def test_graded_phase_fraction_follows_position() -> None:
    left, right = [], []
    for seed in range(6):
        mask = synthesize("graded", (256, 256), seed=seed).mask
        ends = sorted(np.mean(part == 2) for part in (mask[:, :64], mask[:, -64:]))
        left.append(ends[0])
        right.append(ends[1])
        # Pores are the control: they occur on both sides.
        assert min(np.mean(mask[:, :128] == 3), np.mean(mask[:, 128:] == 3)) > 0
    assert np.mean(right) - np.mean(left) > 0.4


def test_fine_precipitates_never_touch_large_ones() -> None:
    mask = synthesize("precipitates", (300, 300), seed=2).mask
    near_large = ndimage.binary_dilation(mask == 2)
    assert not (near_large & (mask == 3)).any()
    _, n_fine = ndimage.label(mask == 3)
    _, n_large = ndimage.label(mask == 2)
    assert n_fine > n_large > 5


def test_grains_are_separated_by_their_boundaries() -> None:
    mask = synthesize("grains", (300, 300), seed=2).mask
    _, n_grains = ndimage.label(mask != 3)
    assert n_grains > 10
    # Neighbouring pixels never pass from ferrite to pearlite directly.
    for one, two in ((mask[:, :-1], mask[:, 1:]), (mask[:-1], mask[1:])):
        assert not ((one != two) & (one != 3) & (two != 3)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"kind": "foam"}, "`kind` must be one of", id="kind"),
        pytest.param({"shape": (63, 64)}, "`shape` must be", id="small"),
        pytest.param({"shape": (64, 64, 3)}, "`shape` must be", id="3-d"),
        pytest.param({"noise": -1}, "`noise` must lie", id="noise"),
        pytest.param({"drift": float("nan")}, "`drift` must lie", id="drift"),
        pytest.param({"bits": 12}, "`bits` must be 8 or 16", id="bits"),
        pytest.param({"seed": -1}, "`seed` must be", id="seed"),
        pytest.param({"pixel_size_um": 0.0}, "0.00625 to 0.1", id="pixel"),
        pytest.param({"pixel_size_um": float("inf")}, "got inf", id="pixel-inf"),
        pytest.param(
            {"kind": "grains", "shape": (64, 64), "pixel_size_um": 0.025},
            "too small to show all of",
            id="field",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        synthesize(**({"kind": "spinodal"} | arguments))


def _shot_noise(signal: float, dose: float) -> float:
    detector = Detector(1.0, dose, 0.0, 0.0, 0.0, 16)
    flat = np.full((256, 256), signal)
    return float(detect(flat, detector, np.random.default_rng(0)).std() / 4095)


def test_shot_noise_follows_poisson_statistics() -> None:
    assert _shot_noise(0.5, 100) == pytest.approx(np.sqrt(0.5 / 100), rel=0.03)
    assert _shot_noise(0.2, 400) == pytest.approx(np.sqrt(0.2 / 400), rel=0.03)


def test_drift_is_slow_and_streaks_run_along_rows() -> None:
    flat = np.full((256, 256), 0.5)
    image = detect(
        flat, Detector(1.0, np.inf, 0.0, 0.0, 0.1, 16), np.random.default_rng(0)
    ).astype(float)
    along = np.abs(np.diff(image, axis=1)).mean()
    across = np.abs(np.diff(image, axis=0)).mean()
    assert across > 10 * along
    slow = detect(
        flat, Detector(1.0, np.inf, 0.0, 0.1, 0.0, 16), np.random.default_rng(0)
    ).astype(float)
    assert slow.std() > 200
    assert np.abs(np.diff(slow, axis=0)).max() < 40


def test_point_spread_blurs_an_edge_by_its_width() -> None:
    edge = np.zeros((64, 64))
    edge[:, 32:] = 1.0
    image = detect(
        edge, Detector(2.0, np.inf, 0.0, 0.0, 0.0, 16), np.random.default_rng(0)
    )
    row = image[30] / 4095
    # A Gaussian edge rises from 16 % to 84 % within two standard deviations.
    assert np.sum((row > 0.159) & (row < 0.841)) == 4


def test_correlated_noise_has_the_wanted_period() -> None:
    field = correlated_noise((512, 512), np.random.default_rng(0), 32.0, bandwidth=0.1)
    power = np.abs(np.fft.rfft2(field)) ** 2
    ky, kx = np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :]
    radius = np.sum(np.hypot(ky, kx) * power) / power.sum()
    assert 1 / radius == pytest.approx(32, rel=0.08)


# ---------------------------------------------------------------- strokes


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    width=st.integers(1, 9),
    strokes=st.integers(1, 5),
)
def test_strokes_lie_wholly_inside_their_class(
    kind: str, seed: int, width: int, strokes: int
) -> None:
    mask = synthesize(kind, (128, 140), seed=seed).mask
    painted = draw_scribbles(mask, strokes_per_class=strokes, width=width, seed=seed)
    on = painted > 0
    assert np.array_equal(painted[on], mask[on])
    assert np.unique(painted[on]).tolist() == np.unique(mask).tolist()


def test_strokes_are_sparse_and_repeatable() -> None:
    mask = synthesize("spinodal", (256, 256)).mask
    one, again, other = (draw_scribbles(mask, seed=s) for s in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert 0.001 < np.mean(one > 0) < 0.02


def test_number_of_strokes_and_width_do_what_they_say() -> None:
    mask = np.ones((300, 300), np.uint8)
    for n in (1, 4):
        painted = draw_scribbles(mask, strokes_per_class=n, width=3)
        assert ndimage.label(painted, structure=np.ones((3, 3)))[1] == n
    thin, wide = (np.sum(draw_scribbles(mask, width=w) > 0) for w in (1, 7))
    assert wide > 4 * thin
    core = ndimage.distance_transform_edt(draw_scribbles(mask, width=7))
    assert 3 <= core.max() <= 5


def test_region_keeps_strokes_inside_it() -> None:
    mask = synthesize("graded", (200, 250)).mask
    painted = draw_scribbles(mask, region=Window(0, 200, 0, 100))
    assert not painted[:, 100:].any()
    assert np.unique(painted).tolist() == [0, 1, 2, 3]


def test_class_absent_from_region_gets_no_stroke() -> None:
    mask = np.ones((64, 64), np.uint8)
    mask[:, 40:] = 2
    painted = draw_scribbles(mask, region=Window(0, 64, 0, 30))
    assert np.unique(painted).tolist() == [0, 1]


def test_unlabelled_and_ignored_pixels_get_no_stroke() -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[:20] = 0
    mask[30:50] = 7
    assert np.unique(draw_scribbles(mask)).tolist() == [0, 7]


def test_fine_particles_are_dabbed_one_after_another() -> None:
    mask = np.ones((120, 120), np.uint8)
    y, x = np.indices(mask.shape)
    mask[(y % 12 - 6) ** 2 + (x % 12 - 6) ** 2 <= 6] = 2
    painted = draw_scribbles(mask, strokes_per_class=1)
    assert ndimage.label(painted == 2)[1] >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"mask": np.ones(5, np.uint8)}, "got shape", id="1-d"),
        pytest.param({"mask": np.ones((5, 5))}, "dtype float64", id="float"),
        pytest.param({"mask": np.full((5, 5), 300)}, "ids 0 to 255", id="ids"),
        pytest.param({"width": 0}, "`width` must be 1", id="width"),
        pytest.param({"strokes_per_class": 0}, "`strokes_per_class`", id="strokes"),
        pytest.param({"region": Window(0, 9, 70, 80)}, "must overlap", id="region"),
    ],
)
def test_wrong_scribble_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        draw_scribbles(**({"mask": np.ones((64, 64), np.uint8)} | arguments))


# ---------------------------------------------------------------- sample_data


def _pixel_hash(path: Path) -> str:
    if path.suffix == ".tif":
        pixels = open_image(path).read(Window(0, 384, 0, 384))
    else:
        pixels = np.asarray(Image.open(path))
    header = f"{pixels.dtype.str} {pixels.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def fresh_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("samples")
    module.main(folder)
    return folder


def test_sample_data_is_what_the_script_makes(fresh_samples: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        files = [p for p in folder.iterdir() if p.suffix in {".tif", ".png"}]
        return {p.name: _pixel_hash(p) for p in sorted(files)}

    committed = hashes(SAMPLES)
    assert len(committed) == 3 * len(KINDS)
    assert hashes(fresh_samples) == committed


def test_writing_samples_twice_gives_the_same_bytes(
    fresh_samples: Path, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("make_again", SAMPLES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    for path in fresh_samples.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("kind", "um", "dtype"),
    [
        ("spinodal", 0.05, "uint8"),
        ("precipitates", 0.02, "uint8"),
        ("grains", 0.2, "uint8"),
        ("fibres", 0.35, "uint16"),
        ("graded", 0.5, "uint8"),
    ],
)
def test_sample_files_carry_pixel_size_and_exact_scribbles(
    kind: str, um: float, dtype: str
) -> None:
    image = open_image(SAMPLES / f"{kind}.tif")
    assert image.shape == (384, 384)
    assert image.dtype == np.dtype(dtype)
    assert isinstance(image.pixel_size, PixelSize)
    assert image.pixel_size.y == pytest.approx(um, rel=1e-6)
    assert image.pixel_size.x == pytest.approx(um, rel=1e-6)
    assert image.pixel_size.unit == "um"
    mask = np.asarray(Image.open(SAMPLES / f"{kind}_mask.png"))
    painted = np.asarray(Image.open(SAMPLES / f"{kind}_scribbles.png"))
    assert np.array_equal(painted[painted > 0], mask[painted > 0])
    assert np.unique(painted).tolist() == list(range(len(CLASSES[kind]) + 1))
    assert np.mean(painted > 0) < 0.03


def test_sample_data_is_small() -> None:
    assert sum(p.stat().st_size for p in SAMPLES.iterdir() if p.is_file()) < 1_000_000
