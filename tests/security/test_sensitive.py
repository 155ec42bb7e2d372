"""Sensitive values are masked or hashed, and no output of a night has them."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable

from cluster.lake.registry.signatures import make_key
from cluster.scoring.disguise import Disguise, Secret, digest_values, load_secret, mask_values
from cluster.splits import key_sample
from jobs import check
from jobs.spec.spec import SpecRefused, load
from models.columns import Roles
from models.refusal import Refusal
from tests.security import hostile
from tests.security.conftest import KEY, METRICS, Night

SECRET = Secret(KEY.encode())
DIGEST = re.compile(rf"{SECRET.id}:[0-9a-f]{{32}}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("4000123412345678", "****5678"),
        ("4000 1234 1234 5678", "****5678"),
        ("4000-1234-1234-5678", "****5678"),
        ("378282246310005", "****0005"),
        (4000123412345678, "****5678"),
        ("12345678", "****"),  # too short to be a card: its last four are half of it
        ("4000123412345678901234", "****"),
        ("card 4000123412345678", "****"),
        ("4000123412345678\n", "****"),
        ("", "****"),
        (b"4000123412345678", "****"),
        ([4000123412345678], "****"),
        (1.5, "****"),
        (True, "****"),
    ],
)
def test_a_mask_keeps_the_last_four_digits_of_a_card_and_nothing_else(
    value: object, shown: str
) -> None:
    assert mask_values(pa.array([value, None])).to_pylist() == [shown, None]


@pytest.mark.parametrize(
    "values",
    [
        ["10.0.0.1", "10.0.0.2", None, "10.0.0.1"],
        [1, 2, None, 1],
        [1.5, 2.5, None, 1.5],
        [b"\xff", b"\xfe", None, b"\xff"],
        [[1], [2], None, [1]],
        [{"a": 1}, {"a": 2}, None, {"a": 1}],
        [True, False, None, True],
        [timedelta(1), timedelta(2), None, timedelta(1)],
        [date(2026, 1, 1), date(2026, 1, 2), None, date(2026, 1, 1)],
        [time(1), time(2), None, time(1)],
        [datetime(2026, 1, 1), datetime(2026, 1, 2), None, datetime(2026, 1, 1)],
        [Decimal("1.1"), Decimal("1.2"), None, Decimal("1.1")],
    ],
)
def test_equal_values_have_equal_digests_under_one_key_and_no_other(values: list[object]) -> None:
    first, second, null, again = digest_values(pa.array(values), SECRET).to_pylist()
    assert first == again != second
    assert null is None
    assert DIGEST.fullmatch(first)
    other = digest_values(pa.array(values), Secret(b"another key of thirty-two bytes.")).to_pylist()
    assert other[0].partition(":")[2] != first.partition(":")[2]


def test_a_dictionary_is_disguised_as_its_values_are() -> None:
    plain = pa.array(["a", "b", None, "a"])
    for disguise in (mask_values, lambda column: digest_values(column, SECRET)):
        assert disguise(plain.dictionary_encode()).equals(disguise(plain))


def test_the_digest_is_the_hmac_of_the_standard() -> None:
    expected = hmac.new(KEY.encode(), b"value\x00" + b"10.0.0.1", hashlib.sha256).hexdigest()[:32]
    assert digest_values(pa.array(["10.0.0.1"]), SECRET).to_pylist() == [f"{SECRET.id}:{expected}"]


@pytest.mark.parametrize("value", ["", "count", "id", "count\0", "\0", "value\0"])
def test_no_value_has_a_digest_that_gives_away_how_ids_are_hashed(value: str) -> None:
    ids = Disguise(Roles(id=("a",), sensitive=frozenset("a"), keyed=frozenset("a")), SECRET)
    digest = digest_values(pa.array([value]), SECRET)[0].as_py().partition(":")[2]
    assert ids.hash_key is not None
    assert not digest.startswith((ids.hash_key, SECRET.id))


def test_a_key_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    from_file = load_secret({"ANOMARAY_HMAC_KEY_FILE": str(tmp_path / "key")})
    assert from_file == load_secret({"ANOMARAY_HMAC_KEY": KEY}) == SECRET
    assert KEY not in repr(Disguise(Roles(), SECRET))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "there is no key: expected ANOMARAY_HMAC_KEY_FILE"),
        ({"ANOMARAY_HMAC_KEY": "hunter2"}, "expected a key of 32 bytes or more, found 7"),
        ({"ANOMARAY_HMAC_KEY_FILE": "/nowhere"}, "expected a file with a key: No such file"),
    ],
)
def test_no_key_or_a_weak_one_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(Refusal, match=re.escape(message)) as told:
        load_secret(environment)
    assert "hunter2" not in str(told.value)


def test_a_node_with_another_key_does_not_score() -> None:
    with pytest.raises(Refusal, match="give all nodes the same key"):
        Disguise(Roles(), SECRET).require_key("0badc0de")


def test_hashes_of_secret_ids_cannot_be_undone_or_tried_out() -> None:
    ids = [pa.array([hostile.ACCOUNT, hostile.ACCOUNT + 1, hostile.ACCOUNT])]
    plain, under = key_sample.hash_keys(ids), key_sample.hash_keys(ids, "0123456789abcdef")
    other = key_sample.hash_keys(ids, "fedcba9876543210")
    assert under[0] == under[2] != under[1]
    assert not np.isin(under, [*plain, *other]).any()


def test_a_check_says_what_a_spec_does_not_hide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANOMARAY_HMAC_KEY", raising=False)
    monkeypatch.delenv("ANOMARAY_HMAC_KEY_FILE", raising=False)
    path = hostile.write(tmp_path, make_key(tmp_path / "key.pem").public)
    path.write_text(
        path.read_text().replace("role: categorical", "role: categorical\n    sensitive: mask")
    )
    report = check.run(path)
    assert report.ok, report.errors
    assert any("column 'shop' is sensitive and categorical" in line for line in report.warnings)
    assert any("there is no key: expected ANOMARAY_HMAC_KEY_FILE" in w for w in report.warnings)
    assert found("\n".join((*report.warnings, *report.inputs))) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            {"role": "time", "sensitive": "mask"},
            "reports show the values of a column with the role time",
        ),
        (
            {"role": "label", "sensitive": "hmac"},
            "reports show the values of a column with the role label",
        ),
        ({"role": "id", "sensitive": "mask"}, "a masked id no longer names a row"),
        ({"role": "keep", "sensitive": True}, "expected one of mask, hmac"),
    ],
)
def test_a_column_that_cannot_be_disguised_is_refused(
    column: dict[str, object], message: str, tmp_path: Path
) -> None:
    document: dict[str, Any] = hostile.spec(tmp_path)
    document["columns"]["extra"] = column
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(SpecRefused, match=rf"columns\.extra\.sensitive: .*{message}"):
        load(tmp_path / "watch.yaml")


# A whole night.


def words(path: Path) -> Iterator[str]:
    """The text of a file: every value and all metadata of Parquet, the bytes of others."""
    data = path.read_bytes()
    yield path.name
    yield data.decode("latin-1")
    if path.suffix == ".parquet" and data[:4] == b"PAR1":
        table = pq.read_table(pa.BufferReader(data))
        yield str(table.to_pylist())
        yield str(table.schema.to_string(show_schema_metadata=True))


def found(text: str) -> list[str]:
    encoded = {c: base64.b64encode(c.encode()).decode()[:-4] for c in hostile.CANARIES}
    return [c for c in hostile.CANARIES if c in text or encoded[c] in text]


def test_no_output_of_a_night_has_a_sensitive_value(night: Night) -> None:
    files = [
        p for name in ("out", "export") for p in (night.folder / name).rglob("*") if p.is_file()
    ]
    seen = {
        str(p.relative_to(night.folder)): [c for w in words(p) for c in found(w)] for p in files
    }
    for kind in ("flags", "scores", "quarantine", "reports", "_runs", "registry", "export"):
        assert any(kind in name for name in seen), kind
    assert {name: canaries for name, canaries in seen.items() if canaries} == {}


def test_no_message_or_log_of_a_night_has_a_sensitive_value(night: Night) -> None:
    for command, said in night.said.items():
        assert found("".join(said)) == [], command
    logs = [path for path in night.logs.rglob("*") if path.is_file()]
    assert any("worker" in path.name for path in logs)
    assert [str(path) for path in logs if found(path.read_bytes().decode("latin-1"))] == []


def test_no_metric_of_a_night_has_a_value_of_a_column(night: Night) -> None:
    metrics = (night.folder / METRICS).read_text()
    assert found(metrics) == []
    told = re.findall(r'^anomaray_flags_total\{watch="\w+"\} (\S+)$', metrics, re.MULTILINE)
    assert [float(value) > 0 for value in told] == [True]
    labels = {name for names in re.findall(r"\{(.*)\}", metrics) for name in names.split(",")}
    assert all(re.fullmatch(r'(watch|verb|stage)="[\w-]+"', label) for label in labels)


def test_the_key_is_nowhere(night: Night) -> None:
    for path in (path for path in night.folder.rglob("*") if path.is_file()):
        assert KEY not in path.read_bytes().decode("latin-1"), path
    assert all(KEY not in "".join(said) for said in night.said.values())


def test_flags_can_still_be_acted_on(night: Night) -> None:
    flags = night.rows("flags")
    assert set(flags["card"].to_pylist()) == {"****5678"}
    assert set(flags["person"].to_pylist()) == {"****"}
    for name in ("account", "street", "host"):
        assert all(DIGEST.fullmatch(value) for value in flags[name].to_pylist())
    street = digest_values(pa.array([hostile.STREET]), SECRET)[0].as_py()
    assert flags["street"].to_pylist().count(street) >= 10
    host = digest_values(pa.array(["10.0.0.1"]), SECRET)[0].as_py()
    assert host in [entity["value"] for entity in night.card["entities"]]


def test_a_commit_names_the_key_and_the_champion(night: Night) -> None:
    facts = DeltaTable(str(night.folder / "out" / "flags")).history(1)[0]
    assert (facts["hmac_key"], facts["champion"]) == (SECRET.id, "1")


def test_an_anomalys_id_is_not_made_of_the_plain_id(night: Night) -> None:
    flags = night.rows("flags")
    bundle = flags["bundle"][0].as_py()
    plain = {
        hashlib.sha256(
            repr((bundle, hostile.ACCOUNT + 3 * hostile.ROWS + row)).encode()
        ).hexdigest()[:20]
        for row in range(hostile.ROWS)
    }
    assert not plain & set(flags["anomaly_id"].to_pylist())


def test_reasons_of_sensitive_features_show_no_value(night: Night) -> None:
    reasons = [reason for row in night.rows("flags")["reasons"].to_pylist() for reason in row]
    of_hosts = [reason for reason in reasons if reason["feature"].startswith("host")]
    assert {(r["observed"], r["expected"]) for r in of_hosts} <= {("[sensitive]", "[sensitive]")}


def test_the_quarantine_names_rows_and_rules_alone(night: Night) -> None:
    rows = night.rows("quarantine").to_pylist()
    assert {(row["column"], row["rule"]) for row in rows} >= {
        ("amount", "out_of_range"),
        ("", "not_parquet"),
    }
    assert {row["message"] for row in rows if row["column"]} == {""}
