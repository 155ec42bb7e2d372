"""The GPUs of a machine, by a library with NVML's functions: two cards, of 40 and 80 GB."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from cluster.runtime.gpus import has_driver, is_torch_for_gpus, read_free_memory

SOURCE = """
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1) return 2;
    *device = (void *)(unsigned long)(index + 1);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)2;
    return strcmp(uuid, "GPU-b") ? 6 : 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->free = (unsigned long)device * 40000000000ULL;
    return 0;
}
"""
ONE, TWO = 40 * 10**9, 80 * 10**9


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    made = folder / "libnvml.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, folder / "nvml.c"], check=True)
    return made


@pytest.mark.parametrize(
    ("visible", "free"),
    [
        (None, [ONE, TWO]),
        ("0", [ONE]),
        ("1, 0", [TWO, ONE]),
        ("GPU-b", [TWO]),
        ("0,7,1", [ONE]),  # CUDA stops at the first that does not exist
        ("", []),
        ("-1", []),
    ],
)
def test_the_free_memory_of_the_visible_gpus_is_read(
    library: Path, visible: str | None, free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert read_free_memory(str(library)) == free


def test_a_machine_without_the_library_has_no_known_gpu() -> None:
    assert read_free_memory("libno-such-library.so") == []


def test_what_is_found_agrees_with_torch() -> None:
    assert is_torch_for_gpus() == bool(torch.version.cuda or torch.version.hip)
    assert has_driver() or not torch.cuda.is_available()
