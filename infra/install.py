"""Install the locked packages into a virtual environment: `install.py .venv --tools`.

`make`, the image and CI call it. It needs Python with pip and the locks, and nothing else. Every
package is checked against its hash in the lock, torch too. At the end the environment is compared
with the locks.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

# What venv itself brings.
_OF_VENV = {"pip"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path, help="folder of the new virtual environment")
    parser.add_argument("--variant", choices=("cpu", "gpu"), help="refuse torch's other build")
    parser.add_argument("--torch-index", default="", help="package index for torch alone")
    parser.add_argument("--checkout", type=Path, default=Path(), help="folder with the locks")
    parser.add_argument("--tools", action="store_true", help="also pip, and tools of tests")
    given = parser.parse_args()
    venv.create(given.prefix, with_pip=given.tools, symlinks=True)
    lock = given.checkout / "requirements.lock"
    _install_torch(given.prefix, lock, given.torch_index)
    is_cuda = _is_cuda(given.prefix)
    if given.variant and is_cuda != (given.variant == "gpu"):
        sys.exit(
            f"expected torch for the variant {given.variant}, found a build for "
            f"{'CUDA' if is_cuda else 'CPUs'}: name an index that has the right one with "
            "--torch-index (build argument TORCH_INDEX)"
        )
    locks = [lock]
    locks += [given.checkout / "requirements-cuda.lock"] if is_cuda else []
    locks += [given.checkout / "requirements-dev.lock"] if given.tools else []
    # Without tools only wheels are taken: an image has no compiler, then or later.
    wheels = [] if given.tools else ["--only-binary", ":all:"]
    files = [argument for path in locks for argument in ("--requirement", str(path))]
    _pip(given.prefix, ["install", "--require-hashes", *wheels, *files])
    _check(given.prefix, {name: version for path in locks for name, version in pins(path).items()})


def pins(lock: Path) -> dict[str, str]:
    """Version by normalised name, of a lock with or without hashes."""
    found = re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", lock.read_text())
    return {normalised(name): version for name, version in found}


def normalised(name: str) -> str:
    """The form in which names of packages are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _install_torch(prefix: Path, lock: Path, index: str) -> None:
    """Take the build of torch that the index prefers, if its hash is in the lock.

    It is downloaded before it is checked: with several allowed hashes pip would pick PyPI's CUDA
    build even where a build for CPUs is preferred.
    """
    (pin,) = re.findall(r"(?m)^torch==.*\n(?:    .*\n)*", lock.read_text())
    with tempfile.TemporaryDirectory() as folder:
        only = Path(folder, "torch.lock")
        only.write_text(pin)
        where = ["--index-url", index] if index else []
        version = pins(lock)["torch"]
        _pip(prefix, ["download", "--no-deps", *where, "--dest", folder, f"torch=={version}"])
        here = ["--no-index", "--find-links", folder, "--require-hashes", "--no-deps"]
        _pip(prefix, ["install", *here, "--requirement", str(only)])


def _is_cuda(prefix: Path) -> bool:
    """Whether torch asks for CUDA's packages on this platform."""
    (torch,) = (found for found in _installed(prefix) if found.metadata["Name"] == "torch")
    is_linux = platform.system() == "Linux"
    return is_linux and any(name.startswith("nvidia-") for name in torch.requires or [])


def _check(prefix: Path, locked: dict[str, str]) -> None:
    wrong = []
    for found in _installed(prefix):
        name, version = normalised(found.metadata["Name"]), found.version.partition("+")[0]
        if locked.get(name) != version and name not in _OF_VENV:
            wrong.append(f"{name} {version} (the locks have {locked.get(name, 'none')})")
    if wrong:
        names = ", ".join(sorted(wrong))
        sys.exit(
            f"{prefix}: expected the packages of the locks, found {names}: remove {prefix} and run "
            "the same command again"
        )


def _installed(prefix: Path) -> list[Distribution]:
    (packages,) = prefix.glob("lib/python*/site-packages")
    return list(distributions(path=[str(packages)]))


def _pip(prefix: Path, arguments: list[str]) -> None:
    """pip of the environment, or where it has none, this Python's."""
    python = prefix / "bin/python"
    own = [str(python), "-m", "pip"]
    pip = (
        own
        if list(prefix.glob("bin/pip"))
        else [sys.executable, "-m", "pip", "--python", str(python)]
    )
    options = ["--quiet", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments, *options], check=True)  # noqa: S603 - ours


if __name__ == "__main__":
    main()
