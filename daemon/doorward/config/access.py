"""access.conf: its lines to stanzas. Source: fwknop server/access.c; the older names perl/legacy/fwknop/fwknopd."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, private_key, reader, sequence
from doorward.config.files import Disk, Files
from doorward.config.reader import Line, Setting
from doorward.config.settings import DaemonSettings
from doorward.config.stanza import (
    MAGIC_PASSWORD,
    ORIGIN_WINDOW_DEFAULT,
    Client,
    Commands,
    Cycle,
    Forwarding,
    Magic,
    NamedCommands,
    OpenPgp,
    Stanza,
    Target,
)
from doorward.errors import ConfigError, Problem, WireError
from doorward.values import (
    PREFIXES,
    DigestType,
    EncryptionMode,
    Protocol,
    Service,
    SymmetricKeys,
    check_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.config.files import Answers
    from doorward.values import Secret

DEPTH_MAX: Final = 3  # nesting of files, the first one included; fwknop's MAX_DEPTH
INCLUDES_MAX: Final = 10_000  # includes; a file counts each time
NEVER: Final = "NONE"  # CMD_CYCLE_CLOSE: never close
ASYMMETRIC: Final = "asymmetric"
LEGACY_KEY: Final = 16  # bytes of a key that legacy mode uses
NO_FILES: Final = Files()


_SERVICES: Final = "lower case only, no service twice; ranges (`udp/60000-60010`) are doorward's own"


def _services(text: str) -> frozenset[Any]:
    return frozenset(convert.services(text))


def _mode(text: str) -> EncryptionMode | None:
    """Read ENCRYPTION_MODE; None is fwknop's Asymmetric: OpenPGP alone."""
    return None if text.lower() == ASYMMETRIC else convert.encryption_mode(text)


_collect_mode = convert.one_of(  # fwknop 1.9's ways of capture
    dict.fromkeys(("pcap", "file_pcap", "ulog_pcap")), "is none of PCAP, FILE_PCAP, ULOG_PCAP: no port sequences here"
)


