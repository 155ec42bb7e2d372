"""Detectors of other packages: found where the operator put or allowed them, else never run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.cli.command import report_errors
from models.bundle import MANIFEST, open_bundle, read_facts, write_directory
from models.detectors.catalog import CATALOG
from models.detectors.overview import format_plugins
from models.detectors.plugins import Package, find_culprit, find_plugin, list_packages
from models.layout import Layout, NumericInput
from models.refusal import Refusal
from tests.models.detectors.plugin_packages import TEMPLATE, Site
from tests.models.flows import batch_of, flows
from tests.models.test_bundle import forged, trained

NUMBERS = Layout((NumericInput("x", "real"),), ())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder, monkeypatch)


def test_an_entry_point_is_found_by_its_name_and_imported_only_when_it_is_built(site: Site) -> None:
    ran = site.write("apart1")
    site.install("apart-one", "1.2", "apart1", **{"apart.distance": "apart1:Template"})
    assert CATALOG.list_names() == [*CATALOG, "apart.distance"]
    assert CATALOG.find_package("apart.distance") == Package("apart-one", "1.2")
    assert list_packages() == [Package("apart-one", "1.2")]
    assert not ran.exists()
    detector = CATALOG.build("apart.distance", NUMBERS, {"least_variance": 0.5})
    assert detector.config.least_variance == 0.5
    assert ran.exists()
    with pytest.raises(Refusal, match=r"'apart.distance' has no option 'varianc'"):
        CATALOG.configure("apart.distance", {"varianc": 1})
    with pytest.raises(
        Refusal, match=r"unknown detector 'apart.distanc'; did you mean 'apart.dist"
    ):
        CATALOG.find("apart.distanc")


@pytest.mark.parametrize(
    ("allowed", "runs"),
    [
        ((), False),
        (("apart",), False),
        (("apart22",), False),
        (("apart2.inner",), False),
        (("apart2:Other",), False),
        (("apart2",), True),
        (("other", "apart2"), True),
        (("apart2:Template",), True),
    ],
)
def test_a_class_runs_only_where_the_operator_allows_its_package(
    site: Site, allowed: tuple[str, ...], runs: bool
) -> None:
    ran = site.write("apart2")
    if allowed:
        site.allow(*allowed)
    if runs:
        assert CATALOG.find("apart2:Template").__module__ == "apart2"
    else:
        with pytest.raises(
            Refusal, match=r"to allow it, found .*: if you trust it, set ANOMARAY_D"
        ):
            CATALOG.find("apart2:Template")
    assert ran.exists() == runs


def test_a_name_of_a_spec_or_a_bundle_imports_nothing_that_is_not_allowed(site: Site) -> None:
    ran = site.write("apart3")
    site.allow("another_package")
    words = st.sampled_from(["apart3", "Template", ":", ".", "os", "system", "..", " ", "*", "pca"])

    @settings(suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.lists(words, max_size=6).map("".join), st.text(max_size=20)))
    def attempt(name: str) -> None:
        if name not in CATALOG:
            with pytest.raises(Refusal):
                CATALOG.find(name)
        assert not ran.exists()

    attempt()


def test_the_package_of_a_class_is_what_is_installed_or_a_digest_of_its_files(site: Site) -> None:
    site.write("apart4")
    site.allow("apart4")
    found = CATALOG.find_package("apart4:Template")
    assert found is not None
    assert found.name == "apart4"
    assert found.version.startswith("files ")
    site.write("apart5")
    site.install("apart-five", "0.5", "apart5")
    site.allow("apart4", "apart5")
    assert CATALOG.find_package("apart5:Template") == Package("apart-five", "0.5")
    assert list_packages() == [Package("apart-five", "0.5"), found]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "found ModuleNotFoundError no_such_package in Python"),
        ("1 / 0", "found ZeroDivisionError in Python"),
        ("", "found AttributeError"),
        ("def Template(): ...", "found Template, no subclass of Detector"),
        ("class Template: ...", "found Template, no subclass of Detector"),
        (
            "from models.detectors.detector import Detector\nclass Template(Detector): ...",
            "found no method contributions, loss, score",
        ),
    ],
)
def test_what_is_no_detector_is_refused(site: Site, text: str, message: str) -> None:
    site.write("apart6", text)
    site.install("apart-six", "1", "apart6", six="apart6:Template")
    with pytest.raises(Refusal, match=message):
        CATALOG.find("six")
    assert message.removeprefix("found ")[:10] in format_plugins()


def test_a_config_that_training_cannot_use_is_refused(site: Site) -> None:
    whole = site.write("apart7").parent / "apart7.py"
    text = whole.read_text()
    site.install("apart-seven", "1", "apart7", seven="apart7:Template")
    changes = {
        "no Config that is a frozen dataclass": text.replace("@dataclass(frozen=True)", ""),
        "fields of its Config without a default": text.replace(": float = 1e-3", ": float"),
        "no field sample_rows": text.replace("sample_rows", "rows"),
    }
    for message, changed in changes.items():
        site.write("apart7", changed)
        with pytest.raises(Refusal, match=message):
            CATALOG.find("seven")


def test_ours_is_meant_where_a_package_has_the_same_name(site: Site) -> None:
    ran = site.write("apart8")
    site.install("apart-eight", "1", "apart8", pca="apart8:Template")
    assert CATALOG.find("pca").__module__ == "models.detectors.pca"
    assert CATALOG.find_package("pca") is None
    assert "`pca` of apart-eight 1: one of ours has this name" in format_plugins()
    assert not ran.exists()


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("apart15:Template [extra]", None),
        ("apart15", "AttributeError"),
        ("apart15:Template.inner", "AttributeError"),
        ("no such module:Template", "ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_names_no_class_is_refused_and_not_passed_over(
    site: Site, place: str, found: str | None
) -> None:
    site.write("apart15")
    site.install("apart-fifteen", "1", "apart15", fifteen=place)
    if found is None:
        assert CATALOG.find("fifteen").__name__ == "Template"
    else:
        with pytest.raises(Refusal, match=f"'fifteen' of apart-fifteen 1: .*{found}"):
            CATALOG.find("fifteen")


def test_two_packages_with_the_same_name_are_refused(site: Site) -> None:
    site.write("apart9")
    site.install("apart-a", "1", "apart9", nine="apart9:Template")
    site.install("apart-b", "2", "apart9", nine="apart9:Template")
    with pytest.raises(Refusal, match="one package that has it, found apart-a 1 and apart-b 2"):
        find_plugin("nine")


def test_the_list_shows_the_detectors_of_other_packages(site: Site) -> None:
    assert format_plugins() == ""
    site.write("apart10")
    site.install("apart-ten", "3.1", "apart10", ten="apart10:Template")
    site.allow("apart10:Template")
    listed = format_plugins()
    assert "| `ten` of apart-ten 3.1 | tables | a sample of rows | Adds up how far" in listed
    assert "| `apart10:Template` of apart-ten 3.1 |" in listed


def claim(package: object) -> Callable[[dict[str, Any]], None]:
    """A change of a manifest: what it says of the detector's package."""
    return lambda document: document["detector"].update(package=package)


