"""`init` proposes a role for lists, bytes and texts, and the spec that it writes loads and fits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import check, init
from jobs.inference.roles import infer
from jobs.spec.spec import load
from models.columns import Audio, Image, Sequence, Text, Video
from models.refusal import Refusal
from tests.models.media import image_bytes, mixed, plain_image, tone

ROLES = {
    "embedding": "vector",
    "series": "sequence",
    "events": "sequence",
    "picture": "image",
    "message": "text",
    "call": "audio",
    "clip": "video",
}


def test_lists_bytes_and_texts_get_the_role_that_their_content_asks_for(tmp_path: Path) -> None:
    table = mixed(30)
    found = {column.name: column for column in infer(table)}
    assert {name: column.roles for name, column in found.items()} == {
        name: (role,) for name, role in ROLES.items()
    }
    assert found["picture"].why == "PNG files"
    pq.write_table(table, tmp_path / "rows.parquet")
    path = tmp_path / "watch.yaml"
    path.write_text(init.init(str(tmp_path / "rows.parquet"), path))
    assert load(path).columns.keys() == ROLES.keys()
    assert check.run(path).ok


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([b"abc", b"def"], "the type binary makes no feature"),
        ([plain_image(3), tone(500)], "the type binary makes no feature"),
        ([plain_image(3), image_bytes([[3]], "WEBP"), None], "PNG and WebP files, null in 33.3%"),
    ],
)
def test_bytes_are_told_by_how_they_begin(cells: list[bytes], why: str) -> None:
    (found,) = infer(pa.table({"payload": pa.array(cells, pa.binary())}))
    assert found.why.startswith(why)


def spec_of(folder: Path, columns: str) -> Path:
    path = folder / "watch.yaml"
    path.write_text(
        f"name: w\ninput: {{uri: {folder}/rows.parquet, partition: null}}\n"
        f"columns:\n{columns}\ndetector: {{name: pca}}\n"
        "threshold: {policy: quantile}\noutput: {uri: out}\n"
    )
    return path


def test_the_options_of_signals_reach_the_encoder(tmp_path: Path) -> None:
    columns = """
  a: {role: sequence, length: 9, keep: first, max_values: 5}
  b: {role: image, size: 28, channels: 1}
  c: {role: audio, sample_rate: 16000, seconds: 2.5, mels: 64}
  d: {role: text, ngrams: 0}
  e: {role: video, frames: 4}"""
    assert load(spec_of(tmp_path, columns)).features == (
        Sequence("a", 5, 9, "first"),
        Image("b", 28, 1),
        Audio("c", 16_000, 2.5, 64),
        Text("d", 256, 0),
        Video("e", 4),
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "{role: vector, size: 8}",
            r"watch.yaml:4: columns.a.size: size belongs to the role image",
        ),
        ("{role: image, length: 8}", r"length belongs to the role sequence or text, found image"),
        ("{role: image, channels: 2}", r"watch.yaml:4: columns.a.channels"),
        ("{role: [image, text]}", r"expected at most one feature role, found"),
    ],
)
def test_a_wrong_option_is_named_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        load(spec_of(tmp_path, f"  a: {entry}"))


def test_check_names_the_column_whose_type_does_not_fit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"x"]}), tmp_path / "rows.parquet")
    report = check.run(spec_of(tmp_path, "  a: {role: vector}"))
    assert "watch.yaml:4: column 'a' as vector: expected a list of numbers" in report.errors[0]
