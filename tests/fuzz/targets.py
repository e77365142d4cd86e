"""Every parser of doorward as a function of bytes that raises when the parser breaks a promise; shared by all runs."""

from __future__ import annotations

import argparse
import os
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from documented import DIRECTIVES
from doorward.client import fwknoprc, getopt
from doorward.commands import arguments
from doorward.commands.messages import ORDERS, Execute, Report, Reread
from doorward.config import access, files, settings
from doorward.config.files import Question
from doorward.config.stanza import Commands
from doorward.crypto import symmetric
from doorward.crypto.openpgp import Signature, Status, Unsealed
from doorward.errors import AuthenticationError, ConfigError, FirewallError, HelperError, Problem, WireError
from doorward.firewall import ruleset
from doorward.gate import Gate
from doorward.gnupg import messages
from doorward.helper.limits import MARK_BYTES
from doorward.helper.messages import REPLIES, REQUESTS, Done, Open, Refused
from doorward.host import commands as host_commands
from doorward.host import here
from doorward.values import (
    GRANT_SECONDS_MAX,
    DigestType,
    EncryptionMode,
    Execution,
    Grant,
    Permissions,
    Protocol,
    Reason,
    Service,
    SymmetricKeys,
    address,
)
from doorward.wire import fwknop
from fuzz import arrivals, tagged
from fuzz.target import Target
from unit.making import KEYS, NOW, Door, Memory, datagram, payload, stanza
from vectors.packets import CLIENT, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.linux.codec import Codec

T = TypeVar("T")
SALT: Final = bytes(8)
PATH: Final = "the file"
LONGEST_PROBLEM: Final = 600  # characters
BARE_KEYS: Final = tuple(SymmetricKeys(KEYS.key, None, mode=mode) for mode in EncryptionMode)
NEVER_AUTHENTIC: Final = frozenset({Reason.MALFORMED, Reason.HMAC, Reason.DECRYPTION, Reason.DECODE})


def any_payload(content: bytes) -> None:
    """Whatever arrives gets a verdict, and without the keys nothing opens."""
    for keys in (KEYS, *BARE_KEYS):
        door = Door()
        verdict = Gate((stanza(keys=keys),), Memory(), door.open, 120).judge(datagram(content), NOW)
        assert not door.grants
        assert verdict.reason in NEVER_AUTHENTIC, verdict


def any_blob(content: bytes) -> None:
    """Base64 that is taken has one spelling."""
    try:
        blob = fwknop.decode_blob(content)
    except WireError:
        return
    assert fwknop.encode_blob(blob) == content


def any_unseal(content: bytes) -> None:
    """Unsealing raises its two errors, or returns what begins as a plaintext does; nobody holds the HMAC key."""
    for keys in (KEYS, *BARE_KEYS):
        try:
            plaintext = symmetric.unseal(content, keys)
        except (WireError, AuthenticationError):
            continue
        assert keys.hmac_key is None
        assert fwknop.is_plaintext(plaintext)


def any_sealed(content: bytes) -> None:
    """Whatever is sealed comes out again unless it is no plaintext, in every mode; then it is read."""
    for keys in BARE_KEYS:
        try:
            sealed = symmetric.seal(content, keys, SALT)
            plaintext = symmetric.unseal(sealed, keys)
        except (WireError, AuthenticationError):
            continue
        assert plaintext == content
        any_plaintext(plaintext)


def any_plaintext(content: bytes) -> None:
    """A plaintext raises WireError or is a message that survives being written and read, and can be judged."""
    try:
        made = fwknop.parse(content)
    except WireError:
        return
    again = fwknop.serialize(made)
    assert fwknop.parse(again) == made
    assert fwknop.serialize(fwknop.parse(again)) == again
    served = Gate(
        (stanza(commands=Commands()),), Memory(), Door().open, None, permissions=EVERYTHING, execute=lambda _: None
    )
    verdict = served.judge(datagram(_sealed(content)), NOW)
    assert verdict.reason not in {Reason.INTERNAL, Reason.DECODE, Reason.HMAC, Reason.DECRYPTION}, verdict