SETTINGS: Final[dict[str, Setting[Any]]] = {
    "SOURCE": Setting("source", convert.networks, "IPv6 too; /0 is refused (write ANY)"),
    "NAME": Setting("name", check_name),
    "DESTINATION": Setting("destination", convert.networks, "IPv6 too"),
    "CLIENT": Setting(
        "clients", convert.client, "a public key, `doorward1 BASE64 NAME`; one line a client, several in a stanza"
    ),
    "PSK_BASE64": Setting("psk", convert.psk_base64, "32 bytes that each CLIENT of the stanza shares with the host"),
    "ONE_TIME_CODE": Setting(
        "one_time_code",
        convert.one_time_secret,
        "base32; each CLIENT of the stanza adds the code of an authenticator app (RFC 6238) to its knock",
    ),
    "MAX_PREFIX4": Setting(
        "max_prefix4",
        convert.number(PREFIXES[4].start, PREFIXES[4].stop - 1),
        "clients may have an IPv4 network let in, with a prefix of this length or longer; default none",
    ),
    "MAX_PREFIX6": Setting(
        "max_prefix6",
        convert.number(PREFIXES[6].start, PREFIXES[6].stop - 1),
        "the same of IPv6",
    ),
    "COMMANDS": Setting(
        "named",
        convert.named_command,
        "`NAME=COMMAND`; clients send the name alone; one line a command, several in a stanza",
    ),
    "SEQUENCE": Setting(
        "sequence",
        sequence.steps,
        "`tcp/7000 udp/8000:5 tcp/9000`: ports, each with the seconds it may come after the one before (10)",
    ),
    "SEQUENCE_FILE": Setting("sequence_file", convert.path, "sequences that open once, one a line"),
    "SEQUENCE_TIMEOUT": Setting(
        "sequence_seconds",
        convert.number(1, sequence.SECONDS_MAX),
        "seconds for all of a sequence; default those of its steps",
    ),
    "SEQUENCE_FLAGS": Setting(
        "sequence_flags", sequence.flags, "the flags of a step over TCP; default `!fin,syn,!rst,!ack`"
    ),
    "MAGIC": Setting(
        "magic",
        convert.magic_carrier,
        "`udp/PORT` or `icmp`: where magic packets come, whose password is HMAC_KEY (docs/magic-packet.md)",
    ),
    "OPEN_PORTS": Setting("open_ports", _services, _SERVICES),
    "RESTRICT_PORTS": Setting("restrict_ports", _services, _SERVICES),
    "KEY": Setting("key", convert.key_text, "longer than 32 bytes is refused: fwknopd accepts it and never decrypts"),
    "KEY_BASE64": Setting("key", convert.key_base64, "canonical base64 only"),
    "HMAC_KEY": Setting("hmac_key", convert.key_text),
    "HMAC_KEY_BASE64": Setting("hmac_key", convert.key_base64, "canonical base64 only"),
    "HMAC_DIGEST_TYPE": Setting("hmac_digest", convert.digest_type, "without an HMAC key it is refused"),
    "ENCRYPTION_MODE": Setting("mode", _mode),
    "FW_ACCESS_TIMEOUT": Setting("fw_access_timeout", convert.window, "a plain number of seconds from 1"),
    "MAX_FW_TIMEOUT": Setting("max_fw_timeout", convert.window, "a plain number of seconds from 1"),
    "SESSION_MAX": Setting(
        "session_max", convert.window, "seconds after which a connection through a grant is ended; default never"
    ),
    "KEEP_WHILE_USED": Setting(
        "keep_while_used", convert.boolean, "a grant lives on while there are connections through it"
    ),
    "REQUIRE_USERNAME": Setting("require_username", convert.text),
    "REQUIRE_SOURCE_ADDRESS": Setting("require_source_address", convert.boolean),
    "REQUIRE_SOURCE": Setting("require_source_address", convert.boolean),
    "ACCESS_EXPIRE": Setting(
        "expires", convert.expiry_date, "the day begins in UTC; a date that does not exist is refused"
    ),
    "ACCESS_EXPIRE_EPOCH": Setting("expires", convert.number(1, 10**12 - 1)),
    "GPG_HOME_DIR": Setting("gpg_home", convert.path, "gpg works on a copy of the keyring; gpg.conf in it is not read"),
    "GPG_EXE": Setting("gpg_exe", convert.path),
    "GPG_DECRYPT_ID": Setting("gpg_decrypt_id", convert.text),
    "GPG_DECRYPT_PW": Setting("gpg_password", convert.key_text),
    "GPG_ALLOW_NO_PW": Setting("gpg_no_password", convert.boolean),
    "GPG_REQUIRE_SIG": Setting("gpg_require", convert.boolean),
    "GPG_DISABLE_SIG": Setting("gpg_disable", convert.boolean),
    "GPG_IGNORE_SIG_VERIFY_ERROR": Setting("gpg_ignore", convert.boolean),
    "GPG_REMOTE_ID": Setting("gpg_remote_ids", convert.key_ids, "16 digits too; fwknopd compares 8"),
    "GPG_FINGERPRINT_ID": Setting("gpg_fingerprints", convert.fingerprints),
    "ENABLE_CMD_EXEC": Setting("command", convert.boolean, "run without a shell, unless CMD_EXEC_SHELL is Y"),
    "CMD_EXEC_USER": Setting("command_user", convert.account, "without it the least privileged account, not root"),
    "CMD_EXEC_GROUP": Setting("command_group", convert.account, "a group's name; fwknopd reads it as a user's"),
    "CMD_EXEC_SHELL": Setting("command_shell", convert.boolean),
    "ENABLE_CMD_SUDO_EXEC": Setting("sudo", convert.boolean),
    "CMD_SUDO_EXEC_USER": Setting("sudo_user", convert.account),
    "CMD_SUDO_EXEC_GROUP": Setting("sudo_group", convert.account, "a group's name; fwknopd reads it as a user's"),
    "CMD_CYCLE_OPEN": Setting(
        "cycle_open", convert.text, "OPEN_PORTS, RESTRICT_PORTS and MAX_FW_TIMEOUT apply to it too"
    ),
    "CMD_CYCLE_CLOSE": Setting("cycle_close", convert.text),
    "CMD_CYCLE_TIMER": Setting("cycle_seconds", convert.window),
    "FORCE_NAT": Setting("force", convert.address_and_port, "IPv6 too"),
    "FORCE_SNAT": Setting("force_snat", convert.address, "IPv6 too"),
    "FORCE_MASQUERADE": Setting("masquerade", convert.boolean),
    "DISABLE_DNAT": Setting("no_dnat", convert.boolean),
    "FORWARD_ALL": Setting("everything", convert.boolean),
    "NAT_TARGETS": Setting("targets", convert.targets),
    "REQUIRE_OS": Setting("require_os", convert.system, "a name of nftables' fingerprints"),
    "PERMIT_CLIENT_PORTS": Setting("any_ports", convert.boolean),
    "ENABLE_FORWARD_ACCESS": Setting("forward_only", convert.boolean),
    "DATA_COLLECT_MODE": Setting(
        "collect_mode", _collect_mode, "read and not used: doorwardd.conf says how packets are captured"
    ),
}
REFUSED: Final[dict[str, str]] = {  # names of fwknop 1.9, with their replacement here
    "INTERNAL_NET_ACCESS": "write NAT_TARGETS",
    "GPG_PATH": "write GPG_EXE",
    "EXTERNAL_CMD_OPEN": "write CMD_CYCLE_OPEN",
    "EXTERNAL_CMD_CLOSE": "write CMD_CYCLE_CLOSE",
    "ENABLE_EXTERNAL_CMDS": "write CMD_CYCLE_OPEN and CMD_CYCLE_CLOSE",
    "EXTERNAL_CMD_ALARM": "write CMD_CYCLE_TIMER",
    "MAX_ACCESS_TIMEOUT": "write MAX_FW_TIMEOUT",
    "PERMIT_CLIENT_TIMEOUT": "clients may ask for a window up to MAX_FW_TIMEOUT",
    "REQUIRE_OS_REGEX": "write REQUIRE_OS with one name",
    "REQUIRE_AUTH_METHOD": "passwords within packets are not served: an HMAC key says who knocks",
    "SHADOW_FILE": "passwords within packets are not served: an HMAC key says who knocks",
    "CMD_REGEX": "write CMD_CYCLE_OPEN: a client's own command is not matched against a pattern",
    "RESTRICT_INTF": "write DESTINATION",
    "DISABLE_FW_ACCESS": "write CMD_CYCLE_OPEN",
    "ENABLE_OUTPUT_ACCESS": "replies pass by the packet filter's connection tracking",
    "ENCRYPT_SEQUENCE": "encrypted sequences of ports are not served",
    "SHARED_SEQUENCE": "write SEQUENCE",
    "PORT_OFFSET": "write SEQUENCE with the ports themselves",
    "KNOCK_INTERVAL": "write the seconds behind each port of SEQUENCE",
    "KNOCK_LIMIT": "write SEQUENCE_FILE: each of its sequences opens once",
    "MIN_TIME_DIFF": "a step of SEQUENCE may follow at once",
    "MAX_TIME_DIFF": "write the seconds behind each port of SEQUENCE",
    "GPG_USE_OPTIONS": "gpg works on a copy of the keyring, without gpg.conf",
    "GPG_NO_OPTIONS": "gpg works on a copy of the keyring, without gpg.conf",
    "GPG_NO_REQUIRE_PREFIX": "the prefix is always put back",
    "GPG_PREFIX": "the prefix is always hQ",
}
PLAIN: Final = (  # fields that a stanza has as they are written
    "source", "destination", "open_ports", "restrict_ports", "fw_access_timeout", "max_fw_timeout",
    "require_username", "require_source_address", "expires", "require_os", "any_ports", "name",
    "session_max", "keep_while_used",
)  # fmt: skip  # a list of names reads better in lines of many
_IN_KEY_FILES: Final = ("KEY", "HMAC_KEY", "GPG_")
# What a stanza with CLIENT cannot have: other keys, and what this format does not carry.
_NOT_BESIDE_CLIENT: Final = {
    **dict.fromkeys(("key", "hmac_key", "hmac_digest", "mode"), "give this client a stanza of its own"),
    "require_username": "packets of this format carry no user name",
    "command": "packets of this format carry names of commands alone (COMMANDS)",
}
# What a stanza with SEQUENCE cannot have: a sequence has no keys and says nothing but that it was sent.
_NOT_BESIDE_SEQUENCE: Final = {
    **dict.fromkeys(
        ("key", "hmac_key", "hmac_digest", "mode", "clients"), "a sequence has no keys: give them a stanza of their own"
    ),
    "require_username": "a sequence carries no user name",
    "require_source_address": "a sequence names no address: where it comes from is let in",
    "command": "a sequence carries no command: write CMD_CYCLE_OPEN",
    "named": "a sequence names no command: write CMD_CYCLE_OPEN",
    "any_ports": "a sequence asks for no ports",
    "everything": "a sequence names no target",
    "forward_only": "a sequence names no target: write FORCE_NAT",
    "targets": "a sequence names no target: write FORCE_NAT",
}
_NOT_BESIDE_MAGIC: Final = {
    **dict.fromkeys(
        ("key", "hmac_digest", "mode", "clients", "sequence", "sequence_file"),
        "a magic packet has a password alone (HMAC_KEY): give other keys a stanza of their own",
    ),
    "require_username": "a magic packet carries no user name",
    "require_source_address": "a magic packet names no address: where it comes from is let in",
    "command": "a magic packet carries no command: write CMD_CYCLE_OPEN",
    "named": "a magic packet names no command: write CMD_CYCLE_OPEN",
    "any_ports": "a magic packet asks for no ports",
    "everything": "a magic packet names no target",
    "forward_only": "a magic packet names no target: write FORCE_NAT",
    "targets": "a magic packet names no target: write FORCE_NAT",
}
_ONLY_BESIDE_SEQUENCE: Final = ("sequence_seconds", "sequence_flags")
_ONLY_BESIDE_CLIENT: Final = ("psk", "one_time_code", "max_prefix4", "max_prefix6")


