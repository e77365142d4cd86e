"""One version, and one address of the project's home, wherever they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit
import yaml

import doorward
from doorward.archive import build

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "collections/ansible_collections/doorward/spa"
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()
GALAXY = yaml.safe_load((COLLECTION / "galaxy.yml").read_text("utf-8"))
# Where a text says a version of ours: the tarball's name, a transcript, a sentence.
WRITTEN = re.compile(
    r"doorward-spa-(\d[\w.]*?)\.tar\.gz|\bdoorward(?:-daemon)?_(\d[\w.]*?)_all\.deb"
    r"|\bdoorwardd? (\d+\.\d+\.\w+)|\bVersion (\d+\.\d+\.\w+)"
)


def test_the_collection_has_the_version_of_the_package() -> None:
    assert GALAXY["version"] == doorward.__version__


def test_the_distribution_takes_its_version_from_the_package() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "daemon/doorward/__init__.py"


def test_the_archive_says_the_same_version(tmp_path: Path) -> None:
    archive = tmp_path / "doorward.pyz"
    build(archive)
    said = subprocess.run([sys.executable, archive, "-V"], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["doorward", doorward.__version__]


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/first-host.md", "docs/without-ansible.md", str(COLLECTION.relative_to(ROOT) / "README.md")],
)
def test_the_documents_say_the_same_version(page: str) -> None:
    said = {"".join(found) for found in WRITTEN.findall((ROOT / page).read_text("utf-8"))}
    assert said == {doorward.__version__}


def test_another_version_in_a_document_would_be_seen() -> None:
    text = "doorward-spa-9.8.7.tar.gz, doorwardd 9.8.6: running. Version 9.8.5. doorward-daemon_9.8.4_all.deb"
    assert ["".join(found) for found in WRITTEN.findall(text)] == ["9.8.7", "9.8.6", "9.8.5", "9.8.4"]


def test_package_and_collection_name_the_same_home() -> None:
    urls = PROJECT["project"]["urls"]
    assert (GALAXY["homepage"], GALAXY["repository"], GALAXY["issues"]) == (
        urls["Homepage"],
        urls["Repository"],
        urls["Issues"],
    )
