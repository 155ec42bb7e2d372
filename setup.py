"""The wheel of the installed command: one package, `anomaray`, with the checkout inside it
(infra/installed). Everything else of the build is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
FOLDERS = ("models", "cluster", "jobs")
CHECKOUT = "anomaray.checkout"

rooms = [
    path.parent.relative_to(ROOT)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("__init__.py"))
]
setup(
    packages=["anomaray", CHECKOUT, *(".".join((CHECKOUT, *room.parts)) for room in rooms)],
    package_dir={
        "anomaray": "infra/installed",
        CHECKOUT: ".",
        **{f"{CHECKOUT}.{folder}": folder for folder in FOLDERS},
    },
    package_data={
        CHECKOUT: ["pyproject.toml", "requirements.lock", "specs/*.yaml", "docs/spec.schema.json"],
        f"{CHECKOUT}.jobs.report": ["templates/*"],
    },
)
