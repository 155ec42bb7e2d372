"""Every key of a spec is checked, and every message names the line of the problem."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.days import DayRange
from jobs.spec.detector import check_detector
from jobs.spec.spec import Spec, SpecRefused, load
from models.columns import IPAddress, Numeric, Timestamp
from models.refusal import Refusal
from models.scores.threshold import Budget, Cost, ExtremeValue, FBeta, Policy, Quantile

SPECS = sorted((Path(__file__).parents[3] / "specs").glob("*.yaml"))

GOOD = """\
name: flows
input: {uri: data/flows, partition: day}
columns:
  uid:      {role: id}
  ts:       {role: [time, timestamp]}
  src_ip:   {role: [entity, ip], same_network_as: dst_ip}
  dst_ip:   {role: ip}
  duration: {role: numeric, log1p: true, clip: 5, range: [0, null]}
  note:     {role: keep, sensitive: mask}
  attack:   {role: kind}
  label:    {role: label}
detector: {name: autoencoder, widths: [64, 32]}
training: {learning_rate: 1e-3, days: 2026-01-01..2026-01-13}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: out/flows}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)

    def written(text: str) -> Path:
        Path("flows.yaml").write_text(text)
        return Path("flows.yaml")

    return written


def refusal(path: Path) -> str:
    with pytest.raises(SpecRefused) as caught:
        load(path)
    assert isinstance(caught.value, Refusal)
    return str(caught.value)


def test_a_spec_gives_features_and_roles_in_its_own_order(write: Callable[[str], Path]) -> None:
    spec = load(write(GOOD))
    assert spec.features == (
        Timestamp("ts"),
        IPAddress("src_ip", same_network_as="dst_ip"),
        IPAddress("dst_ip"),
        Numeric("duration", log1p=True, clip=5.0, low=0.0),
    )
    roles = spec.roles
    assert (roles.id, roles.time, roles.entity) == (("uid",), "ts", ("src_ip",))
    assert (roles.label, roles.kind, roles.sensitive) == ("label", "attack", frozenset({"note"}))
    assert roles.flagged == ("uid", "ts", "src_ip", "note")
    assert spec.training.learning_rate == 0.001  # YAML 1.1 reads `1e-3` as text
    assert spec.detector.options == {"widths": [64, 32]}
    assert spec.where("columns", "duration", "clip") == "flows.yaml:8"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_of_the_repository_load(path: Path) -> None:
    spec = load(path)
    assert spec.name == path.stem
    assert spec.features
    answers = {spec.roles.label, spec.roles.kind}
    assert not answers & {feature.name for feature in spec.features}


ONE_WRONG = [
    (
        "role: numeric,",
        "role: numrc,",
        "flows.yaml:8: columns.duration.role: expected one of id, time, entity, numeric,",
    ),
    ("role: numeric,", "role: numrc,", "found 'numrc'; did you mean 'numeric'?"),
    ("log1p", "log1", "flows.yaml:8: columns.duration.log1: expected one of role, sensitive,"),
    ("log1p", "log1", "found the unknown key 'log1'; did you mean 'log1p'?"),
    ("detector:", "detectr:", "flows.yaml:12: detectr: expected one of name, input, columns,"),
    ("detector:", "detectr:", "flows.yaml:1: detector: is missing"),
    ("clip: 5", "clip: '5'", "columns.duration.clip: expected a number, found '5'"),
    ("clip: 5", "clip: -5", "columns.duration.clip: expected more than 0.0, found -5"),
    ("log1p: true", "log1p: yes", "columns.duration.log1p: expected true or false, found 'yes'"),
    ("[0, null]", "[3, 1]", "columns.duration.range: expected [low, high] with low < high"),
    ("[0, null]", "[3]", "columns.duration.range: expected one more value in the list"),
    ("{role: id}", "{role: id, log1p: true}", "4: columns.uid.log1p: log1p belongs to the role"),
    ("{role: id}", "{}", "flows.yaml:4: columns.uid.role: is missing"),
    ("{role: id}", "id", "flows.yaml:4: columns.uid: expected keys and values, found 'id'"),
    ("{role: id}", "{role: [id, id]}", "columns.uid.role: the role id is listed twice"),
    (
        "role: keep, sensitive: mask",
        "role: label",
        "columns.label.role: expected one column with the role label",
    ),
    (
        "role: label",
        "role: [label, boolean]",
        "a label is for evaluation only; expected no other",
    ),
    ("[entity, ip]", "[port, ip]", "expected at most one feature role, found port, ip"),
    ("as: dst_ip", "as: dst_pi", "6: columns.src_ip.same_network_as: expected another column"),
    ("as: dst_ip", "as: dst_pi", "found 'dst_pi'; did you mean 'dst_ip'?"),
    ("note: ", "score:", "columns.score.role: the table of flags has its own column 'score'"),
    ("quantile", "quantil", "14: threshold.policy: expected one of quantile, budget, f_beta,"),
    ("contamination", "contamnation", "threshold.contamnation: expected one of policy, contam"),
    ("policy: quantile, contamination: 0.01", "flags: 3", "14: threshold.policy: is missing"),
    ("0.01}", "1.5}", "threshold.contamination: expected less than 1.0, found 1.5"),
    ("0.01}", ".inf}", "threshold.contamination: expected a number, found '.inf'"),
    ("2026-01-13}", "2025-01-13}", "13: training.days: expected FIRST..LAST or one day"),
    ("out/flows", "data/flows/out", "15: output.uri: expected a folder outside of input.uri"),
    (
        "uri: data/flows",
        "uri: s3://lake//flows",
        "2: input.uri: expected a place: 's3://lake//flows'",
    ),
    ("uri: data/flows", "uri: gs://b/flows", "2: input.uri: expected a path, file://… or s3://"),
    ("uri: data/flows", "uri: s3://k:s@b/flows", "with credentials in the AWS environment"),
    (
        "partition: day",
        "partition: ../day",
        "2: input.partition: expected a pattern that names",
    ),
    ("partition: day", "filter: 'a =='", "2: input.filter: expected a comparison of columns"),
    ("name: flows", "name: ../flows", "flows.yaml:1: name: expected letters, digits, _ and -"),
]


