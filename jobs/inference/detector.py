"""Guesses the detector of a first spec from the roles of its columns."""

from collections.abc import Collection

from models.selection.documented import DOCUMENTED


def choose_detector(
    roles: Collection[str], of_numbers: bool = False, normal: bool = False
) -> tuple[str, str]:
    """The documented detector for columns of these roles, and why.

    `of_numbers` says whether a `sequence` is one of numbers, and `normal` whether only normal rows
    are learned from. If not, a table gets a detector that tolerates anomalies among its rows.

    >>> choose_detector({"numeric", "image"})
    ('hog_knn', 'for images')
    """
    if {"image", "video"} & set(roles):
        return DOCUMENTED["images"], "for images"
    if "audio" in roles:
        return DOCUMENTED["sounds"], "for sounds"
    if {"ip", "port"} & set(roles):
        return "autoencoder", "for network flows"
    if "sequence" in roles and of_numbers:
        return DOCUMENTED["series"], "for series"
    if {"sequence", "text"} & set(roles):
        return DOCUMENTED["events"], "for events and texts"
    if "vector" in roles:
        return DOCUMENTED["vectors"], "for vectors"
    if normal:
        return DOCUMENTED["table"], "for tables, of normal rows"
    return "isolation_forest", "tolerates anomalies; knn for normal rows only, auto to try several"
