"""Every module of the package has a test file of its name, or is named in tests/tested_elsewhere.py with its tests."""

from __future__ import annotations

from pathlib import Path

from tested_elsewhere import TESTED_BY

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "daemon/doorward"
MODULES = {
    str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if file.name not in {"__init__.py", "__main__.py"}
}


def own_tests(module: str) -> list[str]:
    """The places below tests/ where a module's own test file may lie."""
    room, _, name = module.removesuffix(".py").rpartition("/")
    places = [f"unit/{room}/test_{name}.py", f"system/test_{name}.py", f"system/test_{room}_{name}.py"]
    return [place.replace("//", "/") for place in places]


def has_own_tests(module: str) -> bool:
    return any((TESTS / place).exists() for place in own_tests(module))


def test_every_module_has_its_tests() -> None:
    lacking = {module: own_tests(module)[0] for module in MODULES - set(TESTED_BY) if not has_own_tests(module)}
    assert not lacking, f"write its tests, or add it to tests/tested_elsewhere.py: {lacking}"


def test_the_list_names_no_module_that_is_gone() -> None:
    gone = sorted(set(TESTED_BY) - MODULES)
    assert not gone, f"moved or deleted: take it out of tests/tested_elsewhere.py, or rename it there: {gone}"


def test_the_list_names_no_test_file_that_is_gone() -> None:
    gone = {module: file for module, file in TESTED_BY.items() if not (TESTS / file).is_file()}
    assert not gone, f"say in tests/tested_elsewhere.py which file tests it now: {gone}"


def test_no_module_of_the_list_has_tests_of_its_own() -> None:
    needless = sorted(module for module in TESTED_BY if has_own_tests(module))
    assert not needless, f"it has its own test file, take it out of tests/tested_elsewhere.py: {needless}"


def test_a_module_without_tests_would_be_seen() -> None:
    assert has_own_tests("wire/fwknop.py")
    assert not has_own_tests("wire/frobnicator.py")
    assert own_tests("frobnicator.py")[0] == "unit/test_frobnicator.py"