PLACES = [
    ("data/flows", "data/flows"),
    ("data/flows", "data/flows/out"),
    ("data/flows", "data/x/../flows//out/"),
    ("data/flows", "file://{here}/data/flows/out"),
    ("data/flows", "link/out"),
    ("file://localhost{here}/data/../link", "data/flows/out"),
    ("data/flows/one.parquet", "data/flows"),
    ("data/flows/", "data"),
    ("link", "data"),
    ("s3://lake/flows", "s3://lake/flows/"),
    ("s3://lake/flows", "s3://lake/flows/out"),
    ("s3://lake/out/flows", "s3://lake/out"),
    ("s3://lake/flows", "s3://lake"),
]


@pytest.mark.parametrize(("uri", "out"), PLACES)
@pytest.mark.parametrize("key", ["input", "training"])
def test_output_and_input_lie_apart_however_they_are_spelled(
    write: Callable[[str], Path], tmp_path: Path, key: str, uri: str, out: str
) -> None:
    Path("data/flows").mkdir(parents=True)
    Path("link").symlink_to("data/flows")
    uri, out = (text.replace("{here}", str(tmp_path)) for text in (uri, out))
    text = GOOD.replace("{uri: out/flows}", f"{{uri: '{out}'}}")
    given = f"uri: '{uri}', "
    if key == "input":
        text = text.replace("uri: data/flows, ", given)
    else:
        text = text.replace("training: {", "training: {" + given).replace(
            "data/flows,", "other,", 1
        )
    assert ": expected a folder outside of " in refusal(write(text))


def test_places_beside_each_other_are_apart(write: Callable[[str], Path]) -> None:
    Path("data/flows").mkdir(parents=True)
    for out in ("data/flows_out", "data/flow", "s3://lake/flows"):
        load(write(GOOD.replace("out/flows", out)))


@pytest.mark.parametrize(
    "uri", ["data/flows", "./data//flows/", "file://{here}/data/flows", "link"]
)
def test_training_rows_of_the_same_place_are_the_input_however_spelled(
    write: Callable[[str], Path], tmp_path: Path, uri: str
) -> None:
    Path("data/flows").mkdir(parents=True)
    Path("link").symlink_to("data/flows")
    given = uri.replace("{here}", str(tmp_path))
    assert not load(
        write(GOOD.replace("training: {", f"training: {{uri: '{given}', "))
    ).trains_apart
    assert load(write(GOOD.replace("training: {", "training: {uri: other, "))).trains_apart


@pytest.mark.parametrize(("old", "new", "message"), ONE_WRONG)
def test_a_message_names_file_line_key_what_was_expected_and_found(
    write: Callable[[str], Path], old: str, new: str, message: str
) -> None:
    assert old in GOOD
    assert message in refusal(write(GOOD.replace(old, new, 1)))


