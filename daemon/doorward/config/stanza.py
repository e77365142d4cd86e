"""One stanza of access.conf as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.frozen import dataclass
from doorward.values import ANYWHERE, Networks, Service

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.sequence import Sequence
    from doorward.values import DigestType, IPAddress, PublicKey, Secret, SymmetricKeys

WINDOW_DEFAULT: Final = 30  # seconds, fwknopd's DEF_FW_ACCESS_TIMEOUT
WINDOW_MAX_DEFAULT: Final = 300  # seconds, fwknopd's DEF_MAX_FW_TIMEOUT
MAGIC_PASSWORD: Final = range(16, 65)  # bytes: a shorter one can be guessed from one packet, HMAC hashes longer ones
ORIGIN_WINDOW_DEFAULT: Final = 10  # seconds, for a CLIENT whose packet names no source


@dataclass(frozen=True, slots=True)
class OpenPgp:
    """How the packets of a stanza are decrypted, and the signers they need (GPG_*).

    `home` is the administrator's keyring; gpg works on a copy. `fingerprints` are 40 upper-case hex
    digits, `remote_ids` the last 8 or 16 of them. `password` None is a key without one (GPG_ALLOW_NO_PW).
    """

    decrypt_id: str
    home: Path
    exe: Path | None = None
    password: Secret | None = None
    require_signature: bool = True
    ignore_signature_errors: bool = False
    remote_ids: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()
    hmac_key: Secret | None = None
    hmac_digest: DigestType | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the format doorward 1: its public key, and the name behind it (CLIENT)."""

    key: PublicKey
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Commands:
    """The account of a client's own commands (ENABLE_CMD_EXEC, ENABLE_CMD_SUDO_EXEC).

    `user` None is the least privileged account; with `shell` a shell reads the command.
    """

    user: str | None = None
    group: str | None = None
    sudo: bool = False
    sudo_user: str | None = None
    sudo_group: str | None = None
    shell: bool = False


@dataclass(frozen=True, slots=True)
class NamedCommands:
    """Commands that a client runs by their names (COMMANDS): it sends the name, and nothing of the command.

    `user` None is the least privileged account.
    """

    texts: tuple[tuple[str, str], ...]  # names and commands
    user: str | None = None
    group: str | None = None

    def find(self, name: str) -> str | None:
        """The command of a name, None where there is none."""
        return dict(self.texts).get(name)


@dataclass(frozen=True, slots=True)
class Cycle:
    """Commands instead of the packet filter (CMD_CYCLE_*). `close` None (NONE) never closes: `seconds` is None too.

    `user` and `group` (CMD_EXEC_USER, CMD_EXEC_GROUP) run them, whether or not clients may send commands of their own;
    None is root, as in fwknopd.
    """

    open: str
    close: str | None
    seconds: int | None
    user: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One of NAT_TARGETS: addresses, or a name as it was resolved when the file was read. `port` None is any."""

    networks: Networks
    port: int | None
    name: str | None = None
    addresses: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Forwarding:
    """The stanza's NAT, which overrides the packet's wish. `targets` None allows every address."""

    force: tuple[IPAddress, int] | None = None  # FORCE_NAT
    snat: IPAddress | None = None  # FORCE_SNAT
    masquerade: bool = False  # FORCE_MASQUERADE
    everything: bool = False  # FORWARD_ALL
    rewrite: bool = True  # not DISABLE_DNAT
    targets: tuple[Target, ...] | None = None  # NAT_TARGETS
    only: bool | None = None  # ENABLE_FORWARD_ACCESS: True forwarding alone, False none, None both

    @property
    def everywhere(self) -> bool:
        """Whether a packet that names no target is forwarded to every address."""
        return self.everything and self.force is None and self.targets is None


@dataclass(frozen=True, slots=True)
class Magic:
    """Where magic packets of a stanza come (MAGIC), and the password that makes them. `port` of UDP; None is ICMP."""

    port: int | None
    password: Secret


@dataclass(frozen=True, slots=True)
class Stanza:
    """One client's rights: keys, networks, services and windows. Windows in seconds, `expires` in Unix seconds.

    `open_ports` None, or `any_ports` beside it, allows every service that `restrict_ports` does not name. `number`
    counts from 1, as in the logs. It has `keys` or `openpgp` or both, or else `clients`, each of which shares `psk`
    with the host where there is one; or else `sequences`, which are no packets and have no keys. `origin_window`
    bounds the window of packets that name no source, None does not.
    """

    number: int
    path: str
    line: int
    source: Networks
    keys: SymmetricKeys | None
    destination: Networks = ANYWHERE
    open_ports: frozenset[Service] | None = None
    restrict_ports: frozenset[Service] = frozenset()
    fw_access_timeout: int = WINDOW_DEFAULT
    max_fw_timeout: int = WINDOW_MAX_DEFAULT
    require_username: str | None = None
    require_source_address: bool = False
    expires: int | None = None
    openpgp: OpenPgp | None = None
    commands: Commands | None = None
    cycle: Cycle | None = None
    forwarding: Forwarding = Forwarding()
    require_os: str | None = None
    any_ports: bool = False  # PERMIT_CLIENT_PORTS
    name: str | None = None  # NAME
    clients: tuple[Client, ...] = ()  # CLIENT
    psk: Secret | None = None  # PSK_BASE64
    origin_window: int | None = None
    max_prefix4: int | None = (
        None  # MAX_PREFIX4: the shortest prefix of a network that may be let in, None lets in none
    )
    max_prefix6: int | None = None
    named: NamedCommands | None = None  # COMMANDS
    session_max: int | None = None  # SESSION_MAX: seconds after which a connection is ended, None never
    keep_while_used: bool = False  # KEEP_WHILE_USED
    one_time_code: Secret | None = None  # ONE_TIME_CODE: what its authenticator app and this host share
    sequences: tuple[Sequence, ...] = ()  # SEQUENCE, SEQUENCE_FILE
    one_time: bool = False  # SEQUENCE_FILE: each of them opens once
    magic: Magic | None = None

    @property
    def label(self) -> str:
        """The stanza in a sentence: `stanza 1`, or with its name `stanza 1 (laptop)`."""
        return f"stanza {self.number}" if self.name is None else f"stanza {self.number} ({self.name})"

    @property
    def has_hmac_key(self) -> bool:
        """Whether packets are authenticated before they are decrypted."""
        keyed = any(made is not None and made.hmac_key is not None for made in (self.keys, self.openpgp))
        return keyed or bool(self.clients) or self.magic is not None
