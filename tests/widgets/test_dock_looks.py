"""Views of features from the dock: what the panel asks for is what the viewer shows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from widgets import gestures
from widgets.driver import QUIET, write_sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._workspace import Looks

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.fixture
def looking(driver, tmp_path):
    """A driver whose image has (classical) features, and the panel, unfolded."""
    driver.path = write_sample(tmp_path / "s.png")
    driver.open(driver.path)
    driver.settled()
    gestures.unfold(driver.dock.sections["3  Look"])
    return driver


def overlay(driver):
    driver.settled()
    return driver.dock.stage.current.overlay


def the_looks(driver) -> Looks:
    """The same, without a window."""
    return Looks({"a": Segmenter().embed(driver.path)})


def test_components_as_colours_and_one_alone(looking) -> None:
    panel, looks = looking.dock.look_panel, the_looks(looking)
    gestures.press(panel.components_toggle)
    shown = overlay(looking)
    assert shown.rgb
    assert np.array_equal(shown.data, looks.picture("a").values)
    for number in (1, 2):
        gestures.pick(panel.components_combo, number)
        shown = overlay(looking)
        assert not shown.rgb
        assert np.array_equal(shown.data, looks.picture("a", number).values)
    # the one before is gone: image and overlay
    assert len(looking.viewer.layers) == 2
    gestures.press(panel.hide_button)
    assert overlay(looking) is None
    assert len(looking.viewer.layers) == 1


def test_it_lies_on_the_image(looking) -> None:
    image = looking.dock.stage.current.image
    image.scale, image.translate = (0.5, 0.5), (3, 4)
    gestures.press(looking.dock.look_panel.clusters_toggle)
    shown = overlay(looking)
    corners = [
        layer.data_to_world(np.array(at))
        for layer in (image, shown)
        for at in ((-0.5, -0.5), np.array(layer.data.shape[:2]) - 0.5)
    ]
    assert np.allclose(corners[0], corners[2])
    assert np.allclose(corners[1], corners[3])


def test_as_many_clusters_as_asked_for(looking) -> None:
    panel, looks = looking.dock.look_panel, the_looks(looking)
    gestures.press(panel.clusters_toggle)
    for k in (4, 2, 7):
        if k != panel.n_clusters:
            gestures.write(panel.clusters_spin, str(k))
        shown = overlay(looking)
        expected = looks.clusters("a", k)
        assert np.array_equal(shown.data, expected.labels_yx + 1)
        rows = [row for row in panel.cluster_rows if row.isVisible()]
        assert [row.text.text() for row in rows] == [
            f"{i + 1}: {100 * share:.1f} %"
            for i, share in enumerate(expected.shares.tolist())
        ]
        assert shown.name.startswith(f"{k} clusters")


def test_a_cluster_becomes_a_class_and_two_a_segmentation(looking) -> None:
    panel = looking.dock.look_panel
    gestures.press(panel.clusters_toggle)
    gestures.write(panel.clusters_spin, "2")
    clusters = np.array(overlay(looking).data)
    for cluster in (0, 1):
        gestures.press(panel.cluster_rows[cluster].class_button)
        looking.settled()
        painted = looking.painted
        (entry,) = [e for e in looking.dock.session.classes if e.id == cluster + 1]
        assert entry.name == f"cluster {cluster + 1}"
        here = painted == entry.id
        assert here.any()
        # well inside: no pixel of another cluster is painted
        assert set(np.unique(clusters[here])) == {cluster + 1}
        # its class is in hand for the next stroke
        assert looking.scribbles.selected_label == entry.id
    looking.settled()
    labels = looking.labels.data
    assert set(np.unique(labels)) == {1, 2}
    # the forest was taught to tell apart what k-means told apart
    # from a few strokes, at full resolution: by chance it would be half
    assert (labels == clusters).mean() > 0.65


def test_likeness_to_the_point_that_was_clicked(looking) -> None:
    panel, looks = looking.dock.look_panel, the_looks(looking)
    gestures.press(panel.similarity_toggle)
    assert "Click a point" in panel.point.text()
    seen = []
    for row, col in ((20, 30), (100, 120)):
        looking.click(row, col)
        shown = overlay(looking)
        assert panel.point.text() == f"Row {row}, column {col}"
        assert np.array_equal(shown.data, looks.similarity("a", row, col).values)
        # brightest around the point: between samples cosines are interpolated
        near = shown.data[row - 6 : row + 7, col - 6 : col + 7]
        assert near.max() == shown.data.max()
        seen.append(np.array(shown.data))
    assert not np.array_equal(*seen)
    # clicking painted nothing; and is the brush's again afterwards
    assert looking.scribbles is None
    gestures.press(panel.hide_button)
    looking.click(20, 30)
    assert overlay(looking) is None


def test_without_standardised_channels_it_looks_otherwise(looking) -> None:
    panel = looking.dock.look_panel
    gestures.press(panel.components_toggle)
    before = np.array(overlay(looking).data)
    gestures.press(panel.standardise_box)
    after = np.array(overlay(looking).data)
    looks = the_looks(looking)
    looks.standardise = False
    assert np.array_equal(after, looks.picture("a").values)
    assert not np.array_equal(after, before)