@dataclass(frozen=True, slots=True)
class Access:
    """The stanzas of access.conf. `warnings` are for the log at start: valid, but worth knowing.

    `homes` are the keyrings of the stanzas with OpenPGP keys, as files.Answers.tree() returns them. `host_key` is the
    host's private key, read where a stanza has clients.
    """

    stanzas: tuple[Stanza, ...]
    warnings: tuple[str, ...]
    homes: dict[Path, bytes] = field(default_factory=dict)
    host_key: Secret | None = None


@dataclass(slots=True)
class _Draft:
    """The lines of one stanza while they are read."""

    start: Line
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    clients: list[tuple[Line, Client]] = field(default_factory=list)
    commands: list[tuple[Line, tuple[str, str]]] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # fields that a line names, also with a wrong value

    def line(self, name: str) -> Line:
        """The line of a field, or the stanza's first line."""
        return self.lines.get(name, self.start)


def load(path: Path, settings: DaemonSettings | None = None) -> Access:
    """The stanzas of an access.conf and of its included files.

    `settings` is doorwardd.conf; None skips the checks that need it.

    Raises:
        ConfigError: every problem of the files.
    """
    return parse(path, reader.content(path, secret=True), settings, Disk())


def load_configured(settings: DaemonSettings, files: Answers) -> Access:
    """The stanzas of the file, or of every *.conf in the folder, sorted by name, that the settings name.

    Raises:
        ConfigError: every problem of the files.
    """
    if settings.access_folder is None:
        return parse(settings.access_file, files.content(settings.access_file, secret=True), settings, files)
    folder, reading = settings.access_folder, _Reading(settings, files)
    reading.folder(folder, Line(str(folder), 0, "ACCESS_FOLDER", str(folder)), ())
    return reading.result(folder)


