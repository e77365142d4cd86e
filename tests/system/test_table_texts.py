"""The rules for a table text that others write, against nft's own reading of it."""

from __future__ import annotations

import json
import os
import random
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from system.netns import Namespace

TEXTS = 10_000
PIECES = (
    '"', '"', '"x"', "{", "}", "{", "}", "\n", "\n", ";", " ", "#", "\\\n", "\\", "\r", "\t", "\x0b", "\x0c", "\xa0",
    "\x85", "\u2028", "'", "$a", "@a", "table inet doorward", "table inet doorward {", "set a", "type ipv4_addr;",
    'comment "', 'comment "x";', "chain c {", "counter", "define a = 1", 'define a = "', "flush ruleset",
    "\nflush ruleset\n", "\ndelete table ip victim\n", "delete table ip victim", "add table ip other", "include",
    "\ntable ip other {}\n", "}\nflush ruleset", "elements = { 1.2.3.4 }", "# x", "/*", "*/",
)  # fmt: skip  # the pieces of a language read better in lines of many
KNOWN = (
    'table inet doorward {\n set a { type ipv4_addr; comment "x\n{\n"; }\n}\nflush ruleset\n',
    'define a = "x\n{ {"\nflush ruleset\n',
    'table inet doorward { set a { type ipv4_addr; comment "\n{" ; } ; } ; delete table ip victim\n',
)

# Runs in the namespace: one line of JSON a text, and what stands beside our table before and after it.
JUDGE = """
import json, sys
from doorward.errors import FirewallError
from doorward.firewall import ruleset
from doorward.firewall.libnftables import Libnftables
nft = Libnftables()
BEFORE = "add table ip victim; add chain ip victim c"
nft.run(BEFORE)
VICTIM = nft.run("list table ip victim")
def dormant(text):
    nft.run("flush ruleset; " + BEFORE)
    nft.run("add table inet doorward_1; delete table inet doorward_1\\n" + ruleset.dormant(text, "doorward_1"))
    made = nft.run("list tables").splitlines()
    awake = [one for one in made if "dormant" not in nft.run(f"list {one}")]
    return awake == ["table ip victim"] and nft.run("list table ip victim") == VICTIM
def others():
    nft.run("add table inet doorward; delete table inet doorward")
    return nft.run("list ruleset")
for line in sys.stdin:
    text = json.loads(line)
    try:
        ruleset.refuse_foreign(text)
        allowed = True
    except FirewallError:
        allowed = False
    nft.run("flush ruleset; " + BEFORE)
    good = others()
    try:
        nft.run(text)
        taken = True
    except FirewallError:
        taken = False
    touched = others() != good
    asleep = not (allowed and taken) or dormant(text)
    print(json.dumps({"text": text, "allowed": allowed, "taken": taken, "touched": touched, "asleep": asleep}))
"""


def generated(chance: random.Random) -> str:
    words = [chance.choice(PIECES) for _ in range(chance.randrange(1, 14))]
    text = chance.choice(("", " ", "\n")).join(words)
    if chance.random() < 0.5:  # inside a table that nft takes
        comment = "".join(chance.choice(PIECES) for _ in range(chance.randrange(6))).replace('"', "")
        text = f'table inet doorward {{\n set a {{ type ipv4_addr; comment "{comment}"; }}\n}}\n{text}'
    return text


def test_no_text_that_is_allowed_touches_anything_but_our_table(ns: Namespace, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311  the same texts every time
    texts = [*KNOWN, *(generated(chance) for _ in range(TEXTS))]
    judge = tmp_path / "judge.py"
    judge.write_text(JUDGE)
    daemon = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = ns.run(sys.executable, str(judge), input="".join(f"{json.dumps(text)}\n" for text in texts), env=daemon)
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(rows) == len(texts)
    assert not [row["text"] for row in rows if row["allowed"] and row["touched"]]
    assert not [row["text"] for row in rows if not row["asleep"]], "its copy for a comparison filters nothing"
    assert sum(row["taken"] and row["touched"] for row in rows) > 50, "the texts must be able to do harm"
    assert sum(row["taken"] and row["allowed"] for row in rows) > 50, "and to be harmless"
