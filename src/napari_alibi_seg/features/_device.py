"""Devices, number formats and memory: what differs between machines.

Only this module knows which devices exist, which format each computes in, and what
running out of memory looks like. It turns torch's `RuntimeError`s into this package's
errors, because Qt generator workers swallow that class.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from napari_alibi_seg._base import ComputeError, DeviceMemoryError, SettingsError

__all__ = [
    "BatchLimit",
    "autocast",
    "describe_devices",
    "forward_batched",
    "resolve_device",
    "resolve_dtype",
]

_logger = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Only CUDA has a class of its own; the other allocators say it in words.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def _n_cuda() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _available() -> list[str]:
    names = [f"cuda:{i}" for i in range(_n_cuda())]
    return [*names, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"} or torch.device
        "auto" takes CUDA, else MPS, else the CPU, and logs what it took. A device
        that is named is taken or refused, never replaced.

    Raises
    ------
    SettingsError
        If there is no such device.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    here = _available()
    if device == "auto":
        chosen = torch.device("cuda" if here[0].startswith("cuda") else here[0])
        _logger.info("device 'auto' is %r on this machine", str(chosen))
        return chosen
    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError) as err:
        raise SettingsError(
            f"`device` must be 'auto' or one of {here}, got {device!r}."
        ) from err
    types = {name.split(":")[0] for name in here}
    known = {*here, *types, *(f"{name}:0" for name in types)}
    if (asked.type if asked.index is None else str(asked)) not in known:
        raise SettingsError(
            f"`device` {str(device)!r} is not on this machine, which has {here}. "
            "Name one of those, or 'auto'."
        )
    return asked


def describe_devices() -> list[str]:
    """Return the devices of this machine with the memory that is free on them.

    Examples
    --------
    >>> describe_devices()[-1]
    'cpu'
    """
    out = []
    for name in _available():
        if name.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(torch.device(name))
            title = torch.cuda.get_device_name(torch.device(name))
            name = f"{name} ({title}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free)"
        out.append(name)
    return out


def _default_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float16
    if device.type == "mps" and torch.amp.is_autocast_available("mps"):
        return torch.float16
    return torch.float32


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the format to compute in.

    Parameters
    ----------
    dtype : {"float32", "bfloat16", "float16"}, torch.dtype or None
        None is float32 on the CPU; on CUDA bfloat16 where the GPU has it, else
        float16; on MPS float16 where torch can autocast there, else float32.
    device : torch.device
        From `resolve_device`.

    Raises
    ------
    SettingsError
        If `dtype` is none of these.

    Examples
    --------
    >>> resolve_dtype(None, torch.device("cpu"))
    torch.float32
    """
    if dtype is None:
        return _default_dtype(device)
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise SettingsError(
            f"`dtype` must be one of {sorted(_DTYPES)} or None, got {dtype!r}."
        )
    return chosen


def autocast(
    device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass on `device` computes in `dtype`."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


class BatchLimit:
    """The largest batch that has fitted so far; None while nothing failed.

    Examples
    --------
    >>> limit = BatchLimit()
    >>> limit.shrink_to(2)
    >>> limit.size
    2
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._lock = threading.Lock()

    @property
    def size(self) -> int | None:
        """Images that go to the device together."""
        return self._size

    def shrink_to(self, size: int) -> None:
        """Remember that more than `size` did not fit."""
        with self._lock:
            self._size = size if self._size is None else min(size, self._size)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether `err` says that an allocation failed."""
    if isinstance(err, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(err).lower() for words in _OUT_OF_MEMORY)


def _attempt(fn: Callable[[Tensor], Tensor], chunk: Tensor) -> Tensor | None:
    """Return ``fn(chunk)``, or None if it needs more memory than there is."""
    try:
        return fn(chunk)
    except (RuntimeError, MemoryError) as err:
        if not is_out_of_memory(err):
            raise ComputeError(
                f"The forward pass of {tuple(chunk.shape)} failed: {err}"
            ) from err
        if len(chunk) == 1:
            raise DeviceMemoryError(
                f"One image of {tuple(chunk.shape[-2:])} pixels does not fit into the "
                "memory of the device. Use smaller tiles (`tile_px`), close other "
                "programs that use the device, or compute with device='cpu'."
            ) from err
        return None


def forward_batched(
    fn: Callable[[Tensor], Tensor], batch: Tensor, limit: BatchLimit | None = None
) -> Tensor:
    """Apply `fn` to `batch`, in as few pieces as the memory allows.

    Parameters
    ----------
    fn : callable
        Maps (n, ...) to (n, ...) for any n.
    batch : (B, ...) tensor
        At least one image.
    limit : BatchLimit, optional
        Halved when memory runs out, and heeded from the start: pass the same one
        again and the failure is not repeated.

    Returns
    -------
    (B, ...) tensor

    Raises
    ------
    DeviceMemoryError
        If a single image does not fit.
    ComputeError
        If `fn` fails in another way.

    Examples
    --------
    >>> forward_batched(lambda x: x + 1, torch.zeros(3, 1)).flatten()
    tensor([1., 1., 1.])
    """
    limit = BatchLimit() if limit is None else limit
    done: list[Tensor] = []
    start = 0
    while start < len(batch):
        chunk = batch[start : start + (limit.size or len(batch))]
        out = _attempt(fn, chunk)
        if out is not None:
            done.append(out)
            start += len(chunk)
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        limit.shrink_to(len(chunk) // 2)
        _logger.warning(
            "Out of device memory with %d images at once; going on with %d.",
            len(chunk),
            len(chunk) // 2,
        )
    return done[0] if len(done) == 1 else torch.cat(done)
