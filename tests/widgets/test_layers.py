"""Between layers and arrays: planes, sources, views, colours, and pieces."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Image, Labels
from widgets.driver import QUIET, write_sample

from napari_alibi_seg._base import Window
from napari_alibi_seg._widgets._areas import fill_areas, new_areas, read_areas
from napari_alibi_seg._widgets._keys import Keys
from napari_alibi_seg._widgets._layers import (
    camera_of,
    class_colours,
    look_at,
    new_like,
    paint_window,
    painted_window,
    plane_of,
    source_of,
    view_of,
    warm_up_colours,
)
from napari_alibi_seg._widgets._strokes import StrokeWatch
from napari_alibi_seg._workspace import ClassEntry, ExcludedArea
from napari_alibi_seg.data import open_image

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.mark.parametrize(
    ("shape", "step", "plane"),
    [
        ((8, 9), (3, 4), ()),
        ((8, 9), (5, 3, 4), ()),
        ((4, 8, 9), (2, 0, 0), (2,)),
        ((4, 8, 9), (7, 2, 0, 0), (2,)),
        ((4, 8, 9), (9, 0, 0), (3,)),
        ((2, 4, 8, 9), (1, 3, 0, 0), (1, 3)),
    ],
    ids=["2d", "2d in 3d", "3d", "3d in 4d", "beyond the last", "4d"],
)
def test_plane_of(shape, step, plane) -> None:
    assert plane_of(Image(np.zeros(shape, np.uint8)), step) == plane


def test_the_file_is_the_source_while_its_pixels_are_the_layers(
    tmp_path, make_napari_viewer
) -> None:
    path = write_sample(tmp_path / "s.tif")
    (layer,) = make_napari_viewer().open(str(path), layer_type="image")
    assert source_of(layer, ()).path == path
    layer.data = np.asarray(layer.data) // 2
    other = source_of(layer, ())
    assert other.path is None
    assert other.content_hash() == open_image(np.asarray(layer.data)).content_hash()


def test_a_plane_of_a_stack_and_colours() -> None:
    stack = np.arange(2 * 70 * 80, dtype=np.uint16).reshape(2, 70, 80)
    found = source_of(Image(stack, name="s"), (1,))
    assert found.content_hash() == open_image(stack[1]).content_hash()
    assert found.name == "s"
    rgb = np.zeros((70, 80, 3), np.uint8)
    assert source_of(Image(rgb, rgb=True), ()).meaning == "rgb"


@pytest.mark.parametrize("unit", ["nm", "um", "mm"])
def test_pixel_size_comes_from_a_layer_with_units(unit) -> None:
    layer = Image(np.zeros((70, 80)), scale=(0.5, 0.25), units=(unit, unit))
    size = source_of(layer, ()).pixel_size
    assert (size.y, size.x, size.unit) == (0.5, 0.25, unit)
    assert source_of(Image(np.zeros((70, 80)), scale=(2, 2)), ()).pixel_size is None


@pytest.mark.parametrize("step", [1, 4])
def test_a_layer_lies_where_the_image_lies(step) -> None:
    image = Image(
        np.zeros((3, 40, 60), np.uint8),
        scale=(5, 0.5, 0.25),
        translate=(1, 2, 3),
        units=("um", "um", "um"),
    )
    made = new_like(image, Labels, np.zeros((40, 60), np.uint8), "x", step=step)
    # the first sample stands for a block of step x step pixels: its middle
    middle = (step - 1) / 2
    expected = image.data_to_world((0, middle, middle))[-2:]
    assert np.allclose(made.data_to_world((0, 0)), expected)
    assert np.allclose(made.scale, np.array((0.5, 0.25)) * step)
    assert made.units == image.units[-2:]


def test_classes_that_are_gone_are_invisible() -> None:
    colours = class_colours([ClassEntry(id=3, name="a", colour="#ff0000")])
    layer = Labels(np.array([[0, 1, 3]], np.uint8), colormap=colours)
    shown = layer.colormap.map(layer.data)[0]
    assert shown[:, 3].tolist() == [0, 0, 1]
    assert shown[2].tolist() == [1, 0, 0, 1]


def strokes(layer, do) -> list:
    windows = []
    layer.events.paint.connect(lambda e: windows.append(painted_window(e.value)))
    do()
    return windows


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_stroke_lies_in_the_window_that_is_told(ndim) -> None:
    layer = Labels(np.zeros((3, 60, 80)[-ndim:], np.uint8))
    layer.brush_size = 6
    lead = (1,) * (ndim - 2)
    (window,) = strokes(layer, lambda: layer.paint((*lead, 30, 40), 2))
    rows, cols = np.nonzero(layer.data[lead] if lead else layer.data)
    assert window.y0 <= rows.min()
    assert rows.max() < window.y1
    assert window.x0 <= cols.min()
    assert cols.max() < window.x1
    assert window.shape[0] <= 12
    assert window.shape[1] <= 12


def test_an_event_nobody_knows_means_everywhere() -> None:
    assert painted_window(None) is None
    assert painted_window([object()]) is None


def test_a_piece_is_written_and_shown_without_the_rest() -> None:
    viewer = ViewerModel()
    colours = class_colours([ClassEntry(id=2, name="a", colour="#ff0000")])
    layer = viewer.add_labels(np.zeros((50, 60), np.uint8), colormap=colours)
    seen = []
    layer.events.labels_update.connect(lambda e: seen.append((e.data.shape, e.offset)))
    window = Window(10, 20, 30, 45)
    paint_window(layer, (), window, np.full(window.shape, 2, np.uint8))
    assert layer.data.sum() == 2 * 10 * 15
    assert (layer.data[window.slices] == 2).all()
    assert seen == [((10, 15), [10, 30])]
    layer.visible = False
    paint_window(layer, (), window, np.zeros(window.shape, np.uint8))
    assert not layer.data.any()
    assert len(seen) == 1


def test_a_piece_of_a_plane_that_is_not_on_show() -> None:
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros((3, 50, 60), np.uint8))
    viewer.dims.set_current_step(0, 2)
    seen = []
    layer.events.labels_update.connect(seen.append)
    paint_window(layer, (0,), Window(0, 5, 0, 5), np.ones((5, 5), np.uint8))
    assert layer.data[0, :5, :5].all()
    assert layer.data.sum() == 25
    assert not seen
    paint_window(layer, (2,), Window(0, 5, 0, 5), np.ones((5, 5), np.uint8))
    assert len(seen) == 1


def test_the_view_is_the_whole_plane_in_3d() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4, 50, 60), np.uint8))
    viewer.dims.ndisplay = 3
    assert view_of(viewer, layer).window == Window(0, 50, 0, 60)


@pytest.mark.parametrize("is_new", [False, True], ids=["before 0.9", "0.9"])
def test_the_camera_is_found_where_each_napari_has_it(is_new) -> None:
    holder = SimpleNamespace(camera="it")
    viewer = SimpleNamespace(scene=holder, camera="deprecated") if is_new else holder
    assert camera_of(viewer) == "it"


@pytest.mark.filterwarnings("error")
def test_the_camera_of_this_napari_is_nothing_to_warn_of() -> None:
    viewer = ViewerModel()
    camera_of(viewer).zoom = 3.0
    layer = viewer.add_image(np.zeros((40, 60)))
    look_at(viewer, layer, 8, 30)
    assert camera_of(viewer).center[-2:] == (8, 30)


@pytest.mark.parametrize(("zoom", "expected"), [(0.1, 4.0), (50.0, 50.0)])
def test_looking_at_a_pixel(zoom, expected) -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((40, 60)), scale=(0.5, 0.5), translate=(10, 20))
    viewer.camera.zoom = zoom
    look_at(viewer, layer, 8, 30)
    assert viewer.camera.center[-2:] == pytest.approx((14, 35))
    assert viewer.camera.zoom == expected  # two screen pixels to a pixel, or more


def test_colours_of_labels_of_both_widths_are_compiled_before_the_brush(
    monkeypatch,
) -> None:
    from napari.utils.colormaps import _accelerated_cmap

    compiled, run = set(), _accelerated_cmap.labels_raw_to_texture_direct

    def noted(values, colormap):
        compiled.add(values.dtype.name)
        return run(values, colormap)

    monkeypatch.setattr(_accelerated_cmap, "labels_raw_to_texture_direct", noted)
    warm_up_colours()
    assert compiled == {"uint8", "uint16"}


# ------------------------------------------------------------------------------- areas

BOX = ((2.0, 3.0), (2.0, 20.0), (9.0, 20.0), (9.0, 3.0))
TURNED = ((2.0, 6.0), (6.0, 10.0), (10.0, 6.0), (6.0, 2.0))


@pytest.fixture
def shapes():
    return new_areas(Image(np.zeros((40, 60)), scale=(2, 3), translate=(1, 1)))


@pytest.mark.parametrize(
    ("kind", "corners"), [("box", BOX), ("polygon", BOX[:3]), ("polygon", TURNED)]
)
def test_areas_come_back_as_they_were_shown(shapes, kind, corners) -> None:
    area = ExcludedArea(kind=kind, corners=corners)
    fill_areas(shapes, (ExcludedArea(kind="box", corners=TURNED),))
    fill_areas(shapes, (area,))
    assert read_areas(shapes) == (area,)
    # the edge of a pixel is half a pixel before its middle
    assert np.allclose(shapes.data[0], np.array(corners) - 0.5)
    assert shapes.data_to_world((0, 0)) == (1, 1)


@pytest.mark.parametrize(
    ("shape_type", "kind"),
    [
        ("rectangle", "polygon"),
        ("polygon", "polygon"),
        ("ellipse", "polygon"),
        ("path", None),
    ],
)
def test_what_is_drawn_is_a_box_only_if_it_is_upright(shapes, shape_type, kind) -> None:
    shapes.add(np.array(TURNED), shape_type=shape_type)
    assert [a.kind for a in read_areas(shapes)] == ([] if kind is None else [kind])


# -------------------------------------------------------------------- strokes and keys


@pytest.fixture
def heard():
    """A layer of scribbles, who watches it, and what that one told."""
    layer = ViewerModel().add_labels(np.zeros((40, 60), np.uint8))
    watch, told = StrokeWatch(), []
    watch.painted.connect(lambda of, window: told.append((of is layer, window)))
    watch.undone.connect(lambda of: told.append((of is layer, "undone")))
    watch.hear(layer)
    return layer, watch, told


def test_strokes_and_undos_are_told_apart(heard) -> None:
    layer, _, told = heard
    layer.data_setitem((np.array([4, 5]), np.array([7, 7])), 1)
    assert told == [(True, Window(4, 6, 7, 8))]
    layer.undo()
    layer.redo()
    assert told[1:] == [(True, "undone"), (True, "undone")]
    layer.refresh()
    assert len(told) == 3


def test_what_we_do_ourselves_is_no_stroke(heard) -> None:
    layer, watch, told = heard
    with watch.silence():
        assert watch.is_quiet
        with watch.silence():
            layer.data_setitem((np.array([4]), np.array([7])), 1)
        assert watch.is_quiet
    assert not watch.is_quiet
    watch.note(layer)
    layer.refresh()
    assert not told
    watch.unhear(layer)
    layer.data_setitem((np.array([5]), np.array([7])), 1)
    assert not told


def test_keys_are_bound_to_layers_and_taken_away_again() -> None:
    viewer, pressed = ViewerModel(), []
    layer = viewer.add_labels(np.zeros((4, 4), np.uint8))
    keys = Keys(viewer)
    keys.bind("1", lambda: pressed.append(1))
    keys.dress(layer)
    for target in (viewer, layer):
        (run,) = target.keymap.values()
        run(target)
    assert pressed == [1, 1]
    keys.close()
    assert not viewer.keymap
    assert not layer.keymap
