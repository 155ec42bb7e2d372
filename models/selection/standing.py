"""Finds the documented detector for a layout, which stands until another is clearly better."""

from models.detectors.catalog import CATALOG
from models.layout import Layout
from models.selection.documented import DOCUMENTED, Modality


def find_modality(layout: Layout) -> Modality:
    """What most of the numbers of a layout are: the first that it has of the list below."""
    kinds = {signal.kind for signal in layout.signals}
    if kinds & {"image", "video"}:
        return "images"
    if "spectrogram" in kinds:
        return "sounds"
    if "series" in kinds:
        channels = sum(signal.shape[0] - signal.masked for signal in layout.signals)
        alone = kinds == {"series"} and not (layout.numeric or layout.categories or layout.tokens)
        return "one series" if alone and channels == 1 else "series"
    if layout.tokens:
        return "events"
    return "vectors" if kinds else "table"


def find_standing(layout: Layout) -> str:
    """The documented detector for a layout; `pca` if that one does not fit it."""
    name = DOCUMENTED[find_modality(layout)]
    return name if CATALOG[name].unfit(layout) is None else "pca"
