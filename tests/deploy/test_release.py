"""What a release says of itself: one version, a changelog that knows it, the licences of what it needs."""

import re
import tomllib
from pathlib import Path

import licences
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_source_file_repeats_the_version() -> None:
    folders = ("models", "training", "service", "clients")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    quoted = (f'"{PROJECT["version"]}"', f"'{PROJECT['version']}'")
    assert not [path for path in sources if any(each in path.read_text(encoding="utf-8") for each in quoted)]


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load(
        (ROOT / "helm" / "preference-orchestrator" / "Chart.yaml").read_text(encoding="utf-8")
    )
    assert chart["appVersion"] == PROJECT["version"]


def test_the_changelog_has_sections_as_keep_a_changelog_wants_them() -> None:
    headings = re.findall(r"^## (.+)$", CHANGELOG, flags=re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", CHANGELOG, flags=re.MULTILINE)) <= allowed
    linked = set(re.findall(r"^\[(.+)\]: ", CHANGELOG, flags=re.MULTILINE))
    assert linked <= {heading.partition("]")[0].lstrip("[") for heading in headings}


@pytest.mark.deploy
def test_the_list_of_licences_is_up_to_date() -> None:
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == licences.document(), (
        "run `make licences`"
    )