def _sealed(plaintext: bytes) -> bytes:
    """Return a payload, or one that is malformed where the plaintext is too long for any."""
    try:
        return symmetric.seal(plaintext, KEYS, SALT)
    except WireError:
        return b""


def any_fields(content: bytes) -> None:
    """Any fields behind a digest that fits: what an authentic but hostile client can send."""
    kinds = tuple(DigestType)
    kind = kinds[content[0] % len(kinds)] if content else kinds[0]
    body = b"0123456789012345:" + content[1:]
    any_plaintext(body + b":" + fwknop.digest_text(kind, body))


def any_access(content: bytes) -> None:
    """An access.conf gives stanzas or problems."""
    _loads_or_complains(lambda: access.parse(Path(PATH), content), content)


def any_daemon(content: bytes) -> None:
    """A doorwardd.conf gives settings or problems."""
    _loads_or_complains(lambda: settings.parse(Path(PATH), content), content)


def any_fwknoprc(content: bytes) -> None:
    """A client's file gives profiles or problems."""
    _loads_or_complains(lambda: fwknoprc.parse(content, PATH).profile(), content)
    try:
        stanzas = fwknoprc.parse(content, PATH)
    except ConfigError:
        return
    for name in stanzas.names[:20]:
        _loads_or_complains(partial(stanzas.profile, name), content)


def _loads_or_complains(load: Callable[[], object], content: bytes) -> None:
    """Every problem has a line of the file, in order, and a text that is safe in a log."""
    problems = _problems(load)
    for problem in problems:
        assert 0 <= problem.line <= content.count(b"\n") + 1, problem
        assert problem.text.isprintable(), problem
        assert len(problem.text) < LONGEST_PROBLEM, problem
    assert all(one.line <= two.line for one, two in pairwise(problems)), problems


