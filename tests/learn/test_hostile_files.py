"""Files that are damaged, foreign, too new or forged: each has its message.

Forged files carry a checksum that is right: it guards against accidents only.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learn.files import header_for, make_classifier, make_projection, rewritten

from napari_alibi_seg._base import ClassifierFileError
from napari_alibi_seg.learn import _container as container
from napari_alibi_seg.learn import _file as module
from napari_alibi_seg.learn import (
    classifier_from_arrays,
    classifier_to_arrays,
    load_classifier_file,
    projection_to_arrays,
    save_classifier_file,
)


def good_bytes(kind, folder):
    classifier, projection = make_classifier(kind), make_projection()
    path = folder / f"{kind}.alibiseg"
    arrays = classifier_to_arrays(classifier) | projection_to_arrays(projection)
    save_classifier_file(path, header_for(classifier, projection), arrays)
    return path.read_bytes()


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    return good_bytes("rf", tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    return good_bytes("logistic", tmp_path_factory.mktemp("good"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


def zipped(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", data)
    return buffer.getvalue()


def numpy_file():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def with_header(header, rest=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + rest


BOMB = pickle.dumps(Bomb())
FOREIGN = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b"\x01\x02", "truncated: it ends inside its header", id="2-bytes"),
    pytest.param(BOMB, "a pickle, not .* could run code", id="pickle"),
    pytest.param(zipped(BOMB), "a zip archive .* could run code", id="torch-zip"),
    pytest.param(zlib.compress(BOMB), "zlib stream .* could run", id="joblib-zlib"),
    pytest.param(gzip.compress(BOMB), "gzip archive .* could run", id="joblib-gzip"),
    pytest.param(numpy_file(), "a numpy file", id="npy"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(99), "no safetensors", id="png"),
    pytest.param(b'{"format": "json"}', "no safetensors container", id="json"),
    pytest.param(b"II*\0" + bytes(100), "no safetensors container", id="tiff"),
    pytest.param(
        b"\xff" * 8 + b"{" + bytes(99), "may have .* bytes, this", id="huge-length"
    ),
    pytest.param((9999).to_bytes(8, "little") + b"{}", "inside its header", id="short"),
    pytest.param(with_header(b"{not json}"), "no valid JSON", id="container-json"),
    pytest.param(with_header(b"{\xff}"), "no valid JSON", id="container-utf8"),
    pytest.param(
        with_header(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        "nested too deeply",
        id="container-deep",
    ),
    pytest.param(
        with_header(b'{"a":' + b"[" * 50 + b"]" * 50 + b"}"),
        "nested too deeply",
        id="container-a-bit-deep",
    ),
    pytest.param(with_header({}), "but no classifier", id="no-metadata"),
    pytest.param(
        with_header({"__metadata__": ["alibiseg"]}), "but no classifier", id="list"
    ),
    pytest.param(
        with_header({"__metadata__": {"alibiseg": {}}}), "but no class", id="not-text"
    ),
    pytest.param(
        safetensors.numpy.save({"blocks.0.weight": np.zeros(3, "f4")}),
        "but no classifier .weights of a backbone",
        id="weights",
    ),
    pytest.param(
        with_header({"__metadata__": {"alibiseg": "{}"}, "a": 3}),
        "array 'a' must be one of",
        id="entry-not-a-dict",
    ),
    pytest.param(
        with_header({"__metadata__": {"alibiseg": "{}"}, "a": {"dtype": ["F32"]}}),
        "must be one of",
        id="dtype-is-a-list",
    ),
    pytest.param(
        with_header({"__metadata__": {"alibiseg": '{"a": "\ud800"}'}}),
        "no valid JSON .*surrogates",
        id="half-a-surrogate",
    ),
    pytest.param(
        safetensors.numpy.save({"a": np.zeros(3, "u1")}, {"alibiseg": "{}"}),
        "array 'a' must be one of .* got 'U8'",
        id="array-dtype",
    ),
    pytest.param(
        safetensors.numpy.save({"a": np.zeros((3, 0), "f4")}, {"alibiseg": "{}"}),
        "array 'a' must not be empty",
        id="array-empty",
    ),
    pytest.param(
        safetensors.numpy.save(
            {str(i): np.zeros(1, "f4") for i in range(65)}, {"alibiseg": "{}"}
        ),
        "at most 64 arrays, got 65",
        id="65-arrays",
    ),
    pytest.param(
        with_header(
            {
                "__metadata__": {"alibiseg": "{}"},
                "a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]},
            },
            bytes(4),
        ),
        "truncated or damaged",
        id="overflowing-shape",
    ),
    pytest.param(
        with_header(
            {
                "__metadata__": {"alibiseg": "{}"},
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
            }
        ),
        "truncated or damaged",
        id="negative-offset",
    ),
    pytest.param(
        with_header(
            {
                "__metadata__": {"alibiseg": "{}"},
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            bytes(4),
        ),
        "truncated or damaged",
        id="overlap",
    ),
    pytest.param(
        with_header(
            {
                "__metadata__": {"alibiseg": "{}"},
                "a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
            },
            bytes(4),
        ),
        "must not be empty, got the shape 'x'",
        id="shape-is-text",
    ),
]


@pytest.mark.parametrize(("data", "message"), FOREIGN)
def test_foreign_and_broken_containers(tmp_path, data, message):
    path = tmp_path / "bad.alibiseg"
    path.write_bytes(data)
    with pytest.raises(ClassifierFileError, match=message) as caught:
        load_classifier_file(path)
    assert str(path) in str(caught.value)


def in_document(**fields):
    return lambda document, arrays: document.update(fields)


def inside(key, **fields):
    return lambda document, arrays: document[key].update(fields)


def in_class(index, **fields):
    return lambda document, arrays: document["classes"][index].update(fields)


def array(name, change):
    def edit(document, arrays):
        arrays[name] = np.ascontiguousarray(change(arrays[name].copy()))

    return edit


def put(name, index, value):
    def change(a):
        a[index] = value
        return a

    return array(name, change)


def drop(name):
    return lambda document, arrays: arrays.pop(name)


def no_field(name):
    return lambda document, arrays: document.pop(name)


def extra_array(document, arrays):
    arrays["payload"] = np.zeros(3, np.float32)


def no_projection(document, arrays):
    for name in [n for n in arrays if n.startswith("projection.")]:
        del arrays[name]


def fewer_classes(document, arrays):
    document["classes"].pop()


def far_left(a):
    a[0] = 2**31 - 2
    return a


def loop(a):
    inner = np.flatnonzero(a >= 0)[1]
    a[inner] = 0
    return a


def shared(a):
    inner = np.flatnonzero(a >= 0)
    a[inner[1]] = a[inner[2]]
    return a


FORGED = [
    pytest.param(in_document(format="other"), "`format` must be", id="format"),
    pytest.param(in_document(format_version=2), "newer version .* Update", id="newer"),
    pytest.param(in_document(format_version=True), "number from 1", id="version-bool"),
    pytest.param(in_document(format_version=0), "number from 1", id="version-0"),
    pytest.param(in_document(format_version="1"), "number from 1", id="version-text"),
    pytest.param(no_field("format_version"), "number from 1", id="no-version"),
    pytest.param(no_field("sha256"), "checksum does not match", id="no-checksum"),
    pytest.param(in_document(arrays={}), "not those its header lists", id="table"),
    pytest.param(in_document(surprise=1), "`surprise`: Extra", id="unknown-field"),
    pytest.param(no_field("classifier"), "`classifier`: Field requi", id="no-field"),
    pytest.param(inside("classifier", kind="svm"), "'rf' or 'logistic'", id="kind"),
    pytest.param(inside("classifier", n_trees=0), "greater than or eq", id="n-trees"),
    pytest.param(inside("features", n_features=0), "greater than or", id="0-features"),
    pytest.param(inside("features", n_features=5), "`names` must have 5", id="names"),
    pytest.param(
        inside("features", n_features=2, names=[]), "must lie in -1 to 1", id="too-few"
    ),
    pytest.param(
        inside("features", intensity=[[5, 1]]), "rising values", id="intensity"
    ),
    pytest.param(in_document(classes="all"), "`classes`: .* valid list", id="classes"),
    pytest.param(in_document(backbone=None), "`backbone` must be given", id="backbone"),
    pytest.param(in_class(0, id=0), "greater than or equal to 1", id="id-0"),
    pytest.param(in_class(0, id=-3), "greater than or equal to 1", id="id-negative"),
    pytest.param(in_class(0, id=4), "without repeats", id="id-twice"),
    pytest.param(in_class(2, id=2), "ascending by id", id="id-order"),
    pytest.param(in_class(0, id=2**40), "less than or equal", id="id-huge"),
    pytest.param(in_class(0, colour="#12345"), "colour", id="colour"),
    pytest.param(in_class(1, name="\x1b]0;own\x07"), "control char", id="escape"),
    pytest.param(fewer_classes, "3 classes, but 2 class ids", id="class-missing"),
    pytest.param(extra_array, r"no arrays \['payload'\]", id="extra-array"),
    pytest.param(drop("forest.left"), r"lacks .*'forest.left'", id="array-missing"),
    pytest.param(drop("projection.mean"), "lacks .*'projection.mean'", id="mean"),
    pytest.param(no_projection, "to 3 components, the arrays of None", id="no-pca"),
    pytest.param(
        array("projection.weights", lambda a: a[:, :2]), "`explained`", id="pca-shape"
    ),
    pytest.param(
        array("projection.weights", lambda a: a * np.nan), "finite", id="pca-nan"
    ),
    pytest.param(
        array("forest.left", lambda a: a.astype(np.int64)), "1-D int32", id="dtype"
    ),
    pytest.param(
        array("forest.left", lambda a: a.reshape(1, -1)), "must be 1-D", id="ndim"
    ),
    pytest.param(
        array("forest.visits", lambda a: a[1:]), "`visits` must have", id="length"
    ),
    pytest.param(array("forest.left", far_left), "outside its tree", id="far-child"),
    pytest.param(array("forest.left", loop), "a cycle", id="cycle"),
    pytest.param(array("forest.left", shared), "each with one parent", id="shared"),
    pytest.param(put("forest.feature", 0, 4), "must lie in -1 to 3", id="feature"),
    pytest.param(put("forest.threshold", 0, np.nan), "must be finite", id="nan"),
    pytest.param(put("forest.threshold", 0, np.inf), "must be finite", id="inf"),
    pytest.param(put("forest.leaf_fraction", (0, 0), np.nan), "0 to 1", id="nan-leaf"),
    pytest.param(put("forest.leaf_fraction", 0, 0.9), "sum to 1", id="leaf-sum"),
    pytest.param(put("forest.tree_start", 1, -5), "must rise", id="start-negative"),
    pytest.param(put("forest.tree_start", -1, 10**12), "must rise", id="start-far"),
    pytest.param(
        array("forest.tree_start", lambda a: a[:1]), "1 to 4096 trees", id="no-tree"
    ),
]


@pytest.mark.parametrize(("change", "message"), FORGED)
def test_forged_content(tmp_path, forest, change, message):
    path = tmp_path / "forged.alibiseg"
    path.write_bytes(rewritten(forest, change))
    with pytest.raises(ClassifierFileError, match=message) as caught:
        load_classifier_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(put("logistic.weights", 0, np.inf), "be finite", id="inf"),
        pytest.param(
            array("logistic.weights", lambda a: a[:2]),
            r"\(K, F\) and \(K,\)",
            id="rows",
        ),
        pytest.param(
            array("logistic.weights", lambda a: a[:, :3]),
            "tells of 4 features, but the model wants 3",
            id="features",
        ),
        pytest.param(
            array("logistic.offset", lambda a: a.astype("f4")), "float32", id="dtype"
        ),
        pytest.param(inside("classifier", kind="rf"), "has no arrays", id="kind"),
    ],
)
def test_forged_logistic(tmp_path, logistic, change, message):
    path = tmp_path / "forged.alibiseg"
    path.write_bytes(rewritten(logistic, change))
    with pytest.raises(ClassifierFileError, match=message):
        load_classifier_file(path)


TEXTS = [
    pytest.param(lambda t: "", "no valid JSON", id="empty"),
    pytest.param(lambda t: "[]", "must be a JSON object, got list", id="list"),
    pytest.param(
        lambda t: t.replace("matrix", r"\ud800"), "no valid JSON", id="surrogate"
    ),
    pytest.param(lambda t: t[:-5], "no valid JSON", id="cut"),
    pytest.param(lambda t: t.replace("2.0", "NaN", 1), "NaN is not a num", id="nan"),
    pytest.param(lambda t: t.replace("2.0", "-Infinity", 1), "Infinity", id="inf"),
    pytest.param(lambda t: t.replace("2.0", "1e999", 1), "too large a", id="1e999"),
    pytest.param(lambda t: t.replace("2.0", "9" * 9999, 1), "no valid JSON", id="9s"),
    pytest.param(lambda t: '{"a":1,"a":2}', "a key occurs twice", id="twice"),
    pytest.param(
        lambda t: '{"a":' * 99999 + "1" + "}" * 99999, "nested too deeply", id="deep"
    ),
    pytest.param(
        lambda t: '{"a":' * 40 + "1" + "}" * 40, "nested too deeply", id="40-deep"
    ),
    pytest.param(lambda t: t.replace("matrix", "Matrix"), "checksum", id="edited"),
    pytest.param(
        lambda t: t.replace('"seed":0', '"seed":1'), "checksum", id="edited-number"
    ),
    pytest.param(
        lambda t: t.replace('"format_version":1', '"format_version":99'),
        "newer version",
        id="newer",
    ),
    pytest.param(lambda t: t + " " * (9 << 20), "may have 8388608 by", id="8-MiB"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_hostile_text(tmp_path, forest, text, message):
    path = tmp_path / "forged.alibiseg"
    path.write_bytes(rewritten(forest, text=text))
    with pytest.raises(ClassifierFileError, match=message):
        load_classifier_file(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ClassifierFileError, match=r"no\.alibiseg: .* does not exist"):
        load_classifier_file(tmp_path / "no.alibiseg")


def test_a_folder(tmp_path):
    with pytest.raises(ClassifierFileError, match="cannot be read"):
        load_classifier_file(tmp_path)


def test_a_file_beyond_the_limit_is_not_even_read(tmp_path, forest, monkeypatch):
    path = tmp_path / "a.alibiseg"
    with path.open("wb") as file:
        file.truncate((2 << 30) + 1)  # a hole: takes no room on the disk
    with pytest.raises(ClassifierFileError, match="at most 2147483648 bytes"):
        load_classifier_file(path)
    path.write_bytes(forest)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ClassifierFileError, match="at most 1000 bytes, got"):
        load_classifier_file(path)


def test_more_nodes_than_the_limit(tmp_path, forest, monkeypatch):
    monkeypatch.setattr("napari_alibi_seg.learn._trees.MAX_NODES", 10)
    path = tmp_path / "a.alibiseg"
    path.write_bytes(forest)
    with pytest.raises(ClassifierFileError, match="more than 10 nodes"):
        load_classifier_file(path)


@pytest.mark.parametrize("part", [0.001, 0.02, 0.5, 0.9, 0.9999])
def test_a_truncated_file(tmp_path, forest, part):
    path = tmp_path / "cut.alibiseg"
    path.write_bytes(forest[: int(part * len(forest))])
    with pytest.raises(ClassifierFileError, match="truncated"):
        load_classifier_file(path)


def test_bytes_after_the_end(tmp_path, forest):
    path = tmp_path / "long.alibiseg"
    path.write_bytes(forest + b"\0")
    with pytest.raises(ClassifierFileError, match="damaged"):
        load_classifier_file(path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path, forest, where, bit):
    data = bytearray(forest)
    data[int(where * len(data))] ^= 1 << bit
    path = tmp_path / "flipped.alibiseg"
    path.write_bytes(data)
    try:
        header, arrays = load_classifier_file(path)
    except ClassifierFileError:
        return
    # Some bits carry nothing, such as the case of a unicode escape.
    path.write_bytes(forest)
    same_header, same_arrays = load_classifier_file(path)
    assert header == same_header
    assert all((arrays[k] == same_arrays[k]).all() for k in arrays)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(
        ["tree_start", "feature", "threshold", "left", "visits", "leaf_fraction"]
    ),
    where=st.floats(0, 1, exclude_max=True),
    value=st.integers(-(2**31), 2**31 - 1) | st.integers(-5, 40),
)
def test_a_forger_gets_an_error_or_a_forest_that_predicts(
    tmp_path, forest, name, where, value
):
    def change(document, arrays):
        a = arrays[f"forest.{name}"] = arrays[f"forest.{name}"].copy()
        a.reshape(-1).view(np.int32)[int(where * a.nbytes / 4)] = value

    path = tmp_path / "forged.alibiseg"
    path.write_bytes(rewritten(forest, change))
    try:
        header, arrays = load_classifier_file(path)
    except ClassifierFileError:
        return
    pixels = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    proba = classifier_from_arrays(header, arrays).predict_proba(pixels)
    np.testing.assert_allclose(proba.sum(axis=0), 1, atol=1e-3)


def test_the_limits_are_what_the_documentation_says():
    assert container.MAX_TEXT_BYTES == 8 << 20
    assert module.MAX_FILE_BYTES == 2 << 30
    assert container.MAX_ARRAYS == 64