def test_all_problems_are_listed_in_the_order_of_the_file(write: Callable[[str], Path]) -> None:
    text = GOOD.replace("role: id", "role: idd").replace("0.01", "2").replace("data", "gs://data")
    lines = refusal(write(text)).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"flows.yaml:{n}" for n in (2, 4, 14)]


BAD_YAML = [
    ("name: !!python/object/apply:os.system [ls]\n", "flows.yaml:1: name: expected plain text"),
    ("name: !!python/object/apply:os.system [ls]\n", "!!python/object/apply:os.system"),
    ("name: !mine 3\n", "found the tag '!mine'; remove the tag"),
    ("name: a\nname: b\n", "flows.yaml:2: duplicate key 'name', first in line 1"),
    ("name: a\n3: b\n", "flows.yaml:2: expected a name as key, found '3'; put it in quotes"),
    ("name: {a: b\n", "flows.yaml:2: expected YAML, but"),
    ("name: a\n---\nname: b\n", "flows.yaml:2: expected YAML, but"),
    ("a: &a [*a]\n", "found aliases that expand to more"),
    ('name: "\\ud83c"\n', "flows.yaml:1: name: expected text, found half of a character"),
    ('"a\\nb": 1\n', "flows.yaml:1: 'a\\nb': expected one of name, input,"),
    ("", "flows.yaml:1: expected a spec, found an empty file"),
    ("- a\n", "flows.yaml:1: expected keys and values, found list"),
    ("a: " + "[" * 5000, "flows.yaml"),
    ("a: " + "[" * 60 + "]" * 60, "flows.yaml:1: expected at most 50 levels, found more"),
    ("a: " + "9" * 5000, "flows.yaml:1: a: expected at most 50 digits, found 5,000"),
    ("a: 0." + "9" * 5000, "flows.yaml:1: a: expected at most 50 digits, found 5,002"),
    ("a: !!int abc", "flows.yaml:1: a: expected a value of the tag !!int, found 'abc'"),
    ("a: !!float ''", "expected a value of the tag !!float, found ''; remove the tag"),
    ("a: !!bool maybe", "expected a value of the tag !!bool, found 'maybe'"),
    ("a: !!null x", "expected a value of the tag !!null, found 'x'"),
    ("a: !!merge x", "expected a value of the tag !!merge, found 'x'"),
    ("a: !!seq x", "flows.yaml:1: a: expected a value of the tag !!seq, found 'x'"),
    ("a: !!str [x]", "flows.yaml:1: expected YAML, but expected a scalar node"),
    ("? [a, b]\n: 1", "flows.yaml:1: expected a name as key, found a list or keys"),
    ("? {a: b}\n: 1", "flows.yaml:1: expected a name as key, found a list or keys"),
    ("? !!str [a]\n: 1", "flows.yaml:1: expected a name as key, found a list or keys"),
    ("!!int 3: 1", "flows.yaml:1: expected a name as key, found '3'; put it in quotes"),
    ("a: &a {<<: *a}", "flows.yaml:1: a mapping is merged into itself"),
    ("a: {<<: 3}", "flows.yaml:1: expected YAML, but expected a mapping"),
    ("a: *" + "b" * 100_000, "flows.yaml:1: expected YAML, but found undefined alias"),
    ("#" * (1 << 20) + "\n", "expected a spec of at most 1048576 bytes, found more"),
]


@pytest.mark.parametrize(("text", "message"), BAD_YAML)
def test_yaml_other_than_a_plain_mapping_is_refused_with_its_line(
    write: Callable[[str], Path], text: str, message: str
) -> None:
    assert message in refusal(write(text))