def parse(path: Path, content: bytes, settings: DaemonSettings | None = None, files: Answers = NO_FILES) -> Access:
    """The stanzas in the bytes of an access.conf; `path` names it in problems, `files` has the included files.

    Raises:
        ConfigError: every problem of the files.
    """
    reading = _Reading(settings, files)
    reading.file(path, content, ())
    return reading.result(path)


class _Reading:
    """One reading of access.conf: its stanzas and its problems."""

    def __init__(self, settings: DaemonSettings | None, files: Answers) -> None:
        """Begin with nothing."""
        self._settings = settings
        self._files = files
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._drafts: list[_Draft] = []
        self._included = 0

    def result(self, path: Path) -> Access:
        """The stanzas, warnings and keyrings.

        Raises:
            ConfigError: every problem.
        """
        judged = [_Judgement(draft, self._settings, self._files, self._problems) for draft in self._drafts]
        stanzas = [one.stanza(number) for number, one in enumerate(judged, start=1)]
        if not self._drafts and not self._problems:
            self._problems.append(Problem(str(path), 0, "has no stanza: nobody could get in"))
        homes = {} if self._problems else self._homes([stanza for stanza in stanzas if stanza is not None])
        host_key = self._host_key()
        made = tuple(stanza for stanza in stanzas if stanza is not None)
        self._check_sequences(made)
        if self._problems:
            raise reader.failure(self._problems)
        about = [warning for one, stanza in zip(judged, made, strict=True) for warning in one.warnings(stanza)]
        return Access(made, (*self._warnings, *about, *_shared_names(made)), homes, host_key)

    def file(self, path: Path, content: bytes, chain: tuple[str, ...]) -> None:
        """Read the stanzas of one file; `chain` are the files that include it."""
        draft: _Draft | None = None
        chain = (*chain, os.path.normpath(path))
        for line in reader.lines(path, content, self._problems):
            if line.name == "%include_keys":
                self._keys(line, draft)
            elif line.name == "%include":
                self._include(path.parent / line.value, line, chain)
            elif line.name == "%include_folder":
                self.folder(path.parent / line.value, line, chain)
            elif line.name == "SOURCE":
                draft = _Draft(line)
                self._drafts.append(draft)
                self._set(draft, line)
            elif draft is None:
                shown = line.name if reader.is_name(line.name) else "the line"
                self._problems.append(line.problem(f"{shown} stands before the first SOURCE"))
            else:
                self._set(draft, line)

    def folder(self, path: Path, line: Line, chain: tuple[str, ...]) -> None:
        """Read every *.conf of a folder that a line names."""
        try:
            names = self._files.names(path)
        except ConfigError as error:
            self._refuse(line, error)
            return
        if not names:
            self._warnings.append(line.remark(f"{path} has no *.conf"))
        for name in names:
            self._include(path / name, line, chain)

    def _include(self, path: Path, line: Line, chain: tuple[str, ...]) -> None:
        self._included += 1
        if len(self._problems) >= reader.PROBLEMS_MAX:
            return
        if os.path.normpath(path) in chain:
            self._problems.append(line.problem(f"{line.name}: {path} includes itself"))
        elif len(chain) >= DEPTH_MAX:
            self._problems.append(line.problem(f"{line.name}: files within files, deeper than {DEPTH_MAX}"))
        elif self._included > INCLUDES_MAX:
            self._problems.append(line.problem(f"{line.name}: more than {INCLUDES_MAX} files"))
        else:
            content = self._content(path, line)
            if content is not None:
                self.file(path, content, chain)

    def _keys(self, line: Line, draft: _Draft | None) -> None:
        """Read a file of keys into the stanza that names it."""
        if draft is None:
            self._problems.append(line.problem(f"{line.name} stands before the first SOURCE"))
            return
        path = Path(line.path).parent / line.value
        content = self._content(path, line)
        self._included += 1
        if self._included > INCLUDES_MAX:
            self._problems.append(line.problem(f"{line.name}: more than {INCLUDES_MAX} files"))
        if content is None or len(self._problems) >= reader.PROBLEMS_MAX:
            draft.named.add("key")  # the missing file is reported already
            return
        for found in reader.lines(path, content, self._problems):
            if found.name.startswith(_IN_KEY_FILES) and found.name in SETTINGS:
                self._set(draft, found)
            else:
                shown = found.name if reader.is_name(found.name) else "the line"
                self._problems.append(found.problem(f"{shown} is no key: {line.name} takes KEY*, HMAC_KEY* and GPG_*"))

    def _content(self, path: Path, line: Line) -> bytes | None:
        try:
            return self._files.content(path, secret=True)
        except (ConfigError, ValueError) as error:
            self._refuse(line, error)
            return None

    def _refuse(self, line: Line, error: Exception | str) -> None:
        self._problems.append(line.problem(f"{line.name}: {error}"))

    def _set(self, draft: _Draft, line: Line) -> None:
        """Keep the value of a line; a second value of the same field is a problem."""
        if line.name in REFUSED:
            self._problems.append(line.problem(f"{line.name} is not served: {REFUSED[line.name]}"))
            return
        draft.named |= {SETTINGS[line.name].field} if line.name in SETTINGS else set()
        for _, name, value in reader.convert([line], SETTINGS, self._problems):
            if name == "clients":
                draft.clients.append((line, value))
                continue
            if name == "named":
                draft.commands.append((line, value))
                draft.lines.setdefault(name, line)
                continue
            if name in draft.values:
                first = draft.lines[name]
                where = f"line {first.number}" if first.path == line.path else f"{first.path}:{first.number}"
                self._problems.append(line.problem(f"{line.name}: already set in {where}"))
            draft.values[name] = value
            draft.lines[name] = line
            self._warnings.extend(filter(None, [line.remark_on_comment()]))

    def _check_sequences(self, stanzas: tuple[Stanza, ...]) -> None:
        """Report sequences of which one opens what another one should, too many of them, and ports of our own."""
        found = [one for stanza in stanzas for one in stanza.sequences]
        for one, other in sequence.overlaps(found[: sequence.SEQUENCES_MAX]):
            self._sequence_problem(one, f"one who sends it or the sequence of {other.where} sends the other one too")
        if len(found) > sequence.SEQUENCES_MAX:
            self._sequence_problem(found[sequence.SEQUENCES_MAX], f"more than {sequence.SEQUENCES_MAX} sequences")
        port = None if self._settings is None else self._settings.udp_server
        own = None if port is None else Service(Protocol.UDP, port)
        for one in found:
            if own in one.services:
                self._sequence_problem(one, f"{own} is the port of our own server (ENABLE_UDP_SERVER)")

    def _sequence_problem(self, one: sequence.Sequence, text: str) -> None:
        path, _, line = one.where.rpartition(":")
        self._problems.append(Problem(path, int(line), f"SEQUENCE: {text}"))

    def _host_key(self) -> Secret | None:
        """The host's private key, where a stanza has clients and the settings say where it is."""
        clients = [each for draft in self._drafts for each in draft.clients]
        if not clients or self._settings is None:
            return None
        path = self._settings.host_key_file
        try:
            found = private_key.parse(str(path), self._files.content(path, secret=True))
        except ConfigError as error:
            self._problems += error.problems
            self._refuse(clients[0][0], "needs the host's key: `doorwardd keys generate` makes it")
            return None
        for line, client in clients:
            if client.key == found.public:
                self._refuse(line, "this is the host's own key")
        return found.private

    def _homes(self, stanzas: list[Stanza]) -> dict[Path, bytes]:
        """The keyrings of stanzas, each read once."""
        homes: dict[Path, bytes] = {}
        for stanza in stanzas:
            if stanza.openpgp is None or stanza.openpgp.home in homes:
                continue
            try:
                homes[stanza.openpgp.home] = self._files.tree(stanza.openpgp.home)
            except ConfigError as error:
                self._problems.append(Problem(stanza.path, stanza.line, f"GPG_HOME_DIR: {error}"))
        return homes


