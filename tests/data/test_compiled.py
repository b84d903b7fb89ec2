"""Compilation where nothing can be kept on disk."""

from __future__ import annotations

import numba
import pytest

from napari_alibi_seg.data import _compiled


def njit_that_fails(message):
    def njit(*signature, **options):
        def decorate(function):
            if options.get("cache"):
                raise RuntimeError(message)
            return numba.njit(*signature, **options)(function)

        return decorate

    return njit


def twice(x):
    return 2 * x


def test_a_read_only_installation_compiles_each_time(monkeypatch):
    fails = njit_that_fails("cannot cache function 'twice': no locator available")
    monkeypatch.setattr(_compiled, "njit", fails)
    compiled = _compiled.compiled()(twice)
    assert compiled(21) == 42
    assert compiled.stats.cache_path is None


def test_other_failures_are_not_hidden(monkeypatch):
    monkeypatch.setattr(_compiled, "njit", njit_that_fails("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        _compiled.compiled()(twice)
