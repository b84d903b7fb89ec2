"""Settings refuse what they cannot be, by name."""

from __future__ import annotations

import pytest

from napari_alibi_seg import _base
from napari_alibi_seg._base import (
    Alibi,
    AlibiSegError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    validated,
)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (FeatureSettings, {"scale": 0.0}, r"`scale.*0.05 to 8"),
        (FeatureSettings, {"scale": float("nan")}, r"`scale"),
        (FeatureSettings, {"kind": "deep"}, "`kind`.*'deep'"),
        (FeatureSettings, {"density": 0}, "`density`"),
        (FeatureSettings, {"tile_px": 5}, "`tile_px`"),
        (FeatureSettings, {"percentiles": (99, 1)}, "low < high"),
        (FeatureSettings, {"channels": (0, 1, 2, 3)}, "one to three"),
        (FeatureSettings, {"channels": (-1,)}, "from 0 up"),
        (FeatureSettings, {"titles": 1}, "`titles`.*[Ee]xtra"),
        (ClassifierSettings, {"kind": "svm"}, "`kind`"),
        (ClassifierSettings, {"n_trees": 0}, "`n_trees`"),
        (ClassifierSettings, {"seed": -1}, "`seed`"),
        (ClassifierSettings, {"unsure_below": 1.5}, "`unsure_below`"),
    ],
)
def test_bad_settings_name_the_field(model, values, message):
    with pytest.raises(SettingsError, match=message):
        validated(model, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"slope": "steep"}, "`slope` must be one of"), ({"metric": "l3"}, "`metric`")],
)
def test_alibi_refuses_unknown_choices(values, message):
    with pytest.raises(SettingsError, match=message):
        Alibi(**values)


def test_settings_survive_json():
    settings = FeatureSettings(kind="both", channels=(2, 0), scale=1.5, density=2)
    again = FeatureSettings(**settings.model_dump(mode="json"))
    assert again == settings


def test_every_error_is_one_of_ours_and_none_is_a_runtime_error():
    errors = [
        getattr(_base, n) for n in _base.__all__ if n.endswith("Error") and n[0] != "_"
    ]
    assert len(errors) >= 10
    for error in errors:
        assert issubclass(error, AlibiSegError)
        assert not issubclass(error, RuntimeError)
