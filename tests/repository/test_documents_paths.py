"""Every file and every test that a document names exists: links, paths and names of tests between backticks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import markdown

REPOSITORY: Final = markdown.REPOSITORY
# Where the paths of a document begin: the repository, the package, the tests of the system.
ROOTS: Final = (REPOSITORY, REPOSITORY / "daemon/doorward", REPOSITORY / "tests/system")
FOLDERS: Final = {folder.name for root in ROOTS for folder in root.iterdir() if folder.is_dir()}
DOCUMENTS: Final = tuple(
    name for name in markdown.files() if name == "SECURITY.md" or name.startswith("docs/") or name.endswith("README.md")
)
_CODE: Final = re.compile(r"```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_TEST: Final = re.compile(r"`(test_\w+)`")
_PATH: Final = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?)`")


def links(text: str) -> list[str]:
    """The targets of a document's links to other files."""
    return [target for target in _LINK.findall(_CODE.sub("", text)) if "://" not in target]


def paths(text: str) -> list[str]:
    """The paths that a document names: those of our folders, and Python files."""
    named = _PATH.findall(_CODE.sub("", text))
    return [path for path in named if path.endswith(".py") or ("/" in path and path.partition("/")[0] in FOLDERS)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file(name: str) -> None:
    folder = (REPOSITORY / name).parent
    assert not [target for target in links((REPOSITORY / name).read_text("utf-8")) if not (folder / target).exists()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    folder = (REPOSITORY / name).parent
    named = paths((REPOSITORY / name).read_text("utf-8"))
    assert not [path for path in named if not any((root / path).exists() for root in (folder, *ROOTS))]


def test_a_path_or_a_link_that_leads_nowhere_would_be_seen() -> None:
    text = (
        "See [it](gone.md#part), `capture/gone.py`, `tests/gone/`, `gone.py` and `Y/N`.\n\n```sh\ncat `docs/x`\n```\n"
    )
    assert links(text) == ["gone.md"]
    assert paths(text) == ["capture/gone.py", "tests/gone/", "gone.py"]
    assert not any((root / "gone.py").exists() for root in ROOTS)


def gone(text: str) -> set[str]:
    """The tests that a document names and nobody has."""
    known = (re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE) for file in _tests())
    return set(_TEST.findall(text)).difference(*known)


def _tests() -> list[Path]:
    return [file for folder in ("tests", "molecule") for file in (REPOSITORY / folder).rglob("test_*.py")]


def test_every_test_that_a_document_names_exists() -> None:
    assert gone("`test_every_test_that_a_document_names_exists` and `test_that_is_gone`") == {"test_that_is_gone"}
    texts = {name: (REPOSITORY / name).read_text("utf-8") for name in DOCUMENTS}
    assert len(_TEST.findall(texts["docs/protocol-security.md"])) > 10
    assert {name: lost for name, text in texts.items() if (lost := gone(text))} == {}


def test_the_claims_of_security_are_among_the_documents() -> None:
    assert {"SECURITY.md", "README.md", "docs/architecture.md"} <= set(DOCUMENTS)
    assert len(paths(Path(REPOSITORY / "SECURITY.md").read_text("utf-8"))) > 20


def test_the_index_has_every_page_and_decision() -> None:
    for folder in (REPOSITORY / "docs", REPOSITORY / "docs/decisions"):
        named = set(links((folder / "README.md").read_text("utf-8")))
        assert {page.name for page in folder.glob("*.md")} - {"README.md"} - named == set()
