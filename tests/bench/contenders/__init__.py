"""The contenders: one module each, all asked the same (see `task.py`)."""

import importlib.util
import shutil
from dataclasses import dataclass

# Settles how Ray's processes authenticate each other, before any contender can import Ray.
import cluster  # noqa: F401


@dataclass(frozen=True)
class Contender:
    """A contender as the harness sees it."""

    name: str  # and its module's
    title: str
    needs: tuple[str, ...] = ()  # modules beyond requirements.lock of the project
    java: bool = False
    s3: bool = True
    same_model: bool = True  # False: its flags are others, or none, and are not compared

    @property
    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed (tests/bench/requirements.lock)"
        if self.java and shutil.which("java") is None:
            return "no Java on the path"
        return None


ALL = {
    contender.name: contender
    for contender in (
        Contender("limit", "hand-written loop, onnxruntime", needs=("onnx", "onnxruntime")),
        Contender("limit_torch", "hand-written loop, eager torch"),
        Contender("anomaray", "Anomaray, everything on"),
        Contender("floor", "Ray's start and stop, torch's import", same_model=False),
        Contender("daft_udf", "Daft, class UDF", needs=("daft",)),
        Contender(
            "daft_folded",
            "Daft, the limit's model in its UDF",
            needs=("daft", "onnx", "onnxruntime"),
        ),
        Contender("ray_tuned", "Ray Data, every knob"),
        Contender("spark", "PySpark mapInArrow", needs=("pyspark",), java=True, s3=False),
        Contender("ray_tutorial", "Ray Data, the tutorial's way"),
        Contender(
            "pyod_autoencoder", "PyOD AutoEncoder on pandas", needs=("pyod",), same_model=False
        ),
    )
}
