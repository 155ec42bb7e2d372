"""The detectors that docs/detectors.md tells to start with, by what a row is made of."""

from typing import Literal

Modality = Literal["table", "vectors", "images", "sounds", "one series", "series", "events"]

# docs/detectors.md, "Where to start", has the reasons; a test compares both. For a table, of normal
# rows: the choice is another where anomalies may be among them.
DOCUMENTED: dict[Modality, str] = {
    "table": "knn",
    "vectors": "gaussian",
    "images": "hog_knn",
    "sounds": "gaussian",
    "one series": "anomaly_likelihood",
    "series": "pca",
    "events": "gaussian",  # texts too
}