def _problems(load: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        load()
    except ConfigError as error:
        return error.problems
    return ()


def any_request(content: bytes) -> None:
    """What the helper reads is a request whose bytes say it once, or an error."""
    _decodes_exactly(REQUESTS, content)


def any_reply(content: bytes) -> None:
    """What the listener reads is a reply whose bytes say it once, or an error."""
    _decodes_exactly(REPLIES, content)


def any_order(content: bytes) -> None:
    """What doorward-exec reads is an order whose bytes say it once, or an error."""
    _decodes_exactly(ORDERS, content)


def any_gnupg_message(content: bytes) -> None:
    """What passes between the listener, gpg's supervisor and its worker has bytes that say it once, or is an error."""
    _decodes_exactly(messages.REQUESTS, content)
    _decodes_exactly(messages.REPLIES, content)


def _decodes_exactly(codec: Codec[Any], content: bytes) -> None:
    try:
        message = codec.decode(content)
    except HelperError:
        return
    assert codec.encode(message) == content


def any_answers(content: bytes) -> None:
    """What the helper has read of files travels in bytes that say it once."""
    try:
        recorded = files.Files.decode(content)
    except HelperError:
        return
    assert recorded.encode() == content
    _loads_or_complains(lambda: access.parse(Path(PATH), ACCESS, None, recorded), ACCESS)


def any_includes(content: bytes) -> None:
    """Files that include one another give stanzas or problems, however they do it; NUL stands between two files."""
    first, *others = content.split(b"\0")
    named = {(Question.SECRET, f"{Path(PATH).parent / f'{number}.conf'}"): text for number, text in enumerate(others)}
    folders = {
        (Question.NAMES, str(Path(PATH).parent / "d")): b"\0".join(f"{number}.conf".encode() for number in range(9))
    }
    problems = _problems(lambda: access.parse(Path(PATH), first, None, files.Files({**named, **folders})))
    for problem in problems:
        assert problem.text.replace("\t", " ").isprintable(), problem
        assert len(problem.text) < LONGEST_PROBLEM, problem


def any_options(content: bytes) -> None:
    """A command line is refused, or said in one spelling that is read as itself; NUL stands between two words."""
    words = [os.fsdecode(word) for word in content.split(b"\0")]
    try:
        said = getopt.read(words)
    except ValueError:
        return
    assert all(word.name.startswith("-") for word in said), said
    assert getopt.read([str(word) for word in said]) == said


def any_argv(content: bytes) -> None:
    """A command of the administrator is refused, or keeps its arguments whatever the packet's values are."""
    text = content.decode("utf-8", "replace")
    try:
        words = arguments.words(text)
    except HelperError:
        return
    for execution in EXECUTIONS:
        assert len(arguments.of_cycle(text, execution)) == len(words)


def any_table_text(content: bytes) -> None:
    """A table text is refused with its line, or taken together with what a swap puts before it."""
    text = content.decode("utf-8", "replace")
    assert set(ruleset.normalised(text).splitlines()) <= set(text.splitlines())
    assert ruleset.swap(ruleset.swap(text)) == ruleset.swap(text)
    refusal = _refusal(text)
    assert refusal.startswith("line ") or not refusal, refusal
    assert bool(_refusal(ruleset.swap(text))) == bool(refusal)


def _refusal(text: str) -> str:
    """Return why a table text is refused, or nothing."""
    try:
        ruleset.refuse_foreign(text)
    except FirewallError as error:
        return str(error)
    return ""


def any_words(content: bytes) -> None:
    """What stands on the host's command line is refused as argparse wants it, or within its bounds."""
    text = os.fsdecode(content)
    seconds = _argument(here.duration, text)
    assert seconds is None or 1 <= seconds <= GRANT_SECONDS_MAX
    source = _argument(host_commands.address, text)
    assert source is None or not source.is_unspecified
    service = _argument(host_commands.service, text)
    assert service is None or Service.parse(str(service)) == service


def _argument(read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except argparse.ArgumentTypeError:
        return None


EVERYTHING: Final = Permissions(forwarding=True, local_nat=True)
KEY_LINES: Final = b"KEY_BASE64 " + b"QUFB" * 8 + b"\nHMAC_KEY_BASE64 " + b"QkJC" * 16 + b"\n"
ACCESS: Final = b"SOURCE ANY\nOPEN_PORTS tcp/22, udp/53\n" + KEY_LINES
GRANT: Final = Grant(address(bytes([192, 0, 2, 7])), (Service(Protocol.TCP, 22), Service(Protocol.UDP, 53)), 30)
GRANT6: Final = Grant(address(b"\x20\x01" + bytes(13) + b"\x01"), (Service(Protocol.TCP, 22),), 30)
TIMED: Final = b"""table inet doorward {
\tset open4 {
\t\ttype ipv4_addr . inet_proto . inet_service
\t\tflags timeout
\t\telements = { 1.2.3.4 . tcp . 22 timeout 30s,
\t\t\t     1.2.3.5 . tcp . 22 timeout 30s }
\t}
\tset fixed { type ipv4_addr; flags interval; comment "x"; elements = { 10.0.0.0/8 }; }
}
"""


SIGNATURE: Final = Signature(Status.GOOD, "AB" * 20, "CD" * 20)
EXECUTIONS: Final = (
    Execution(1, GRANT.source, GRANT.source, GRANT.source, 30, 1_800_000_000, GRANT.services[0]),
    Execution(1, GRANT6.source, GRANT.source, GRANT.source, 30, 1_800_000_000, None, 60, "id; $(id) '"),
)
_ORDERS: Final = (
    *(ORDERS.encode(Execute(one, bytes(MARK_BYTES))) for one in EXECUTIONS),
    ORDERS.encode(Report(granted=True, line="verdict=granted")),
    ORDERS.encode(Reread()),
)
_GNUPG: Final = (
    messages.REQUESTS.encode(messages.Piece(b"x", last=True)),
    messages.REQUESTS.encode(messages.Packet(1, 0, b"x")),
    messages.REPLIES.encode(messages.Ready(("a", "b"))),
    messages.REPLIES.encode(messages.Answer(1, Unsealed(b"x", SIGNATURE))),
)
_INCLUDES: Final = (
    b"%include 0.conf\n\0" + ACCESS,
    b"%include_folder d\n\0" + ACCESS + b"\0%include 0.conf\n",
    b"SOURCE ANY\n%include_keys 0.conf\n\0" + KEY_LINES,
)
_ANSWERS: Final = (
    files.Files({(Question.SECRET, "/a"): ACCESS, (Question.USER, "nobody"): b"1"}).encode(),
    files.Files().encode(),
)


def _plaintexts() -> Iterable[bytes]:
    return (packet.plaintext for packet in CLIENT)


def _body(plaintext: bytes) -> bytes:
    """Return the seed of any_fields for a plaintext: a byte for the digest, the fields behind the random value."""
    return b"\2" + plaintext[17:].rpartition(b":")[0]


TARGETS: Final = {
    "payload": Target(any_payload, (*(case.payload for case in CLIENT), *(case.payload for case in VERDICTS))),
    "blob": Target(any_blob, tuple(case.payload for case in CLIENT)),
    "unseal": Target(any_unseal, (*(case.payload for case in CLIENT), payload(keys=BARE_KEYS[0]))),
    "sealed": Target(any_sealed, tuple(_plaintexts())),
    "plaintext": Target(any_plaintext, tuple(_plaintexts())),
    "fields": Target(any_fields, tuple(map(_body, _plaintexts()))),
    "access": Target(
        any_access, (ACCESS, ACCESS * 2), (*access.SETTINGS, *DIRECTIVES, *access.REFUSED, "__CHANGEME__", "ANY")
    ),
    "daemon": Target(
        any_daemon,
        (b"VERBOSE 1;\nFWKNOP_RUN_DIR /run/x;\nDIGEST_DB_FILE $FWKNOP_RUN_DIR/d;\n", b"PCAP_FILTER udp port 62201;\n"),
        (*settings.SETTINGS, *settings.INERT),
    ),
    "fwknoprc": Target(
        any_fwknoprc,
        (b"[default]\n" + KEY_LINES, b"ACCESS tcp/22\n[one]\nSPA_SERVER x\nALLOW_IP source\n" + KEY_LINES),
        (*fwknoprc.SETTINGS, "[default]"),
    ),
    "request": Target(any_request, tuple(map(REQUESTS.encode, (Open(GRANT), Open(GRANT6))))),
    "reply": Target(any_reply, tuple(REPLIES.encode(one) for one in (Done(), Refused("a:1: x"), Refused("no")))),
    "table": Target(
        any_table_text,
        (TIMED, ruleset.swap(ruleset.guard(GRANT.services)).encode()),
        ("define", "include", "flush ruleset", "table inet doorward {", '"', "\\\n"),
    ),
    "words": Target(any_words, (b"15m", b"tcp/22", b"2001:db8::1")),
    "options": Target(
        any_options,
        (b"-A\0tcp/22\0-s\0-k\0host", b"-A\0tcp/6543\0--NAT-access\0host:110\0--NAT-local\0-a\0192.0.2.1\0-D\0host"),
        ("--NAT-access", "--NAT-local", "--gpg-recip", "--NAT-rand-port", "-w"),
    ),
    "includes": Target(any_includes, _INCLUDES, (*access.SETTINGS, *DIRECTIVES)),
    "answers": Target(any_answers, _ANSWERS),
    "order": Target(any_order, _ORDERS),
    "gnupg": Target(any_gnupg_message, _GNUPG),
    "argv": Target(any_argv, (b"echo $SRC '$PORT x' \"$DST\"", b"a\\ b $IP$IP $TIMEOUT $PROTO")),
    **arrivals.TARGETS,
    **tagged.TARGETS,
}