class _Judgement:
    """The stanza of a draft, with fwknopd's checks and ours."""

    def __init__(self, draft: _Draft, settings: DaemonSettings | None, files: Answers, problems: list[Problem]) -> None:
        """Report problems into `problems`."""
        self._draft = draft
        self._settings = settings
        self._defaults = settings or DaemonSettings()
        self._files = files
        self._problems = problems
        self._notes: list[tuple[str, str]] = []  # field, note
        self._users: dict[str, str] = {}
        self._groups: dict[str, str] = {}

    def stanza(self, number: int) -> Stanza | None:
        """The stanza, or None if it has problems."""
        before, draft = len(self._problems), self._draft
        values = draft.values
        self._users = {name: self._user(name) for name in ("command_user", "sudo_user") if name in values}
        self._groups = {name: self._group(name) for name in ("command_group", "sudo_group") if name in values}
        openpgp = self._openpgp()
        clients = self._clients()
        sequences = self._sequences()
        magic = self._magic()
        keys = None if magic is not None else self._keys(openpgp)
        made: dict[str, Any] = {
            "commands": self._commands(),
            "named": self._named(),
            "cycle": self._cycle(),
            "forwarding": self._forwarding(),
            "magic": magic,
        }
        self._check_ports()
        self._check_sessions()
        lacks_keys = keys is None and openpgp is None and not clients and not sequences and magic is None
        if len(self._problems) > before or lacks_keys or "source" not in draft.values:
            return None
        same: dict[str, Any] = {name: values[name] for name in PLAIN if name in values}
        if clients:
            same.setdefault("require_source_address", True)
            window = values.get("fw_access_timeout", ORIGIN_WINDOW_DEFAULT)
            same |= {"clients": clients, "origin_window": window}
            same |= {name: values.get(name) for name in _ONLY_BESIDE_CLIENT}
            if draft.commands:
                same.setdefault("open_ports", frozenset())
        if sequences:
            same |= {"sequences": sequences, "one_time": "sequence_file" in values}
        if sequences or magic is not None:
            same.setdefault("open_ports", frozenset())  # of a command cycle
        where = draft.start
        return Stanza(number=number, path=where.path, line=where.number, keys=keys, openpgp=openpgp, **made, **same)

    def warnings(self, stanza: Stanza) -> Iterator[str]:
        """Yield notes about valid settings."""
        notes = (*self._notes, *self._openness(stanza), *_openness(stanza))
        yield from (self._draft.line(name).remark(text) for name, text in notes)

    def _openness(self, stanza: Stanza) -> Iterator[tuple[str, str]]:
        """Yield fields that open more than the author may think, as far as the settings decide it."""
        forwarding = stanza.forwarding
        wished = forwarding.everything or bool(
            forwarding.only
        )  # without settings the stanza itself must ask for forwarding
        forwards = wished if self._settings is None else self._settings.permissions.forwarding
        if forwards and forwarding.force is None and forwarding.targets is None and forwarding.only is not False:
            name = "everything" if forwarding.everything else "forward_only"
            yield name, "no NAT_TARGETS: a packet may have connections forwarded to any host that this one reaches"

    def _problem(self, name: str, text: str) -> None:
        self._problems.append(self._draft.line(name).problem(text))

    def _clients(self) -> tuple[Client, ...]:
        """The stanza's clients, each key once."""
        lines: dict[bytes, Line] = {}
        for line, client in self._draft.clients:
            first = lines.setdefault(client.key.raw, line)
            if first is not line:
                self._problems.append(line.problem(f"CLIENT: this key is that of {first.path}:{first.number}"))
        if "clients" in self._draft.named:
            of_gpg = {name: _NOT_BESIDE_CLIENT["key"] for name in self._draft.values if name.startswith("gpg_")}
            for name, why in (_NOT_BESIDE_CLIENT | of_gpg).items():
                if self._draft.values.get(name):
                    self._problem(name, f"{self._draft.line(name).name} beside CLIENT: {why}")
        given = {**self._draft.values, **({"named": True} if self._draft.commands else {})}
        for name in (*_ONLY_BESIDE_CLIENT, "named") if "clients" not in self._draft.named else ():
            if name in given:
                self._problem(name, f"{self._draft.line(name).name} without CLIENT: it goes with public keys")
        return tuple(client for _, client in self._draft.clients)

    def _sequences(self) -> tuple[sequence.Sequence, ...]:
        """The stanza's sequences of ports: one, or those of a file that open once each."""
        values, named = self._draft.values, self._draft.named
        if not named & {"sequence", "sequence_file"}:
            for name in _ONLY_BESIDE_SEQUENCE:
                if name in values:
                    self._problem(name, f"{self._draft.line(name).name} without SEQUENCE")
            return ()
        self._check_beside_sequence()
        flags, within = values.get("sequence_flags", sequence.SYN), values.get("sequence_seconds")
        if "sequence" in values:
            steps, line = values["sequence"], self._draft.line("sequence")
            whole = sequence.whole(steps, within)
            return (sequence.Sequence(steps, whole, flags, f"{line.path}:{line.number}"),)
        return self._one_time(values["sequence_file"], within, flags) if "sequence_file" in values else ()

    def _one_time(self, path: Path, within: int | None, flags: sequence.Flags) -> tuple[sequence.Sequence, ...]:
        try:
            content = self._files.content(path, secret=True)
        except ConfigError as error:
            self._problem("sequence_file", f"SEQUENCE_FILE: {error}")
            return ()
        found, problems = sequence.one_time(str(path), content, within, flags)
        self._problems += problems
        if not found and not problems:
            self._problem("sequence_file", f"SEQUENCE_FILE: {path} has no sequence: nobody could get in")
        return tuple(found)

    def _check_beside_sequence(self) -> None:
        if {"sequence", "sequence_file"} <= self._draft.named:
            self._problem("sequence_file", "SEQUENCE_FILE beside SEQUENCE: a stanza has one of them")
        self._check_beside("SEQUENCE", _NOT_BESIDE_SEQUENCE)

    def _check_beside(self, which: str, refused: Mapping[str, str]) -> None:
        """Report what cannot stand beside knocks that ask for nothing, and what they would open."""
        values, named = self._draft.values, self._draft.named
        given = {**values, **({"named": True} if self._draft.commands else {})}
        given |= {"clients": True} if self._draft.clients else {}
        of_gpg = {name: refused["key"] for name in values if name.startswith("gpg_")}
        for name, why in {**refused, **of_gpg}.items():
            if given.get(name):
                self._problem(name, f"{self._draft.line(name).name} beside {which}: {why}")
        if not named & {"open_ports", "cycle_open"}:
            self._problem(which.lower(), f"{which} without OPEN_PORTS: what does it open?")
        elif "open_ports" in values and not values["open_ports"] - values.get("restrict_ports", frozenset()):
            self._problem("open_ports", f"{which}: RESTRICT_PORTS leaves nothing of OPEN_PORTS to open")

    def _magic(self) -> Magic | None:
        """Where magic packets come, and their password."""
        values = self._draft.values
        if "magic" not in self._draft.named:
            return None
        self._check_beside("MAGIC", _NOT_BESIDE_MAGIC)
        password: Secret | None = values.get("hmac_key")
        if password is None:
            if "hmac_key" not in self._draft.named:
                self._problem("magic", "MAGIC without HMAC_KEY: which password makes the packets?")
            return None
        if len(password) not in MAGIC_PASSWORD:
            most = f"{MAGIC_PASSWORD.start} to {MAGIC_PASSWORD.stop - 1}"
            self._problem("hmac_key", f"{self._draft.line('hmac_key').name} beside MAGIC: a password has {most} bytes")
        return Magic(values["magic"], password) if "magic" in values else None

    def _keys(self, openpgp: OpenPgp | None) -> SymmetricKeys | None:
        values, draft = self._draft.values, self._draft
        key: Secret | None = values.get("key")
        hmac_key: Secret | None = values.get("hmac_key")
        if hmac_key is not None and hmac_key in (key, values.get("gpg_password")):
            self._problem("hmac_key", "the HMAC key equals the encryption key")
            return None
        if hmac_key is None and "hmac_digest" in values and "hmac_key" not in draft.named:
            self._problem("hmac_digest", "HMAC_DIGEST_TYPE without an HMAC key")
            return None
        if key is None:
            # a key with a mistake is reported at its own line
            if (
                openpgp is None
                and not draft.named & {"key", "clients", "sequence", "sequence_file", "magic"}
                and not any(name.startswith("gpg_") for name in draft.named)
            ):
                self._problem(
                    "",
                    "the stanza has no KEY or KEY_BASE64, no GPG_DECRYPT_ID with a password, no CLIENT and no SEQUENCE",
                )
            return None
        mode = values.get("mode", EncryptionMode.CBC)
        if mode is None:
            self._problem("mode", "ENCRYPTION_MODE Asymmetric beside a KEY, which is then unused")
            return None
        if mode is EncryptionMode.LEGACY and len(key) > LEGACY_KEY:
            self._notes.append(("mode", f"in legacy mode only the first {LEGACY_KEY} bytes of the key count"))
        try:
            return SymmetricKeys(key, hmac_key, values.get("hmac_digest", DigestType.SHA256), mode)
        except WireError as error:
            self._problem("", str(error))
            return None

    def _openpgp(self) -> OpenPgp | None:
        values = self._draft.values
        named = [name for name in values if name.startswith("gpg_")]
        if not named:
            if "mode" in values and values["mode"] is None:
                self._problem("mode", "ENCRYPTION_MODE Asymmetric without GPG_DECRYPT_ID")
            return None
        if "gpg_password" not in values and not values.get("gpg_no_password"):
            text = "OpenPGP needs GPG_DECRYPT_PW or GPG_ALLOW_NO_PW Y"
            if "key" in values:
                self._notes.append((named[0], f"{text}: this stanza has neither and takes symmetric packets only"))
            elif "gpg_password" not in self._draft.named:
                self._problem(named[0], text)
            return None
        return self._checked_openpgp()

    def _checked_openpgp(self) -> OpenPgp | None:
        values = self._draft.values
        require = bool(values.get("gpg_require")) or not values.get("gpg_disable")
        if require and not self._draft.named & {"gpg_remote_ids", "gpg_fingerprints"}:
            self._problem("gpg_require", "nobody's signature counts: GPG_FINGERPRINT_ID or GPG_REMOTE_ID is missing")
            return None
        if "gpg_decrypt_id" not in values:
            self._problem("gpg_password", "GPG_DECRYPT_ID is missing: which key decrypts?")
            return None
        if not require:
            self._notes.append(("gpg_disable", "GPG_DISABLE_SIG: anybody with the host's public key gets in"))
        return OpenPgp(
            decrypt_id=values["gpg_decrypt_id"],
            home=values.get("gpg_home", self._defaults.gpg_home),
            exe=values.get("gpg_exe", self._defaults.gpg_exe),
            password=values.get("gpg_password"),
            require_signature=require,
            ignore_signature_errors=bool(values.get("gpg_ignore")),
            remote_ids=values.get("gpg_remote_ids", frozenset()),
            fingerprints=values.get("gpg_fingerprints", frozenset()),
            hmac_key=values.get("hmac_key"),
            hmac_digest=values.get("hmac_digest", DigestType.SHA256) if "hmac_key" in values else None,
        )

    def _commands(self) -> Commands | None:
        values = self._draft.values
        users, groups = self._users, self._groups
        if not values.get("command"):
            for name in ("sudo", "command_shell"):
                if values.get(name):
                    self._notes.append((name, f"{self._draft.line(name).name} does nothing without ENABLE_CMD_EXEC Y"))
            return None
        return Commands(
            users.get("command_user"),
            groups.get("command_group"),
            bool(values.get("sudo")),
            users.get("sudo_user"),
            groups.get("sudo_group"),
            bool(values.get("command_shell")),
        )

    def _named(self) -> NamedCommands | None:
        """The commands that clients run by their names, each name once."""
        lines: dict[str, Line] = {}
        for line, (name, _) in self._draft.commands:
            first = lines.setdefault(name, line)
            if first is not line:
                self._problems.append(line.problem(f"COMMANDS: {name} is that of {first.path}:{first.number}"))
        if not lines:
            return None
        texts = tuple(value for _, value in self._draft.commands)
        return NamedCommands(texts, self._users.get("command_user"), self._groups.get("command_group"))

    def _user(self, name: str) -> str:
        user: str = self._draft.values[name]
        if not self._files.is_user(user):
            self._problem(name, f"{self._draft.line(name).name}: there is no user {user}")
        return user

    def _group(self, name: str) -> str:
        wanted: str = self._draft.values[name]
        group = self._files.group(wanted)
        if group is None:
            self._problem(name, f"{self._draft.line(name).name}: there is no group {wanted}")
            return wanted
        if group != wanted:
            self._notes.append((name, f"there is no group {wanted}: the group {group} of the user {wanted} is used"))
        return group

    def _cycle(self) -> Cycle | None:
        values = self._draft.values
        opens, closes, seconds = (values.get(f"cycle_{part}") for part in ("open", "close", "seconds"))
        if opens is None and closes is None:
            if seconds is not None:
                self._problem("cycle_seconds", "CMD_CYCLE_TIMER without CMD_CYCLE_OPEN")
            return None
        if opens is None or closes is None:
            missing, there = ("OPEN", "close") if opens is None else ("CLOSE", "open")
            self._problem(f"cycle_{there}", f"CMD_CYCLE_{missing} is missing")
            return None
        who = (self._users.get("command_user"), self._groups.get("command_group"))
        if closes == NEVER:
            return Cycle(opens, None, None, *who)
        if seconds is None and "cycle_seconds" not in self._draft.named:
            self._problem("cycle_open", "CMD_CYCLE_TIMER is missing")
            return None
        return Cycle(opens, closes, seconds, *who)

    def _forwarding(self) -> Forwarding:
        values = self._draft.values
        force, snat, masquerade = values.get("force"), values.get("force_snat"), bool(values.get("masquerade"))
        everything = bool(values.get("everything"))
        if "force" not in self._draft.named and not everything and (snat is not None or masquerade):
            name = "masquerade" if snat is None else "force_snat"
            self._problem(name, f"{self._draft.line(name).name} needs FORCE_NAT or FORWARD_ALL")
        if values.get("no_dnat") and not everything:
            self._notes.append(("no_dnat", "DISABLE_DNAT without FORWARD_ALL: connections pass without rewriting"))
        self._check_forwarding(values)
        targets = values.get("targets")
        if everything and "force" not in self._draft.named:
            said = "have every address behind this host" if targets is None else "are denied"
            self._notes.append(("everything", f"FORWARD_ALL without FORCE_NAT: packets that name no target {said}"))
        return Forwarding(
            force=force,
            snat=snat,
            masquerade=masquerade and snat is None,
            everything=everything,
            rewrite=not values.get("no_dnat"),
            targets=None if targets is None else tuple(map(self._resolved, targets)),
            only=values.get("forward_only"),
        )

    def _check_forwarding(self, values: dict[str, Any]) -> None:
        """Check the settings that need a permission of doorwardd.conf."""
        if self._settings is None:
            return
        file = self._settings.file
        nat = self._settings.permissions.forwarding or self._settings.permissions.local_nat
        for name in ("force", "force_snat", "masquerade", "everything"):
            if values.get(name) and not nat:
                told = self._draft.line(name).name
                self._problem(name, f"{told} needs ENABLE_IPT_FORWARDING or ENABLE_IPT_LOCAL_NAT in {file}")
        if values.get("forward_only") and not self._settings.permissions.forwarding:
            self._problem("forward_only", f"ENABLE_FORWARD_ACCESS needs ENABLE_IPT_FORWARDING in {file}")
        if "targets" in values and not nat:
            self._notes.append(("targets", f"NAT_TARGETS does nothing without ENABLE_IPT_FORWARDING in {file}"))

    def _resolved(self, target: Target) -> Target:
        if target.name is None:
            return target
        addresses = self._files.addresses(target.name)
        if not addresses:
            self._notes.append(("targets", f"{target.name} has no address now: nothing is forwarded there"))
        return replace(target, addresses=addresses)

    def _check_sessions(self) -> None:
        values = self._draft.values
        for name in ("session_max", "keep_while_used"):
            if values.get(name) and "cycle_open" in self._draft.named:
                told = self._draft.line(name).name
                self._problem(name, f"{told} beside a command cycle, whose connections are not known here")

    def _check_ports(self) -> None:
        values, named = self._draft.values, self._draft.named
        if values.get("any_ports") is False and "open_ports" not in named:
            self._problem("any_ports", "PERMIT_CLIENT_PORTS N without OPEN_PORTS: nothing could be opened")
        if "collect_mode" in values:
            self._notes.append(
                ("collect_mode", f"DATA_COLLECT_MODE is not used: {self._defaults.file} says how packets are captured")
            )