def test_a_bundle_is_opened_only_with_the_package_and_version_that_trained_it(site: Site) -> None:
    site.write("apart11")
    metadata = site.install("apart-eleven", "1.0", "apart11", eleven="apart11:Template")
    bundle = trained("eleven")
    files = bundle.files
    package = Package("apart-eleven", "1.0")
    assert json.loads(files[MANIFEST])["detector"]["package"] == asdict(package)
    assert open_bundle(files, bundle.digest).files == files
    assert read_facts(files, bundle.id).package == package

    nameless = forged(files, lambda document: document["detector"].pop("package"))
    with pytest.raises(Refusal, match="to name the package of its detector 'eleven', found none"):
        assert open_bundle(nameless).detector
    for odd in ({"name": "a"}, {"name": "a", "version": "\x1b[31m"}, "a 1", {"name": 1}, None):
        changed = forged(files, claim(odd))
        with pytest.raises(Refusal, match="misshapen"):
            open_bundle(changed)

    shutil.rmtree(metadata)
    newer = site.install("apart-eleven", "1.1", "apart11", eleven="apart11:Template")
    with pytest.raises(
        Refusal, match=r"apart-eleven 1.0, which trained it, found apart-eleven 1.1"
    ):
        open_bundle(files)
    shutil.rmtree(newer)
    ran = site.write("apart11")
    ran.unlink()
    with pytest.raises(Refusal, match=r"'eleven' of the package apart-eleven 1.0, found no such"):
        open_bundle(files)
    assert read_facts(files, bundle.id).package == package
    assert not ran.exists()


