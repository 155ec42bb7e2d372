"""Protocols of images, embeddings, recordings, texts and events, encoded as a watch would encode
them."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.columns import Audio, FeatureColumn, Image, Sequence, Text, Vector
from tests.quality.protocol import (
    ON_EMBEDDINGS,
    ON_SIGNALS,
    ON_TOKENS,
    Protocol,
    Trial,
    first_half_of_normal,
    labels_of,
    one_class,
    random_half_of_normal,
)
from tests.quality.tables import drawn

FASHION = (
    *("ankle_boot", "bag", "coat", "dress", "pullover", "sandal", "shirt", "sneaker"),
    *("t_shirt_top", "trouser"),
)
MVTEC = ("bottle", "capsule", "hazelnut", "leather", "metal_nut", "screw", "wood")
_PIXELS = 28  # of Fashion-MNIST: as they are
# Share of the messages that is spam when it is scored, and of ham that is learned from: NLP-ADBench
# (Li et al., 2024).
_SPAM, _LEARNED = 0.033, 0.7


def one_of_classes(
    parts: list[pa.Table], kind: str, normal: str, columns: tuple[FeatureColumn, ...]
) -> Trial:
    """Learn from the rows of one class in the first table; scored is all of the second."""
    train, test = parts
    wanted = [*(column.name for column in columns), kind]
    train = train.select(wanted)
    train = train.filter(pa.array(_texts(train, kind) == normal))
    rows = pa.concat_tables([train, test.select(wanted)])
    anomalous = pa.array((_texts(rows, kind) != normal).astype(np.int8))
    learned = np.arange(len(rows)) < len(train)
    return one_class(rows.append_column("label", anomalous), learned, columns)


def fashion_mnist(folder: Path, seed: int, normal: str) -> Trial:
    parts = [pq.read_table(folder / f"{part}.parquet") for part in ("train", "test")]
    return one_of_classes(parts, "class_name", normal, (Image("image", _PIXELS),))


def spoken_digits(file: Path, seed: int, normal: str) -> Trial:
    rows = pq.read_table(file)
    split = _texts(rows, "split")
    parts = [rows.filter(pa.array(split == part)) for part in ("train", "test")]
    return one_of_classes(parts, "digit", normal, (Audio("audio"),))


def mvtec(folder: Path, seed: int, category: str) -> Trial:
    """As `tables.adbench`: the rows are drawn with replacement before they are cut, so that most of
    the normal rows that are scored are among those learned from."""
    rows = drawn(_category(folder, category), seed)
    return one_class(rows, first_half_of_normal(labels_of(rows)), (Vector("embedding"),))


def mvtec_distinct(folder: Path, seed: int, category: str) -> Trial:
    """A random half of the normal rows of a category, each row once; scored are all others."""
    rows = _category(folder, category)
    return one_class(rows, random_half_of_normal(labels_of(rows), seed), (Vector("embedding"),))


def _category(folder: Path, category: str) -> pa.Table:
    return pq.read_table(folder / f"category={category}" / "part-0.parquet", partitioning=None)


def sms_spam(file: Path, seed: int) -> Trial:
    """A random 70% of ham; scored are the other ham, and as much spam as makes 3.3% of all."""
    rows = pq.read_table(file)
    _, first = np.unique(_texts(rows, "text"), return_index=True)
    rows = rows.take(pa.array(np.sort(first)))
    rng = np.random.default_rng(seed)
    spam = labels_of(rows) == 1
    ham = rng.permutation(np.flatnonzero(~spam))
    few = round(len(ham) * _SPAM / (1 - _SPAM))
    kept = np.concatenate([ham, rng.permutation(np.flatnonzero(spam))[:few]])
    learned = np.arange(len(kept)) < int(len(ham) * _LEARNED)
    return one_class(rows.take(pa.array(kept)), learned, (Text("text"),))


def bgl_2k(file: Path, seed: int) -> Trial:
    """A random half of the lines without an alert; scored are all other lines."""
    rows = pq.read_table(file)
    return one_class(rows, random_half_of_normal(labels_of(rows), seed), (Text("content"),))


def hdfs_100k(folder: Path, seed: int) -> Trial:
    """The normal sessions of train; scored are those of test. The same for every seed."""
    train, test = (pq.read_table(folder / f"{part}.parquet") for part in ("train", "test"))
    train = train.filter(pa.array(labels_of(train) == 0))
    learned = np.arange(len(train) + len(test)) < len(train)
    return one_class(pa.concat_tables([train, test]), learned, (Sequence("events"),))


def _texts(rows: pa.Table, name: str) -> np.ndarray:
    return np.array(rows.column(name).to_pylist()).astype(str)


_CLASS = "images of one class; scored: the whole test set"
_DIGIT = "recordings of one digit; scored: the takes kept for the test"
_MVTEC = "first half of the normal rows, resampled to 1,000 before the cut"
_DISTINCT = "a random half of the normal rows, each row once"

SIGNALS: tuple[Protocol, ...] = (
    *(
        Protocol(f"{family}/{c}", "mvtec_ad_resnet18", partial(draw, category=c), about, suited)
        for family, draw, about, suited in (
            ("mvtec_ad_resnet18", mvtec, _MVTEC, ON_EMBEDDINGS),
            ("mvtec_ad_resnet18_distinct", mvtec_distinct, _DISTINCT, ON_EMBEDDINGS),
        )
        for c in MVTEC
    ),
    *(
        Protocol(
            f"fashion_mnist/{c}",
            "fashion_mnist",
            partial(fashion_mnist, normal=c),
            _CLASS,
            ON_SIGNALS,
        )
        for c in FASHION
    ),
    *(
        Protocol(
            f"spoken_digits/{digit}",
            "spoken_digits/spoken_digits.parquet",
            partial(spoken_digits, normal=str(digit)),
            _DIGIT,
            ON_SIGNALS,
        )
        for digit in range(10)
    ),
    *(
        Protocol(name, source, draw, about, ON_TOKENS)
        for name, source, draw, about in (
            ("sms_spam", "sms_spam/sms_spam.parquet", sms_spam, "70% of ham, as in NLP-ADBench"),
            ("bgl_2k", "bgl_2k/bgl_2k.parquet", bgl_2k, "a random half of the normal lines"),
            ("hdfs_100k", "hdfs_100k", hdfs_100k, "normal sessions of train; scored: test"),
        )
    ),
)
