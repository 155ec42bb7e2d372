"""docs/outputs.md describes the tables as they are declared."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.lake.output import schemas
from models.columns import Roles

PAGE = Path(__file__).parents[4] / "docs" / "outputs.md"
ROLES = Roles(id=("uid",), time="ts", entity=("host",), keep=("bytes",), pictured=("series",))
INPUT = pa.schema(
    [("uid", pa.string()), ("ts", pa.timestamp("s")), ("host", pa.string()), ("bytes", pa.int64())]
)
TABLES = {
    "flags": schemas.flag_schema(INPUT, ROLES),
    "scores": schemas.score_schema(INPUT, ROLES),
    "quarantine": schemas.QUARANTINE_SCHEMA,
}


def describe(kind: pa.DataType) -> str:
    """A type as the page writes it."""
    if pa.types.is_list(kind):
        return f"list of {describe(kind.value_type)}"
    if pa.types.is_struct(kind):
        fields = (kind.field(i) for i in range(kind.num_fields))
        return "{" + ", ".join(f"{field.name}: {describe(field.type)}" for field in fields) + "}"
    return str(kind)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_columns_and_types_of_each_table(name: str) -> None:
    section = PAGE.read_text().partition(f"### {name}\n")[2].partition("\n#")[0]
    written = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
    declared = [(f.name, describe(f.type)) for f in TABLES[name] if f.name not in INPUT.names]
    assert written == [*declared, ("day", "string")], f"write the columns into {PAGE}"


def test_the_page_has_every_folder() -> None:
    folders = {schemas.FLAGS, schemas.SCORES, schemas.QUARANTINE, schemas.RUNS, schemas.REGISTRY}
    written = set(re.findall(r"^\| `(\w+)/` \|", PAGE.read_text(), re.MULTILINE))
    assert written >= folders, f"write the folders into {PAGE}"
