"""Every example of a configuration file in docs/*.md is one that the daemon takes."""

from __future__ import annotations

import base64
import re
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from doorward.client import fwknoprc
from doorward.config import access, settings
from doorward.config.files import Files, Question
from doorward.errors import ConfigError

DOCS: Final = Path(__file__).parents[2] / "docs"
EXAMPLES: Final = {
    "access.conf": 13,
    "doorwardd.conf": 3,
    "fwknoprc": 1,
}  # kinds that are parsed here, and how many there are
OTHERS: Final = {"sh", "console", "text", "ini", "yaml", "python"}  # kinds that are no files of ours
_BLOCK: Final = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_NAMES: Final = {*access.SETTINGS, *settings.SETTINGS, *fwknoprc.SETTINGS}
HEAD: Final = "SOURCE ANY\nKEY_BASE64 {}\nHMAC_KEY_BASE64 {}\nOPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\n".format(
    base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"h" * 64).decode()
)
HOST: Final = Files(
    {
        **{(Question.USER, name): b"y" for name in ("backup", "doorward-aws", "root")},
        (Question.GROUP, "backup"): b"backup",
        (Question.TREE, "/etc/doorward/gnupg"): b"",
    }
)  # what the examples take for granted


class Block(NamedTuple):
    """A block between fences, what its first fence calls it, and where it stands."""

    place: str
    kind: str
    text: str


def blocks() -> list[Block]:
    """Return all blocks of all pages."""
    return [
        Block(f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[2], found[3])
        for page in sorted(DOCS.glob("*.md"))
        for text in [page.read_text("utf-8")]
        for found in _BLOCK.finditer(text)
    ]


def parsed(block: Block) -> tuple[str, ...]:
    """Return the warnings of an example; lines of a stanza are put into one.

    Raises:
        ConfigError: it is none.
    """
    if block.kind == "doorwardd.conf":
        return settings.parse(Path(block.place), block.text.encode()).warnings
    if block.kind == "fwknoprc":
        found = fwknoprc.parse(block.text.encode(), block.place)
        assert all(found.profile(name).can_seal for name in found.names if name != fwknoprc.DEFAULT)
        return found.warnings
    head = "" if re.search(r"^SOURCE\b", block.text, re.MULTILINE) else HEAD
    return access.parse(Path(block.place), f"{head}{block.text}".encode(), files=HOST).warnings


def names_within(text: str) -> set[str]:
    """Return the names of our files that lines of a text begin with."""
    return {line.split(maxsplit=1)[0].rstrip(":") for line in text.splitlines() if line.strip()} & _NAMES


def test_every_fence_is_part_of_a_block_of_a_known_kind() -> None:
    fences = sum(line.lstrip().startswith("```") for page in DOCS.glob("*.md") for line in page.read_text().split("\n"))
    assert fences == 2 * len(blocks())
    assert not [block.place for block in blocks() if block.kind not in {*EXAMPLES, *OTHERS}]
    counted = Counter(block.kind for block in blocks() if block.kind in EXAMPLES)
    assert counted == EXAMPLES, "a new example: count it here"


def test_no_example_hides_in_a_block_of_another_kind() -> None:
    assert not [block.place for block in blocks() if block.kind in OTHERS and names_within(block.text)]
    assert names_within("  KEY abc\nCMD_CYCLE_OPEN: /bin/a\nSPA_SERVER web\n") == {
        "KEY",
        "CMD_CYCLE_OPEN",
        "SPA_SERVER",
    }


@pytest.mark.parametrize("block", [one for one in blocks() if one.kind in EXAMPLES], ids=lambda block: block.place)
def test_an_example_is_taken_as_it_is(block: Block) -> None:
    weak = ("REQUIRE_SOURCE_ADDRESS is not Y", "a sequence can be replayed")
    assert not [told for told in parsed(block) if not any(words in told for words in weak)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("access.conf", "CMD_EXEC_USER backup # who\n"),
        ("access.conf", "CMD_CYCLE_OPEN /bin/a\n"),
        ("access.conf", "OPEN_PORTS tcp/22\n"),
        ("doorwardd.conf", "ALERT_EVENTS both;\n"),
    ],
)
def test_an_example_with_a_mistake_would_be_seen(kind: str, text: str) -> None:
    with pytest.raises(ConfigError):
        parsed(Block("page.md:1", kind, text))


def test_an_example_with_a_comment_behind_a_value_would_be_seen() -> None:
    assert "part of the value" in "".join(parsed(Block("page.md:1", "access.conf", "REQUIRE_USERNAME alice # who\n")))
