"""The command line of the models room: list the detectors, start a new one.

Torch is imported by the command that needs it, so that `--help` answers at once.
"""

import keyword
import re
from pathlib import Path
from typing import Annotated

from models.packages import require_packages

with require_packages():
    import typer

ROOT = Path(__file__).parents[1]

app = typer.Typer(
    name="python -m models",
    help="Look at the detectors of the catalogue, or write a new one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_detectors(
    write: Annotated[
        bool, typer.Option("--write", help="Write the table and the count to the docs instead.")
    ] = False,
) -> None:
    """Print all detectors as a table: which columns fit, what each learns from, its idea.

    Below it are those of other packages: installed with an entry point of the group
    anomaray.detectors, or listed as MODULE:CLASS in ANOMARAY_DETECTORS.

    Our own table is in docs/detectors.md too, and the number of detectors in README.md.
    With --write both are brought up to date.
    """
    from models.detectors.catalog import CATALOG
    from models.detectors.overview import format_plugins, format_table, update_page, update_readme

    if not write:
        typer.echo(format_table(CATALOG) + format_plugins(), nl=False)
        return
    for name, update in (("docs/detectors.md", update_page), ("README.md", update_readme)):
        page = ROOT / name
        page.write_text(update(page.read_text(), CATALOG))
        typer.echo(f"{name}: {len(CATALOG)} detectors")


@app.command()
def new(
    name: Annotated[
        str,
        typer.Argument(help="As specs will write it, such as sliding_window.", metavar="NAME"),
    ],
) -> None:
    """Start a new detector: write models/detectors/NAME.py and add it to the catalogue.

    The file is a small detector that works: the distance of each value from its
    mean, with notes that say what to replace. A spec can name it at once, and the
    tests that all detectors share run over it from the start:

    \b
      python -m models new sliding_window
      python -m pytest tests/models/detectors/test_contract.py -k sliding_window
      python -m models list --write

    The last command writes its line in docs/detectors.md: the first paragraph of
    the docstring of its class.
    """
    folder = ROOT / "models" / "detectors"
    template, single = folder / "template.py", folder / "single.py"
    kind = "".join(word.capitalize() for word in name.split("_"))
    check_name(name, kind, folder)
    text = template.read_text().partition("\n")[2]  # without the comment on template.py itself
    text = text.replace("Template:", f"{name.replace('_', ' ').capitalize()}:")
    text = text.replace("Template", kind).replace("`template`", f"`{name}`")
    (folder / f"{name}.py").write_text(text)
    single.write_text(add_import(single.read_text(), name, kind))
    typer.echo(
        f"wrote models/detectors/{name}.py and added it to models/detectors/single.py\n"
        "next:\n"
        f"  replace what its notes say, with this at hand:\n"
        f"    python -m pytest tests/models/detectors/test_contract.py -k {name}\n"
        "  write its line in docs/detectors.md and the count in README.md:\n"
        "    python -m models list --write"
    )


def check_name(name: str, kind: str, folder: Path) -> None:
    """Raise BadParameter unless a new detector can have this name and a class named `kind`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise typer.BadParameter(
            f"expected a Python name in lower case, such as sliding_window, found '{name}'"
        )
    if name == "auto":
        raise typer.BadParameter(
            "'auto' is taken: `detector: auto` in a spec chooses a detector; choose another name"
        )
    if (folder / name).exists() or (folder / f"{name}.py").exists():
        raise typer.BadParameter(f"'{name}' is taken: models/detectors has it; choose another name")
    for file in ("single.py", "template.py"):
        if re.search(rf"^from .*\b{kind}\b", (folder / file).read_text(), re.MULTILINE):
            raise typer.BadParameter(
                f"'{name}' would have a class {kind}, which models/detectors/{file} already "
                "imports; choose another name"
            )


def add_import(text: str, name: str, kind: str) -> str:
    """The text of single.py with one more import, in order."""
    lines = text.splitlines(keepends=True)
    imports = [line for line in lines if line.startswith("from ")]
    first = lines.index(imports[0])
    added = sorted([*imports, f"from models.detectors.{name} import {kind}\n"])
    return "".join([*lines[:first], *added, *lines[first + len(imports) :]])


if __name__ == "__main__":
    app()
