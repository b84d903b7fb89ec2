"""Settings, what they become, the command line, overtaken runs."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from napari_alibi_seg._base import ClassifierSettings, FeatureSettings, SettingsError
from napari_alibi_seg._cli import _parser
from napari_alibi_seg._cli._common import store_folder
from napari_alibi_seg._segmenter import BatchOptions
from napari_alibi_seg._workspace import (
    BatchRequest,
    ClassTable,
    DockSettings,
    Generation,
    command_line,
    segmenter_arguments,
)


@pytest.fixture
def classes() -> ClassTable:
    table = ClassTable()
    table.ensure([1, 3, 7])
    return table


def test_untouched_dock_asks_for_the_defaults(classes) -> None:
    features, classifier = segmenter_arguments(DockSettings(), classes)
    assert features == FeatureSettings()
    assert classifier == ClassifierSettings()


def test_every_setting_reaches_the_segmenter(classes) -> None:
    settings = DockSettings(
        backbone="vit",
        features="both",
        scale=2.0,
        density=2,
        components=None,
        channels=(2, 0),
        normalisation="frozen",
        classifier="logistic",
        n_trees=7,
        resolution="patch",
        unsure_below=0.6,
    )
    features, classifier = segmenter_arguments(settings, classes)
    assert features == FeatureSettings(
        kind="both",
        scale=2.0,
        density=2,
        components=None,
        channels=(2, 0),
        normalisation="frozen",
    )
    assert classifier == ClassifierSettings(
        kind="logistic", n_trees=7, resolution="patch", unsure_below=0.6
    )
    assert settings.segmenter_backbone() == "vit"


def test_weights_multiply_balanced_ones(classes) -> None:
    def weights(painted=None):
        made = segmenter_arguments(DockSettings(), classes, painted)[1]
        assert made.class_weight == "balanced"
        return made.class_factor

    assert weights() == {}
    classes.set_weight(3, 2)
    assert weights() == {3: 2.0}
    # a classifier refuses weights of what nobody painted
    assert weights((3, 7)) == {3: 2.0}
    assert weights((1, 7)) == {}


def test_loaded_classifier_fills_the_panels(classes) -> None:
    features = FeatureSettings(
        kind="both", tile_px=224, halo_tokens=2, scale=0.5, percentiles=(1, 99)
    )
    classifier = ClassifierSettings(
        kind="logistic", max_features=5, seed=9, unsure_below=0.4, unsure_id=255
    )
    before = DockSettings(live=False, device="cpu", backbone="old")
    settings = before.with_classifier(features, classifier, backbone="vit")
    assert segmenter_arguments(settings, classes) == (features, classifier)
    assert (settings.backbone, settings.live, settings.device) == ("vit", False, "cpu")
    kept = before.with_classifier(features, classifier, backbone=None)
    assert kept.backbone == "old"


def test_backbone_may_wait_but_not_be_missing(classes) -> None:
    waiting = DockSettings(backbone="vit")
    assert waiting.segmenter_backbone() is None
    with pytest.raises(SettingsError, match="Choose a backbone"):
        segmenter_arguments(DockSettings(features="vit"), classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"scale": 100}, "`scale`", id="scale"),
        pytest.param({"density": 0}, "`density`", id="density"),
        pytest.param({"n_trees": 0}, "`n_trees`", id="trees"),
        pytest.param({"unsure_below": 1.0}, "`unsure_below`", id="unsure"),
        pytest.param({"channels": (0, 1, 2, 3)}, "`channels`", id="channels"),
        pytest.param({"device": "gpu"}, "`device`", id="device"),
        pytest.param({"nonsense": 1}, "`nonsense`", id="unknown"),
    ],
)
def test_wrong_settings_are_refused(changes, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        DockSettings().replace(**changes)


_FULL = BatchRequest(
    Path("my classifiers/it's.alibiseg"),
    (Path("scans & more"), Path("-a.tif"), Path("$HOME `x`.tif")),
    Path('out "dir"'),
    probabilities=True,
    uncertainty=True,
    recursive=True,
    overwrite=True,
    plane=3,
    format="ome-zarr",
    backbone="dinov2-small",
    store=Path("tokens"),
    device="cuda:1",
    workers=2,
)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(BatchRequest(Path("a"), (Path("b"),), Path("c")), id="least"),
        pytest.param(_FULL, id="all"),
        pytest.param(replace(_FULL, time=3), id="a time"),
        pytest.param(
            replace(_FULL, plane=None, all_planes=True, z_smooth=1 / 3), id="stacks"
        ),
    ],
)
def test_command_line_asks_for_what_the_tab_does(request_: BatchRequest) -> None:
    words = shlex.split(command_line(request_, is_windows=False))
    assert words[:2] == ["alibi-seg", "apply"]
    args = _parser("apply").parse_args(words[1:])
    names = [field.name for field in fields(BatchOptions)]
    options = BatchOptions(**{name: getattr(args, name) for name in names})
    assert options == request_.options()
    assert args.classifier == request_.classifier.absolute()
    assert args.inputs == [p.absolute() for p in request_.inputs]
    assert args.out == request_.out.absolute()
    assert args.store == (request_.store and request_.store.absolute())
    assert args.threads == request_.workers
    names = ("recursive", "backbone", "device")
    for name in names:
        assert getattr(args, name) == getattr(request_, name)


def test_batch_keeps_features_where_the_command_does() -> None:
    for request in (BatchRequest(Path("a"), (Path("b"),), Path("c")), _FULL):
        args = _parser("apply").parse_args(request.arguments())
        assert store_folder(args) == request.store_folder().absolute()


def test_weights_file_is_named_so_that_any_folder_will_do(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vit.safetensors").touch()
    request = BatchRequest(
        Path("a"), (Path("b"),), Path("c"), backbone="vit.safetensors"
    )
    assert str(tmp_path / "vit.safetensors") in request.arguments()


def test_windows_quotes_are_double() -> None:
    line = command_line(_FULL, is_windows=True)
    assert 'scans & more"' in line
    assert "'" not in line.replace("it's", "")


def test_batch_without_input_is_refused() -> None:
    with pytest.raises(SettingsError, match="Add some"):
        command_line(BatchRequest(Path("a"), (), Path("c")))


def test_only_the_latest_run_is_current() -> None:
    runs = Generation()
    first = runs.next()
    assert runs.is_current(first)
    second = runs.next()
    assert not runs.is_current(first)
    assert runs.is_current(second)


def test_runs_begun_in_many_threads_have_distinct_numbers() -> None:
    runs = Generation()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: runs.next(), range(2000)))
    assert sorted(numbers) == list(range(1, 2001))
    assert runs.current == 2000
