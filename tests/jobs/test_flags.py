"""Committed flags come back whole: as a frame, and on the terminal."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.lake.output.schemas import flag_schema
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.cli.app import app
from jobs.flags import query, read, show, to_json
from models.columns import Roles
from models.refusal import Refusal
from tests.jobs.flag_tables import DAYS, INPUT, ROLES, SCHEMA, commit, flags


def test_one_call_gives_a_frame_most_severe_first(flag_table: Store) -> None:
    frame = read(flag_table.uri)
    assert len(frame) == 6
    assert frame["severity"].is_monotonic_decreasing
    assert frame["severity"].iloc[0] == 90.0
    assert str(frame["ts"].dtype) == "datetime64[us, UTC]"
    assert frame["reasons"].iloc[0][1]["observed"] == "1,200,000"
    for i, day in enumerate(DAYS):
        assert len(read(flag_table.uri, day)) == 3 - i


def test_a_day_without_flags_is_an_empty_frame_with_all_columns(store: Store) -> None:
    flagged = LakeTable(store.child("flags"), flag_schema(INPUT, ROLES), "flags")
    flagged.commit(Commit("2026-11-23", "4be1c0a97d2f5e83", "ab12"), (), None)
    frame = read(flagged.store.uri, "2026-11-23")
    assert len(frame) == 0
    assert set(frame.columns) == set(SCHEMA.names)
    assert len(read(flagged.store.uri, "20261123")) == 0  # the same day
    count = query("SELECT count(*) n FROM flags", flagged.store.uri, "2026-11-23")
    assert count["n"].tolist() == [0]
    with pytest.raises(Refusal, match=r"2026-11-24: .* its only day is 2026-11-23; `score SPEC"):
        read(flagged.store.uri, "2026-11-24")


def test_the_verb_says_that_a_scored_day_has_no_flags(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flagged = LakeTable(open_store(str(out / "flags")), flag_schema(INPUT, ROLES), "flags")
    flagged.commit(Commit("2026-11-23", "4be1c0a97d2f5e83", "ab12"), (), None)
    spec = tmp_path / "flows.yaml"
    spec.write_text(f"""
name: flows
input: {{uri: {tmp_path / "in"}, partition: day}}
columns: {{uid: {{role: id}}, amount: {{role: numeric}}}}
detector: {{name: pca}}
threshold: {{policy: quantile, contamination: 0.01}}
output: {{uri: {out}}}
""")
    no_row = "no row has a score above the threshold"
    asked = {
        ("--day", "2026-11-23"): f"2026-11-23 was scored, and {no_row}\n",
        (): f"of all scored days {no_row}\n",
        ("--day", "2026-11-23", "--json"): "[]\n",
    }
    for options, said in asked.items():
        ended = CliRunner().invoke(app, ["flags", str(spec), *options])
        assert (ended.exit_code, ended.stdout) == (0, said)
    ended = CliRunner().invoke(app, ["flags", str(spec), "--day", "2026-11-24"])
    assert isinstance(ended.exception, Refusal)


def test_a_day_that_was_not_scored_is_refused_with_the_days_that_were(local_flags: Store) -> None:
    expected = (
        r"2026-11-23: expected a day that was scored, but the table lacks it: it has 3 days, the "
        r"nearest are 2026-11-21, 2026-11-22, a b/c=%20; `score SPEC --day 2026-11-23` scores it"
    )
    with pytest.raises(Refusal, match=expected):
        read(local_flags.uri, "2026-11-23")
    with pytest.raises(Refusal, match=expected):
        query("SELECT 1", local_flags.uri, "2026-11-23")
    commit(local_flags, *(flags(f"2026-10-{day:02d}", 1) for day in range(1, 8)))
    with pytest.raises(Refusal, match=r"10 days, the nearest are 2026-10-07, 2026-11-21, .*=%20;"):
        read(local_flags.uri, "2026-11-23")


def test_no_table_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(Refusal, match=r"found none; `score SPEC --day DAY`"):
        read(store.child("nothing").uri)


def test_a_time_of_no_calendar_is_text_in_a_frame(local_flags: Store, capsys: Any) -> None:
    far = "SELECT TIMESTAMP '200000-01-01' AS at, 'x' AS at, 1 AS one FROM flags LIMIT 1"
    found = query(far, local_flags.uri)
    assert found.iloc[0].tolist() == ["6249223180800000000 us since 1970", "x", 1]
    assert "200000" not in to_json(found)
    show(found, 5, Console())
    assert "us since 1970" in capsys.readouterr().out


def printed(frame: pd.DataFrame, limit: int = 10, width: int = 120, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show(frame, limit, console, **more)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_the_terminal_shows_severity_who_when_and_why(local_flags: Store) -> None:
    text = printed(read(local_flags.uri, "2026-11-21"), limit=2, roles=ROLES)
    assert "90.0" in text
    assert "2026-11-22 03:02:00" in text
    assert "host 10.0.0.1" in text
    assert "bytes 1,200,000 where 3,400 was expected" in text
    assert "2 of 3 rows" in text


def test_rows_without_an_entity_are_told_by_their_id(local_flags: Store) -> None:
    roles = Roles(id=("uid",), time="ts")
    frame = read(local_flags.uri, "2026-11-21")
    assert f"uid {frame['uid'][0]}" in printed(frame, roles=roles)


def test_the_terminal_shows_any_answer_of_sql(local_flags: Store) -> None:
    counted = "SELECT proto, count(*) AS n FROM flags GROUP BY 1 ORDER BY 1 NULLS FIRST"
    text = printed(query(counted, local_flags.uri))
    assert text.split() == ["proto", "n", "–", "3", "tcp", "3"]
    empty = "SELECT NULL::DOUBLE a, NULL::TIMESTAMP b, NULL c, [1] d FROM flags"
    nothing = query(empty, local_flags.uri)
    assert printed(nothing, limit=1).split()[4:8] == ["–", "–", "–", "[1]"]


@pytest.mark.parametrize("length", [18, 36, 64])
def test_ids_stand_in_one_piece_on_80_columns_beside_what_is_usual(
    local_flags: Store, length: int
) -> None:
    frame = read(local_flags.uri, "2026-11-21")
    frame["uid"] = [f"{i:0{length}x}" for i in range(len(frame))]
    usual = {"usual": "median 60, 1 to 7,000"}
    frame["reasons"] = [[reason | usual for reason in reasons] for reasons in frame["reasons"]]
    lines = [line.rstrip() for line in printed(frame, width=80, roles=ROLES).splitlines()]
    assert all(len(line) <= 80 for line in lines)
    for uid in frame["uid"]:
        assert f"          uid {uid}" in lines
    text = " ".join(" ".join(lines).split())
    assert "bytes 1,200,000 where 3,400 was expected; usual: median 60, 1 to 7,000" in text


@pytest.mark.parametrize("roles", [ROLES, None])
def test_a_hostile_log_field_cannot_reach_the_terminal(roles: Roles | None, tmp_path: Path) -> None:
    host = "[bold red]x[/] \x1b]0;owned\x07\x1b[2J\u202egnp\r" + "A" * 10_000
    store = open_store(str(tmp_path / "flags"))
    commit(store, flags("2026-11-22", 1, host))
    for frame in (read(store.uri), query('SELECT host AS "[u]h\x1b" FROM flags', store.uri)):
        text = printed(frame, roles=roles, width=200)
        assert "[bold red]x[/]" in text
        assert "\\x1b]0;owned\\x07" in text
        assert not any(c in text for c in "\x1b\x07\r\u202e")
        assert len(text) < 3_000
