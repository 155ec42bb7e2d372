"""The GPUs that this process may use, asked of NVIDIA's management library (NVML).

The library answers in some milliseconds, starts no CUDA and takes no memory of a GPU. Torch takes
five seconds for the same question, and keeps some of the memory for its process.
"""

import ast
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

_LIBRARY, _DRIVER = "libnvidia-ml.so.1", "libcuda.so.1"
_AMD = Path("/dev/kfd")


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def has_driver() -> bool:
    """Whether the driver of a GPU is there; without it torch finds none either."""
    return any(_load(name) is not None for name in (_LIBRARY, _DRIVER)) or _AMD.exists()


def is_torch_for_gpus() -> bool:
    """Whether torch was built for GPUs, without importing it."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    facts = ast.parse(Path(torch.origin).with_name("version.py").read_text(encoding="utf-8"))
    return any(
        isinstance(fact, ast.AnnAssign)
        and isinstance(fact.target, ast.Name)
        and fact.target.id in ("cuda", "hip")
        and isinstance(fact.value, ast.Constant)
        and fact.value.value is not None
        for fact in facts.body
    )


def read_free_memory(library: str = _LIBRARY) -> list[int]:
    """Free bytes of each GPU that CUDA_VISIBLE_DEVICES leaves; none without the library."""
    nvml = _load(library)
    if nvml is None:
        return []
    with _started(nvml) as works:
        if not works:
            return []
        return [free for free in (_read(nvml, gpu) for gpu in _find(nvml)) if free is not None]


def _load(name: str) -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL(name)
    return None


@contextmanager
def _started(nvml: ctypes.CDLL) -> Iterator[bool]:
    works = nvml.nvmlInit_v2() == 0
    try:
        yield works
    finally:
        if works:
            nvml.nvmlShutdown()


def _find(nvml: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    """The handles of the visible GPUs. CUDA stops at the first that does not exist."""
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count.value)) if visible is None else visible.split(",")
    for name in map(str.strip, names):
        handle = ctypes.c_void_p()
        if name.isdigit():
            status = nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
        else:
            status = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if status != 0:
            return
        yield handle


def _read(nvml: ctypes.CDLL, gpu: ctypes.c_void_p) -> int | None:
    memory = _Memory()
    status = nvml.nvmlDeviceGetMemoryInfo(gpu, ctypes.byref(memory))
    return int(memory.free) if status == 0 else None
