"""The tables of docs/configuration.md, made from the tables that the code works with: `make docs` writes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.client.fwknop_options import OPTIONS
from doorward.config import access, daemon, fwknoprc
from doorward.daemon import options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.config.reader import Setting

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN: Final = "<!-- made by `make docs` from here on -->\n"
WORKS, OURS, OLD = "works", "works; doorward's own", "works; of fwknop 1.9"
DIFFERS, INERT, REFUSED = "works differently: ", "no effect, warns: ", "refused: "
CLIENT_OURS: Final = frozenset({"HTTP_PROXY", "ICMP_CODE", "ICMP_TYPE", "RESOLVE_DNS"})


def document(before: str) -> str:
    """Return a document with its tables made anew behind the mark."""
    prose, mark, _ = before.partition(BEGIN)
    if not mark:
        msg = f"{DOCUMENT} has no line {BEGIN!r}"
        raise ValueError(msg)
    return prose + BEGIN + "\n" + "\n".join(_tables())


def _tables() -> Iterator[str]:
    yield from _table("Every name of access.conf", "name", _access())
    yield from _table("Every name of doorwardd.conf and fwknopd.conf", "name", _daemon())
    yield from _table("Every option of doorwardd", "option", _daemon_options())
    yield from _table("Every name of ~/.fwknoprc", "name", _client())
    yield from _table("Every option of the client", "option", _client_options())


def _table(title: str, what: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"| {what} | state |\n|---|---|"
    yield "".join(f"| {name} | {_cell(state)} |\n" for name, state in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _settings(settings: Mapping[str, Setting[Any]], ours: frozenset[str], old: frozenset[str]) -> dict[str, str]:
    """Return the state of each name that is read."""
    states = {}
    for name, setting in settings.items():
        state = OURS if name in ours else OLD if name in old else WORKS
        if setting.differs:
            state = f"{state}: {setting.differs}" if state != WORKS else DIFFERS + setting.differs
        states[name] = state
    return states


def _access() -> Iterator[tuple[str, str]]:
    states = _settings(access.SETTINGS, access.OURS, access.OLD)
    states |= {name: DIFFERS + text for name, text in access.DIRECTIVES.items()}
    states |= {name: f"{REFUSED}{text} (of fwknop 1.9)" for name, text in access.REFUSED.items()}
    yield from ((f"`{name}`", state) for name, state in states.items())


def _daemon() -> Iterator[tuple[str, str]]:
    states = _settings(daemon.SETTINGS, daemon.OURS, frozenset())
    states["ENABLE_NFQ_CAPTURE"] = "N works, Y " + REFUSED + daemon.REFUSED["ENABLE_NFQ_CAPTURE"]
    states["ENABLE_DIGEST_PERSISTENCE"] = "Y works, N " + REFUSED + daemon.REFUSED["ENABLE_DIGEST_PERSISTENCE"]
    states |= {name: INERT + text for name, text in daemon.INERT.items()}
    yield from ((f"`{name}`", state) for name, state in states.items())


def _daemon_options() -> Iterator[tuple[str, str]]:
    for action in options.parser()._actions:  # noqa: SLF001  argparse has no other list of them
        if action.help == argparse.SUPPRESS:
            continue
        name = action.option_strings[-1]
        state = WORKS
        if name in options.OURS:
            state = OURS
        elif name in options.INERT:
            state = INERT + options.INERT[name]
        elif name in options.REFUSED:
            state = REFUSED + options.REFUSED[name]
        elif name in options.DIFFERS:
            state = DIFFERS + options.DIFFERS[name]
        yield ", ".join(f"`{one}`" for one in action.option_strings), state
    yield (
        "`-A`, `--afl-fuzzing`, `--afl-pkt-file`, `--fault-injection-tag`",
        REFUSED + "they are for fwknopd's own tests",
    )


def _client() -> Iterator[tuple[str, str]]:
    states = _settings(fwknoprc.SETTINGS, CLIENT_OURS, frozenset())
    yield from ((f"`{name}`", state) for name, state in states.items())


def _client_options() -> Iterator[tuple[str, str]]:
    for option in OPTIONS:
        names = ", ".join(f"`{one}`" for one in option.names)
        old = f"; 1.9's {', '.join(f'`{one}`' for one in option.old)}" if option.old else ""
        yield names, (OURS if option.is_ours else WORKS) + old + f": {option.help}"


def main() -> int:
    """Write the document; with an argument only say whether it is up to date."""
    before = DOCUMENT.read_text("utf-8")
    after = document(before)
    if len(sys.argv) > 1:
        return int(before != after)
    DOCUMENT.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