def test_a_bundle_of_a_class_is_refused_where_it_is_not_allowed_or_was_changed(site: Site) -> None:
    ran = site.write("apart12")
    site.allow("apart12")
    files = trained("apart12:Template").files
    open_bundle(files)
    ran.unlink()
    site.allow("another")
    sys.modules.pop("apart12")
    with pytest.raises(Refusal, match="code of another package"):
        open_bundle(files)
    assert not ran.exists()


def test_a_bundle_of_ours_that_claims_a_package_is_refused(site: Site) -> None:
    files = forged(trained("pca").files, claim({"name": "evil", "version": "1"}))
    with pytest.raises(Refusal, match="'pca' of the package evil 1, found no such package"):
        open_bundle(files)


SCORE = """
import sys
from pathlib import Path
from models.bundle import open_bundle, read_directory
from models.layout import Layout, NumericInput
from models.refusal import Refusal
from tests.models.flows import batch_of, flows
try:
    bundle = open_bundle(read_directory(Path(sys.argv[1])))
except Refusal as refusal:
    sys.exit(str(refusal))
rows = bundle.encoder(bundle.encoder.extract(batch_of(flows(50, seed=8))))
print(bundle.detector.score(rows).tolist())
"""


def test_another_process_scores_with_the_package_and_refuses_without(
    site: Site, tmp_path: Path
) -> None:
    site.write("apart13")
    site.install("apart-thirteen", "1.0", "apart13", thirteen="apart13:Template")
    bundle = trained("thirteen")
    write_directory(tmp_path / "bundle", bundle.files)

    def score(*paths: Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (Path.cwd(), *paths)))
        return subprocess.run(
            [sys.executable, "-c", SCORE, tmp_path / "bundle"],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    rows = bundle.encoder(bundle.encoder.extract(batch_of(flows(50, seed=8))))
    scored = score(site.folder)
    assert scored.stdout.strip() == str(bundle.detector.score(rows).tolist()), scored.stderr
    refused = score()
    assert refused.returncode == 1
    assert "expected the detector 'thirteen' of the package apart-thirteen 1.0" in refused.stderr


def test_an_error_in_its_code_names_the_package(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEMPLATE.read_text().replace("(columns - self.mean).square()", "columns[10**9]")
    site.write("apart14", text)
    site.install("apart-fourteen", "1.0", "apart14", fourteen="apart14:Template")
    monkeypatch.setenv("ANOMARAY_TRACE", "1")
    with pytest.raises(SystemExit) as ended, report_errors():
        trained("fourteen")
    assert ended.value.code == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "failed: IndexError. This is a fault of apart-fourteen 1.0: report it" in said
    assert find_culprit(ValueError("ours")) is None


def test_the_manifest_of_a_detector_of_ours_names_no_package() -> None:
    assert set(json.loads(trained("pca").files[MANIFEST])["detector"]) == {
        *("name", "options", "parameters")
    }
