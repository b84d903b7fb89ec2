"""Devices, formats, and what happens when memory runs out."""

from __future__ import annotations

import pytest
import torch

from napari_alibi_seg._base import (
    Alibi,
    ComputeError,
    DeviceMemoryError,
    SettingsError,
)
from napari_alibi_seg.features import _device as device_module
from napari_alibi_seg.features import load_backbone
from napari_alibi_seg.features._device import (
    BatchLimit,
    forward_batched,
    resolve_device,
    resolve_dtype,
)

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch):
    """Pretend that a machine has so many GPUs, and MPS or not."""

    def make(n_cuda: int, mps: bool = False, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("n_cuda", "mps", "expected"),
    [(2, True, "cuda"), (1, False, "cuda"), (0, True, "mps"), (0, False, "cpu")],
)
def test_auto_takes_the_best_and_says_so(machine, caplog, n_cuda, mps, expected):
    machine(n_cuda, mps)
    caplog.set_level("INFO", "napari_alibi_seg")
    assert resolve_device("auto") == torch.device(expected)
    assert f"is '{expected}' on this machine" in caplog.text


@pytest.mark.parametrize(
    ("n_cuda", "asked"),
    [(2, "cuda:1"), (1, "cuda"), (1, "cuda:0"), (0, "cpu"), (0, CPU), (0, "cpu:0")],
)
def test_named_devices(machine, n_cuda, asked):
    machine(n_cuda)
    assert resolve_device(asked) == torch.device(asked)


@pytest.mark.parametrize(
    ("n_cuda", "asked"),
    [
        *((0, "cuda"), (1, "cuda:1"), (0, "mps"), (0, "cpu:1"), (1, "xpu")),
        *((0, "gpu"), (0, "meta"), (0, ""), (0, 3), (0, None)),
    ],
)
def test_a_named_device_is_never_replaced(machine, n_cuda, asked):
    machine(n_cuda)
    with pytest.raises(SettingsError, match=r"`device`.*'cpu'\]"):
        resolve_device(asked)


def test_absent_device_of_a_backbone(make_vit, save):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(SettingsError, match="'cuda' is not on this machine"):
        load_backbone(save(make_vit("dinov2").state_dict()), device="cuda")


def test_default_formats(machine):
    machine(1, bf16=True)
    assert resolve_dtype(None, CUDA) == torch.bfloat16
    machine(1, bf16=False)
    assert resolve_dtype(None, CUDA) == torch.float16
    assert resolve_dtype(None, CPU) == torch.float32
    assert resolve_dtype(None, MPS) in (torch.float16, torch.float32)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_named_formats(dtype, expected):
    assert resolve_dtype(dtype, CUDA) == expected


@pytest.mark.parametrize("dtype", ["half", "int8", torch.int64, torch.float64, 16])
def test_other_formats_are_refused(dtype):
    with pytest.raises(SettingsError, match=r"`dtype` must be one of \['bfloat16'"):
        resolve_dtype(dtype, CPU)


class Memory:
    """A forward pass on a device that holds so many images."""

    def __init__(self, fits: int, error=None):
        self.fits = fits
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.fits:
            raise self.error
        return batch * 2


@pytest.mark.parametrize(
    ("fits", "sizes"),
    [
        (8, [7]),
        (4, [7, 3, 3, 1]),
        (2, [7, 3, 1, 1, 1, 1, 1, 1, 1]),
        (1, [7, 3, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(caplog, fits, sizes):
    batch = torch.arange(7.0)[:, None]
    memory, limit = Memory(fits), BatchLimit()
    out = forward_batched(memory, batch, limit)
    assert torch.equal(out, batch * 2)
    assert memory.sizes == sizes
    failures = sum(size > fits for size in sizes)
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == failures
    if failures:
        assert "with 7 images at once; going on with 3" in warnings[0].getMessage()
    # remembered: the next batch starts with what fitted
    forward_batched(memory, batch, limit)
    assert max(memory.sizes[len(sizes) :]) <= fits


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
    ids=["cuda", "mps", "cpu", "python"],
)
def test_one_image_that_does_not_fit(error):
    with pytest.raises(DeviceMemoryError, match=r"\(3, 5\) pixels.*`tile_px`") as err:
        forward_batched(Memory(0, error), torch.zeros(2, 1, 3, 5))
    assert err.value.__cause__ is error


def test_other_failures_are_no_matter_of_memory():
    memory = Memory(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(ComputeError, match="shapes cannot be multiplied") as err:
        forward_batched(memory, torch.zeros(4, 1))
    assert memory.sizes == [4]
    assert not isinstance(err.value, RuntimeError)  # which Qt workers swallow


def test_a_backbone_survives_a_full_device(make_vit, save, images, monkeypatch):
    """The error is injected where attention would allocate."""
    path = save(make_vit("dinov2-reg").state_dict())
    backbone = load_backbone(path, alibi=Alibi(), device="cpu")
    x = images(14, (3, 3), batch=6)
    expected = backbone.patch_features(x)
    backbone._limit = BatchLimit()  # as on a GPU
    forward = backbone._model.blocks[0].forward
    sizes = []

    def full(x, **kwargs):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, **kwargs)

    monkeypatch.setattr(backbone._model.blocks[0], "forward", full)
    out = backbone.patch_features(x)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert backbone._limit.size == 1


def test_memory_is_given_back_before_the_next_attempt(machine, monkeypatch):
    machine(1)
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    forward_batched(Memory(2), torch.zeros(4, 1))
    assert len(calls) == 1
    assert device_module.is_out_of_memory(torch.OutOfMemoryError())


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
def test_cuda_is_close_to_the_cpu(make_vit, save, images, attention):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    path = save(make_vit("dinov2-reg").state_dict())
    x = images(14, (6, 7), batch=3)
    cpu = load_backbone(path, alibi=Alibi(), device="cpu").patch_features(x)
    for dtype, tolerance in (("float32", 1e-3), (None, 0.2)):
        backbone = load_backbone(
            path, alibi=Alibi(), device="cuda", dtype=dtype, attention=attention
        )
        out = backbone.patch_features(x)
        assert out.device.type == "cuda"
        torch.testing.assert_close(out.cpu(), cpu, atol=tolerance, rtol=0)
