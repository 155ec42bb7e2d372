"""Install what a run needs into a prefix: `install.py /opt/venv --variant gpu`.

The Dockerfile's step, and CI's: it needs Python with pip, the lock and nothing else. Only wheels
are taken, so no compiler is needed, then or later; the prefix itself has no pip. What is there in
the end is compared with the lock: nothing may have come in by itself.
"""

import argparse
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

# Python's own CUDA libraries come with torch's CUDA build, which pins each exactly; the lock is
# written where torch is a CPU build. So does setuptools, which `pip freeze` leaves out.
_OF_CUDA = ("nvidia-", "cuda-", "triton")
_UNLOCKED = ("setuptools",)

Variant = Literal["cpu", "gpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path, help="folder of the new virtual environment")
    parser.add_argument("--variant", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--torch-index", default="", help="package index for torch alone")
    parser.add_argument("--checkout", type=Path, default=Path(), help="where the lock is")
    given = parser.parse_args()
    lock = given.checkout / "requirements.lock"
    pins = read_lock(lock)
    venv.create(given.prefix, with_pip=False, symlinks=True)
    # torch first and by exact pin: a range, or another package's wish, brings another build.
    index = ["--index-url", given.torch_index] if given.torch_index else []
    _pip(given.prefix, [*index, f"torch=={pins['torch']}"])
    _pip(given.prefix, ["--constraint", str(lock), *direct(given.checkout / "pyproject.toml")])
    check_lock(given.prefix, pins, given.variant)
    check_variant(given.prefix, given.variant)


def read_lock(path: Path) -> dict[str, str]:
    """Version by normalised name."""
    lines = (line.split("==") for line in path.read_text().split())
    return {normalised(name): version for name, version in lines}


def normalised(name: str) -> str:
    """The form in which names of packages are equal (PEP 503, dots aside)."""
    return name.lower().replace("_", "-").replace(".", "-")


def direct(path: Path) -> list[str]:
    """What the product itself needs; tools of tests and linters stay out of the image."""
    needed: list[str] = tomllib.loads(path.read_text())["project"]["dependencies"]
    return needed


def check_lock(prefix: Path, pins: dict[str, str], variant: Variant) -> None:
    (packages,) = prefix.glob("lib/python*/site-packages")
    wrong = []
    for found in distributions(path=[str(packages)]):
        name, version = normalised(found.metadata["Name"]), found.version.partition("+")[0]
        is_of_cuda = variant == "gpu" and name.startswith(_OF_CUDA)
        if pins.get(name) != version and not is_of_cuda and name not in _UNLOCKED:
            wrong.append(f"{name} {version} (the lock has {pins.get(name, 'none')})")
    if wrong:
        sys.exit(f"{prefix}: expected what requirements.lock has, found {', '.join(sorted(wrong))}")


def check_variant(prefix: Path, variant: Variant) -> None:
    ask = "import torch; print(torch.version.cuda or '')"
    command = [str(prefix / "bin/python"), "-c", ask]
    found = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ours
    cuda = found.stdout.strip()
    if bool(cuda) != (variant == "gpu"):
        build = f"CUDA {cuda}" if cuda else "CPUs"
        sys.exit(
            f"expected torch for the variant {variant}, found a build for {build}: name an index "
            "that has the right one with --torch-index (build argument TORCH_INDEX)"
        )


def _pip(prefix: Path, arguments: list[str]) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(prefix / "bin/python"), "install"]
    options = ["--quiet", "--no-cache-dir", "--only-binary", ":all:", "--no-input"]
    subprocess.run([*pip, *options, *arguments], check=True)  # noqa: S603 - ours


if __name__ == "__main__":
    main()
