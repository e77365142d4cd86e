"""A client's half of its pair of keys with a host: one line, or a file. `doorward init` makes it.

The line is words NAME:value, of which the last is a check over the others, so that one that was cut or damaged on its
way is noticed. The app Fwknop2 for phones takes KEY_BASE64 and HMAC_KEY_BASE64 from such a line in a QR code. The file
is a section of ~/.fwknoprc with the check as a comment. No other name is accepted: some of ~/.fwknoprc name programs.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

from doorward.config import convert
from doorward.errors import ClientError, DoorwardError
from doorward.frozen import dataclass
from doorward.values import HMAC_KEY_MAX, KEY_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.values import Secret, Service

LENGTH_MAX: Final = 4096  # characters; a line has some 300
_NAMES: Final = ("KEY_BASE64", "HMAC_KEY_BASE64", "SPA_SERVER", "SPA_SERVER_PORT", "ACCESS", "SECTION")
_OPTIONAL: Final = frozenset({"SPA_SERVER_PORT"})
_CHECK: Final = "CHECK"
_CHECK_DIGITS: Final = 16
_SECTION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_SERVER: Final = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,252}", re.ASCII)
_KNOCK_PORT: Final = 62201


@dataclass(frozen=True, slots=True)
class Half:
    """The half: the section's name, where to knock, what to ask for, and both keys."""

    section: str
    server: str
    access: tuple[Service, ...]
    key: Secret
    hmac_key: Secret
    port: int = _KNOCK_PORT

    @property
    def line(self) -> str:
        """The half as one line; it holds secrets."""
        words = dict(self._words())
        return " ".join(f"{name}:{value}" for name, value in [*words.items(), (_CHECK, _check(words))])

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The lines of its section of ~/.fwknoprc."""
        words = [(name, value) for name, value in self._words() if name != "SECTION"]
        return [*(each for each in words if "KEY" not in each[0]), ("ALLOW_IP", "auto"), *words[:2]]

    @property
    def file(self) -> str:
        """The half as a file; it holds secrets."""
        rows = "".join(f"{name:<24}{value}\n" for name, value in self.settings)
        return (
            f"# The client's half of the keys of {self.section}. Whoever reads this file can open the host.\n"
            f"[{self.section}]\n{rows}# {_CHECK} {_check(dict(self._words()))}\n"
        )

    def _words(self) -> Iterator[tuple[str, str]]:
        yield "KEY_BASE64", _base64(self.key)
        yield "HMAC_KEY_BASE64", _base64(self.hmac_key)
        yield "SPA_SERVER", self.server
        if self.port != _KNOCK_PORT:
            yield "SPA_SERVER_PORT", str(self.port)
        yield "ACCESS", ",".join(map(str, self.access))
        yield "SECTION", self.section


def parse(text: str) -> Half:
    """The half in a line or a file.

    Raises:
        ClientError: it is something else, or incomplete; the text goes behind its place, and repeats no word of it.
    """
    if len(text) > LENGTH_MAX or not text.isascii() or not text.replace("\n", " ").replace("\r", " ").isprintable():
        msg = "is no line of `doorward init`"
        raise ClientError(msg)
    words: dict[str, str] = {}
    for name, value in _section(text) if text.lstrip().startswith(("[", "#")) else _line(text):
        if name in words:
            msg = f"has {name} twice: give one line, once"
            raise ClientError(msg)
        words[name] = value
    _require_all(words)
    return _made(words)


def _require_all(words: dict[str, str]) -> None:
    """Refuse words that are not all there, or not as they were.

    Raises:
        ClientError: the reason.
    """
    given = words.pop(_CHECK, None)
    lacking = [name for name in _NAMES if name not in words and name not in _OPTIONAL]
    if given is None:
        msg = f"has no {_CHECK} at its end: it was cut; copy all of it"
    elif lacking:
        msg = f"lacks {' and '.join(lacking)}: its beginning is missing; copy all of it"
    elif given != _check(words):
        msg = f"is damaged: its {_CHECK} does not fit; copy it again"
    else:
        return
    raise ClientError(msg)


def _line(text: str) -> Iterator[tuple[str, str]]:
    for number, word in enumerate(text.split(), 1):
        name, colon, value = word.partition(":")
        yield _known(name if colon else "", value, number)


def _section(text: str) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(map(str.strip, text.splitlines()), 1):
        if row.startswith(f"# {_CHECK} "):
            yield _CHECK, row.split()[-1]
        elif row.startswith("["):
            yield "SECTION", row.strip("[]")
        elif row and not row.startswith("#"):
            name, _, value = row.partition(" ")
            if (name, value.strip()) != ("ALLOW_IP", "auto"):
                yield _known(name, value.strip(), number)


def _known(name: str, value: str, number: int) -> tuple[str, str]:
    if name in {*_NAMES, _CHECK}:
        return name, value
    msg = f"is no line of `doorward init`, or damaged: its part {number} is none of {', '.join((*_NAMES, _CHECK))}"
    raise ClientError(msg)


def _made(words: dict[str, str]) -> Half:
    try:
        return Half(
            section=section(words["SECTION"]),
            server=server(words["SPA_SERVER"]),
            access=convert.services(words["ACCESS"]),
            key=_key(words["KEY_BASE64"], KEY_MAX),
            hmac_key=_key(words["HMAC_KEY_BASE64"], HMAC_KEY_MAX),
            port=convert.port(words.get("SPA_SERVER_PORT", str(_KNOCK_PORT))),
        )
    except (ValueError, DoorwardError) as error:  # neither repeats a key
        msg = f"says what no client can use: {error}"
        raise ClientError(msg) from None


def section(text: str) -> str:
    """Read a name for a section: one that needs quotes nowhere."""
    if _SECTION.fullmatch(text) is None or text.lower() == "default":
        msg = f"{text[:80]!r} is no name for a section: letters, digits, '.', '_' and '-', and not default"
        raise ValueError(msg)
    return text


def server(text: str) -> str:
    """Read a host name or address."""
    if _SERVER.fullmatch(text) is None:
        msg = f"{text[:80]!r} is no host name or address"
        raise ValueError(msg)
    return text


def _key(text: str, limit: int) -> Secret:
    key = convert.key_base64(text)
    if len(key) > limit:
        msg = f"a key has {len(key)} bytes, more than {limit}"
        raise ValueError(msg)
    return key


def _base64(key: Secret) -> str:
    return base64.b64encode(key.reveal()).decode("ascii")


def _check(words: dict[str, str]) -> str:
    """The check over the words in the order of the names. It finds damage; it proves no origin."""
    text = " ".join(f"{name}:{words[name]}" for name in _NAMES if name in words)
    return hashlib.sha256(f"doorward half\0{text}".encode()).hexdigest()[:_CHECK_DIGITS]