def _shared_names(stanzas: tuple[Stanza, ...]) -> Iterator[str]:
    """Yield warnings of names that two stanzas have, which lines of the log cannot tell apart."""
    first: dict[str, Stanza] = {}
    for stanza in stanzas:
        if stanza.name is not None and (other := first.setdefault(stanza.name, stanza)) is not stanza:
            yield f"{stanza.path}:{stanza.line}: NAME {stanza.name} is that of {other.path}:{other.line} too"


_SEEN: Final = "a sequence can be replayed by whoever sees it: use a knock"
_SEEN_ONCE: Final = "a sequence can be sent first by whoever sees its beginning or reads the file: use a knock"


def _openness(stanza: Stanza) -> Iterator[tuple[str, str]]:
    """Yield fields with a weakness, and the weakness."""
    if stanza.sequences:
        yield "sequence_file" if stanza.one_time else "sequence", _SEEN_ONCE if stanza.one_time else _SEEN
        return
    if not stanza.has_hmac_key:
        yield "", "no HMAC key: packets are not authenticated before they are decrypted"
    if not stanza.require_source_address:
        text = "REQUIRE_SOURCE_ADDRESS is not Y: the first address to relay a packet that names none is let in"
        yield "require_source_address", text
    if stanza.any_ports:
        yield "any_ports", "PERMIT_CLIENT_PORTS: every service may be opened"
    elif stanza.open_ports is None:
        yield "", "no OPEN_PORTS: every service may be opened"
    if stanza.fw_access_timeout > stanza.max_fw_timeout:
        text = "FW_ACCESS_TIMEOUT exceeds MAX_FW_TIMEOUT, which limits only the windows that clients ask for"
        yield "fw_access_timeout", text
