"""Classifiers to save, and a forger who signs what he changes."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import safetensors.numpy

from napari_alibi_seg._base import ClassifierSettings, FeatureSettings
from napari_alibi_seg.learn import fit_classifier, fit_projection

IDS = (1, 4, 300)


def make_classifier(kind="rf", settings=None):
    """Three classes with gaps in their ids, four features."""
    rng = np.random.default_rng(0)
    y = rng.choice(IDS, 240)
    x = rng.normal(size=(240, 4)) + np.searchsorted(IDS, y)[:, None]
    settings = settings or ClassifierSettings(kind=kind, n_trees=20)
    return fit_classifier(x.astype(np.float32), y, settings)


def make_projection(n_components=3):
    tokens = np.random.default_rng(1).normal(size=(200, 12)).astype(np.float32)
    return fit_projection(tokens, n_components)


def header_for(classifier, projection=None):
    n = None if projection is None else projection.n_components
    kind = "classical" if projection is None else "both"
    return {
        "versions": {"napari-alibi-seg": "0.1.0", "scikit-learn": "1.9"},
        "backbone": None
        if projection is None
        else {"name": "tiny", "sha256": "0" * 64, "alibi": {"slope": "constant"}},
        "features": {
            "settings": FeatureSettings(
                kind=kind, scale=2.0, halo_tokens=0, components=n
            ),
            "intensity": [(0.0, 255.0)],
            "n_features": classifier.n_features,
            "names": ["a", "b", "c", "d"],
        },
        "classifier": ClassifierSettings(kind=classifier.kind, n_trees=20),
        "classes": [
            {"id": 1, "name": "matrix", "colour": "#1f77b4"},
            {"id": 4, "name": "γ′ phase", "colour": "#ff7f0e"},
            {"id": 300, "name": "pore", "colour": "#2ca02c"},
        ],
        "training": classifier.summary,
    }


def opened(data):
    """Split a file into its document and its arrays, believing everything."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    return json.loads(table["__metadata__"]["alibiseg"]), safetensors.numpy.load(data)


def rewritten(data, change=lambda document, arrays: None, text=None):
    """Change a file's content and make table and checksum right again.

    `change` edits document and arrays in place; `text` edits the signed text.
    """
    document, arrays = opened(data)
    document["arrays"] = None
    change(document, arrays)
    if document["arrays"] is None:
        document["arrays"] = {
            name: {"dtype": a.dtype.name, "shape": list(a.shape)}
            for name, a in arrays.items()
        }
    if document.pop("sha256", None) is not None:
        digest = hashlib.sha256(canonical(document))
        for name in sorted(arrays):
            digest.update(arrays[name].tobytes())
        document["sha256"] = digest.hexdigest()
    signed = canonical(document).decode()
    metadata = {"alibiseg": text(signed) if text else signed}
    return safetensors.numpy.save(arrays, metadata=metadata)


def canonical(document):
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
