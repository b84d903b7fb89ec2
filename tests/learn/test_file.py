"""The classifier file: what goes in comes out, to the byte."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from learn.files import header_for, make_classifier, make_projection, rewritten

from napari_alibi_seg._base import (
    ClassifierFileError,
    ClassifierSettings,
    FeatureSettings,
    OutputError,
    SettingsError,
)
from napari_alibi_seg.learn import (
    ClassifierHeader,
    classifier_from_arrays,
    classifier_to_arrays,
    load_classifier_file,
    projection_from_arrays,
    projection_to_arrays,
    save_classifier_file,
)

PIXELS = np.random.default_rng(7).normal(size=(4, 999)).astype(np.float32)


@pytest.fixture(params=["rf", "logistic"])
def saved(request, tmp_path):
    """A file with everything in it, and what it was made of."""
    classifier = make_classifier(request.param)
    projection = make_projection()
    header = header_for(classifier, projection)
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)
    path = tmp_path / "a.alibiseg"
    sha256 = save_classifier_file(path, header, arrays)
    return path, header, classifier, projection, sha256


def test_the_same_result_after_loading(saved):
    path, _, classifier, projection, _ = saved
    header, arrays = load_classifier_file(path)
    again = classifier_from_arrays(header, arrays)
    assert again.kind == classifier.kind
    assert again.class_ids.tolist() == [1, 4, 300]
    assert again.summary == classifier.summary
    assert (
        again.predict_proba(PIXELS).tobytes()
        == classifier.predict_proba(PIXELS).tobytes()
    )
    tokens = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    assert (
        projection_from_arrays(arrays).apply(tokens).tobytes()
        == projection.apply(tokens).tobytes()
    )


def test_the_header_comes_back(saved):
    path, header, _, _, sha256 = saved
    loaded, arrays = load_classifier_file(path)
    assert loaded["sha256"] == sha256
    assert loaded["format_version"] == 1
    assert loaded["backbone"] == header["backbone"]
    assert loaded["training"] == header["training"]
    assert (
        FeatureSettings(**loaded["features"]["settings"])
        == (header["features"]["settings"])
    )
    assert ClassifierSettings(**loaded["classifier"]) == header["classifier"]
    assert [c["name"] for c in loaded["classes"]] == ["matrix", "γ′ phase", "pore"]
    assert loaded["arrays"]["projection.mean"] == {"dtype": "float64", "shape": [12]}
    assert set(loaded["arrays"]) == set(arrays)
    assert set(ClassifierHeader.model_fields) <= set(loaded)


def test_class_weights_by_id_come_back(tmp_path):
    settings = ClassifierSettings(class_weight={1: 2.0, 300: 0.5}, n_trees=3)
    classifier = make_classifier("rf", settings)
    path = tmp_path / "a.alibiseg"
    save_classifier_file(path, header_for(classifier), classifier_to_arrays(classifier))
    loaded, _ = load_classifier_file(path)
    assert ClassifierSettings(**loaded["classifier"]).n_trees == 20
    header = header_for(classifier) | {"classifier": settings}
    save_classifier_file(path, header, classifier_to_arrays(classifier))
    loaded, _ = load_classifier_file(path)
    assert ClassifierSettings(**loaded["classifier"]) == settings


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    path, header, classifier, projection, sha256 = saved
    arrays = projection_to_arrays(projection) | classifier_to_arrays(classifier)
    shuffled = dict(reversed(header.items()))
    other = tmp_path / "b.alibiseg"
    assert save_classifier_file(other, shuffled, arrays) == sha256
    assert other.read_bytes() == path.read_bytes()


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    path, *_ = saved
    other = tmp_path / "b.alibiseg"
    save_classifier_file(other, *load_classifier_file(path))
    assert other.read_bytes() == path.read_bytes()


def test_training_twice_gives_the_same_file(tmp_path):
    paths = [tmp_path / "a.alibiseg", tmp_path / "b.alibiseg"]
    for path in paths:
        classifier = make_classifier("rf")
        save_classifier_file(
            path, header_for(classifier), classifier_to_arrays(classifier)
        )
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_any_safetensors_reader_opens_it(saved):
    path, _, classifier, _, sha256 = saved
    with safetensors.safe_open(path, framework="np") as file:
        document = json.loads(file.metadata()["alibiseg"])
        assert document["sha256"] == sha256
        for name, array in classifier_to_arrays(classifier).items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_big_endian_arrays_are_stored_alike(saved, tmp_path):
    path, header, classifier, projection, _ = saved
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)
    swapped = {k: a.astype(a.dtype.newbyteorder(">")) for k, a in arrays.items()}
    other = tmp_path / "b.alibiseg"
    save_classifier_file(other, header, swapped)
    assert other.read_bytes() == path.read_bytes()


def test_loading_imports_no_learner_and_no_torch(saved):
    path, *_ = saved
    code = (
        "import sys; from napari_alibi_seg.learn import *;"
        "from pathlib import Path;"
        f"h, a = load_classifier_file(Path({str(path)!r}));"
        "classifier_from_arrays(h, a);"
        "print(sorted({'sklearn', 'torch', 'joblib', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------- refusals to save


def without(field):
    return lambda h: {k: v for k, v in h.items() if k != field}


def with_(**fields):
    return lambda h: h | fields


def with_features(**fields):
    return lambda h: h | {"features": h["features"] | fields}


def with_class(**fields):
    return lambda h: h | {"classes": [h["classes"][0] | fields, *h["classes"][1:]]}


BAD_HEADERS = [
    pytest.param(without("versions"), "`versions`: Field required", id="missing"),
    pytest.param(with_(extra=1), "`extra`: Extra inputs are not", id="unknown"),
    pytest.param(with_features(tile=3), "`features.tile`: Extra", id="unknown-inside"),
    pytest.param(with_(backbone=None), "`backbone` must be given exac", id="backbone"),
    pytest.param(
        with_features(settings=FeatureSettings(kind="both")),
        "`settings.scale` must be resolved",
        id="scale-auto",
    ),
    pytest.param(
        with_features(intensity=[(1.0, 1.0)]), "pairs of rising values", id="intensity"
    ),
    pytest.param(
        with_features(intensity=[(0.0, np.inf)]), "finite number", id="intensity-inf"
    ),
    pytest.param(with_features(names=["a"]), "must have 4 entries, got 1", id="names"),
    pytest.param(with_(training={"a": np.nan}), "finite numbers and", id="nan"),
    pytest.param(with_(training={"a": "\ud800"}), "Unicode text", id="surrogate"),
    pytest.param(with_(training={"a": object()}), "`training.a", id="object"),
    pytest.param(with_class(id=0), "`classes.0.id`: .* greater than", id="id-0"),
    pytest.param(with_class(id=300), "ascending by id without repeats", id="id-order"),
    pytest.param(with_class(colour="red"), "`classes.0.colour`: ", id="colour"),
    pytest.param(with_class(name="a\x1b[2J"), "control characters", id="escape"),
    pytest.param(with_class(name="a" * 201), "at most 200 characters", id="long-name"),
    pytest.param(
        with_(training={"a": "x" * (9 << 20)}), "may have 8388608 bytes", id="8-MiB"
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_HEADERS)
def test_a_bad_header_is_not_saved(tmp_path, change, message):
    classifier, projection = make_classifier("rf"), make_projection()
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)
    path = tmp_path / "a.alibiseg"
    with pytest.raises(SettingsError, match=message):
        save_classifier_file(path, change(header_for(classifier, projection)), arrays)
    assert list(tmp_path.iterdir()) == []


def test_header_and_arrays_must_belong_together(tmp_path):
    forest, logistic = make_classifier("rf"), make_classifier("logistic")
    path = tmp_path / "a.alibiseg"
    with pytest.raises(ClassifierFileError, match="has no arrays"):
        save_classifier_file(path, header_for(forest), classifier_to_arrays(logistic))
    with pytest.raises(ClassifierFileError, match="projection to 3 components"):
        save_classifier_file(
            path, header_for(forest, make_projection()), classifier_to_arrays(forest)
        )
    assert not path.exists()


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    path, header, classifier, projection, _ = saved
    before = path.read_bytes()
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"a\.alibiseg"):
        save_classifier_file(path, header | {"training": {}}, arrays)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.alibiseg"]


def test_a_folder_that_does_not_exist(saved):
    path, header, classifier, projection, _ = saved
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)
    with pytest.raises(OutputError, match="Create it"):
        save_classifier_file(path.parent / "no" / "a.alibiseg", header, arrays)


def test_the_hostile_file_tools_make_good_files_too(saved, tmp_path):
    """`rewritten` signs anew: only what a row changes is wrong with its file."""
    path, *_ = saved
    other = tmp_path / "b.alibiseg"
    other.write_bytes(rewritten(path.read_bytes()))
    assert load_classifier_file(other)[0] == load_classifier_file(path)[0]