def test_aliases_that_multiply_are_refused_at_once(write: Callable[[str], Path]) -> None:
    """A "billion laughs": ten levels of ten aliases each."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 11)]
    assert "aliases" in refusal(write("\n".join(["l0: &l0 [x]", *levels]) + "\n"))


@pytest.mark.timeout(20)
def test_merge_keys_that_multiply_are_refused_before_they_are_merged(
    write: Callable[[str], Path],
) -> None:
    """1.4 kB that ask for 10^20 keys."""
    levels = [f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}" for n in range(1, 21)]
    text = "\n".join(["l0: &l0 {x: 1}", *levels]) + "\n"
    assert len(text) < 1_500
    assert "aliases that expand to more" in refusal(write(text))


def list_scalars(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, one in items for leaf in list_scalars(one, (*path, key))]


_HOSTILE = [
    "0",
    "-1",
    "1e999",
    "-.5",
    "9" * 50,
    "true",
    "~",
    "''",
    "'\\0'",
    "[]",
    "{}",
    "[[]]",
    "x.y",
]
_HOSTILE += [
    "{a: 1}",
    "!!int x",
    "*a",
    "2026-01-01",
    "99999999999",
    "1e-300",
    "../..",
    "s3://",
    "'",
]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_value_in_a_spec_is_accepted_or_refused(data: Any) -> None:
    path = data.draw(st.sampled_from(SPECS))
    document = yaml.safe_load(path.read_text())
    *above, last = data.draw(st.sampled_from(list_scalars(document)))
    place: Any = document
    for key in above:
        place = place[key]
    place[last] = "HOSTILE"
    value = data.draw(st.sampled_from(_HOSTILE))
    text = yaml.safe_dump(document, sort_keys=False).replace("HOSTILE", value)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Refusal):
        (Path(folder) / "a.yaml").write_text(text)
        spec = load(Path(folder) / "a.yaml")
        _ = spec.policy, spec.roles, spec.features, spec.derivation
        assert spec.scoring_digest != spec.training_digest


def test_bytes_that_are_not_utf8_are_refused_with_their_line(write: Callable[[str], Path]) -> None:
    path = write("")
    path.write_bytes(b"name: a\nnote: \xff\n")
    assert "flows.yaml:2: expected UTF-8 text" in refusal(path)


def test_a_missing_file_is_named_with_the_nearest_one(write: Callable[[str], Path]) -> None:
    write(GOOD)
    assert "no such file; did you mean 'flows.yaml'?" in refusal(Path("flow.yaml"))
    assert "no such file (the folder has flows.yaml)" in refusal(Path("zeek_conn.yaml"))


def test_options_may_be_shared_through_a_yaml_alias(write: Callable[[str], Path]) -> None:
    shared = "bytes:    &n {role: numeric, log1p: true}\n  pkts:     *n\n"
    text = GOOD.replace("ts:       {role: [time, timestamp]}\n", shared)
    assert [f.name for f in load(write(text)).features][:2] == ["bytes", "pkts"]


def test_a_column_may_be_named_like_a_yaml_word(write: Callable[[str], Path]) -> None:
    spec = load(write(GOOD.replace("note:", "no:").replace("attack:", "on:")))
    assert (spec.roles.keep, spec.roles.kind) == (("no",), "on")


POLICIES = [
    ("{policy: quantile}", Quantile(0.001)),
    ("{policy: budget, flags: 100}", Budget(100, "day")),
    ("{policy: budget, flags: 2, per: day_and_entity}", Budget(2, "day_and_entity")),
    ("{policy: f_beta, beta: 2}", FBeta(2.0)),
    ("{policy: cost, false_positive: 1, false_negative: 50}", Cost(1.0, 50.0)),
    ("{policy: extreme_value, probability: 1e-5}", ExtremeValue(1e-5, 0.02)),
]


@pytest.mark.parametrize(("text", "policy"), POLICIES)
def test_the_threshold_becomes_a_policy(
    write: Callable[[str], Path], text: str, policy: Policy
) -> None:
    spec = load(write(GOOD.replace("{policy: quantile, contamination: 0.01}", text)))
    assert spec.policy == policy


def test_a_policy_that_needs_labels_or_entities_is_refused_without_them(
    write: Callable[[str], Path],
) -> None:
    quantile = "{policy: quantile, contamination: 0.01}"
    text = GOOD.replace("role: label", "role: keep").replace("[entity, ip]", "ip")
    by_label = text.replace(quantile, "{policy: f_beta}")
    assert "14: threshold.policy: f_beta needs a column with the role" in refusal(write(by_label))
    by_entity = text.replace(quantile, "{policy: budget, flags: 2, per: day_and_entity}")
    assert "14: threshold.per: day_and_entity needs a column" in refusal(write(by_entity))


def test_a_digest_changes_only_with_the_keys_it_covers(
    write: Callable[[str], Path],
) -> None:
    def digests(text: str) -> tuple[str, str, str]:
        spec = load(write(text))
        return spec.scoring_digest, spec.training_digest, spec.digest

    def changed(text: str) -> tuple[bool, ...]:
        return tuple(a != b for a, b in zip(digests(GOOD), digests(text), strict=True))

    assert changed(f"# a comment\n{GOOD}") == (False, False, False)
    assert changed(f"{GOOD}gates: {{quarantine_rate: 0.5}}\n") == (False, False, True)
    assert changed(GOOD.replace("data/flows", "s3://b/flows")) == (False, False, True)
    assert changed(GOOD.replace("[64, 32]", "[64]")) == (False, True, True)
    assert changed(GOOD.replace("1e-3", "1e-2")) == (False, True, True)
    assert changed(GOOD.replace("out/flows", "out/flows, reasons: 2")) == (True, False, True)
    assert changed(GOOD.replace("clip: 5", "clip: 6")) == (True, True, True)
    lines = GOOD.splitlines(keepends=True)
    lines[6], lines[7] = lines[7], lines[6]  # the order of the columns is that of the features
    assert changed("".join(lines)) == (True, True, True)


def test_a_spec_is_a_value(write: Callable[[str], Path]) -> None:
    spec = load(write(GOOD))
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_range_of_days_has_both_ends_and_what_is_between(first: int, last: int, day: int) -> None:
    first, last = sorted((first, last))
    days = DayRange.parse(f"day-{first:02}..day-{last:02}")
    assert bool(days.choose([f"day-{day:02}"])) == (first <= day <= last)


@pytest.mark.parametrize("text", ["", "..", "a..", "..b", "b..a", "a..b..c"])
def test_a_broken_range_of_days_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected FIRST\.\.LAST"):
        DayRange.parse(text)


def test_loading_a_spec_imports_neither_torch_nor_ray() -> None:
    """`jobs check` stays quick."""
    code = f"from jobs.spec.spec import load; load({str(SPECS[0])!r}); import sys; "
    code += "print([m for m in ('torch', 'ray', 'scipy') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_spec_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValueError, match="threshold"):
        Spec.model_validate({"name": "a"})


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_of_the_repository_name_known_detectors(path: Path) -> None:
    check_detector(load(path))


def test_an_unknown_detector_is_refused_with_line_and_nearest_name(
    write: Callable[[str], Path],
) -> None:
    text = GOOD.replace("name: autoencoder", "name: autoencodr")
    text = text.replace("1e-3,", "1e-3, baselines: [pca, isolation_forst],")
    with pytest.raises(SpecRefused) as caught:
        check_detector(load(write(text)))
    first, second = caught.value.problems
    assert first.startswith(
        "flows.yaml:12: detector.name: expected one of anomaly_likelihood, autoencoder,"
    )
    assert first.endswith("found 'autoencodr'; did you mean 'autoencoder'?")
    assert second.startswith("flows.yaml:13: training.baselines.1: expected one of")
    assert second.endswith("did you mean 'isolation_forest'?")


def test_all_wrong_options_of_a_detector_are_listed(write: Callable[[str], Path]) -> None:
    text = GOOD.replace("widths: [64, 32]", "wdths: [64], latent: many")
    with pytest.raises(SpecRefused) as caught:
        check_detector(load(write(text)))
    first, second = caught.value.problems
    assert first.startswith("flows.yaml:12: detector.wdths: ")
    assert "did you mean 'widths'?" in first
    assert second.startswith("flows.yaml:12: detector.latent: ")
    assert "found 'many'" in second


def test_a_detector_that_learns_from_labels_needs_them(write: Callable[[str], Path]) -> None:
    text = GOOD.replace("role: label", "role: keep").replace(
        "autoencoder, widths: [64, 32]", "classifier"
    )
    with pytest.raises(
        SpecRefused, match=r"flows\.yaml:12: detector\.name: classifier learns from"
    ):
        check_detector(load(write(text)))


def test_a_detector_may_be_a_name_alone_and_auto_has_its_own_options(
    write: Callable[[str], Path],
) -> None:
    named = "{name: autoencoder, widths: [64, 32]}"
    spec = load(write(GOOD.replace(named, "auto")))
    check_detector(spec)
    assert (spec.detector.name, spec.detector.options) == ("auto", {})
    check_detector(load(write(GOOD.replace(named, "{name: auto, budget_seconds: 60}"))))
    with pytest.raises(SpecRefused, match=r"detector\.budget_second: .*'budget_seconds'"):
        check_detector(load(write(GOOD.replace(named, "{name: auto, budget_second: 60}"))))


def test_rows_cannot_be_trimmed_from_a_training_on_labels(write: Callable[[str], Path]) -> None:
    text = GOOD.replace("autoencoder, widths: [64, 32]", "devnet")
    text = text.replace("training: {", "training: {trim: 0.1, ")
    with pytest.raises(SpecRefused, match=r"flows\.yaml:13: training\.trim: expected 0 for devnet"):
        check_detector(load(write(text)))
