"""Write every lock file anew, with hashes: `make lock`.

requirements.lock       what a run needs: the dependencies of pyproject.toml and what they bring
requirements-cuda.lock  what torch's CUDA build brings in addition
requirements-dev.lock   tools of tests and linters that requirements.lock does not have

The other locks (infra, Airflow, benchmark, audit) list all their packages; they only get hashes.
A version changes only where pyproject.toml asks for it: the old locks are constraints.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, CUDA, DEV = (ROOT / f"requirements{kind}.lock" for kind in ("", "-cuda", "-dev"))
LISTED = (
    "infra/requirements.lock",
    "infra/airflow/requirements.lock",
    "tests/bench/requirements.lock",
    "tests/security/requirements.lock",
)
# PyPI has torch for CUDA only. These are PyTorch's own builds for CPUs, on Linux with CPython 3.11.
CPU_TORCH = ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)
HEAD = "# Written by `make lock`: change pyproject.toml, not this file.\n"


def main() -> None:
    old = [path for path in (RUN, CUDA, DEV) if path.exists()]
    run = _compile(["pyproject.toml"], old)
    everything = _compile(["pyproject.toml", "--extra", "dev"], old)
    cuda = {name: pin for name, pin in run.items() if _is_cuda(name)}
    run = {name: pin for name, pin in run.items() if name not in cuda}
    torch, *hashes = run["torch"].splitlines()
    builds = [f"    --hash=sha256:{digest} \\" for digest in CPU_TORCH]
    run["torch"] = "\n".join([torch, *(b for b in builds if b not in run["torch"]), *hashes])
    _write(RUN, run)
    _write(CUDA, cuda)
    _write(DEV, {name: pin for name, pin in everything.items() if name not in run | cuda})
    for name in LISTED:
        path = ROOT / name
        comments = "".join(re.findall(r"(?m)^#.*\n", path.read_text()))
        _write(path, _compile([name, "--no-deps"], []), comments or HEAD)


def _is_cuda(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-", "triton"))


def _compile(sources: list[str], constraints: list[Path]) -> dict[str, str]:
    """Pins with hashes, by the name of the package; raises CalledProcessError."""
    command = [sys.executable, "-m", "uv", "pip", "compile", *sources, "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--quiet", "--python-version", "3.11.5"]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    for path in constraints:
        command += ["--constraint", str(path)]
    made = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    pins = re.findall(r"(?m)^\S+==.*\n(?:    .*\n?)*", made.stdout)
    return {pin.partition("==")[0]: pin.rstrip("\n") for pin in pins}


def _write(path: Path, pins: dict[str, str], head: str = HEAD) -> None:
    path.write_text(head + "".join(f"{pins[name]}\n" for name in sorted(pins)))


if __name__ == "__main__":
    main()
