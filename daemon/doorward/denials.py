"""Why a packet opened nothing: one frozen fact for each cause, with all values of its text. No text is made here.

record/ words them, once for each reader. Every class says which Reason it belongs to.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from doorward.frozen import dataclass
from doorward.values import Reason

if TYPE_CHECKING:
    from doorward.values import IPAddress, Service
    from doorward.wire.fwknop import Field

SignerOption = Literal["GPG_FINGERPRINT_ID", "GPG_REMOTE_ID"]


@dataclass(frozen=True, slots=True)
class Malformed:
    """The payload is a packet of no format; `problem` is the parser's text."""

    reason: ClassVar = Reason.MALFORMED
    problem: str


@dataclass(frozen=True, slots=True)
class NoStanza:
    """SOURCE and DESTINATION of no stanza fit."""

    reason: ClassVar = Reason.NO_STANZA


@dataclass(frozen=True, slots=True)
class Expired:
    """ACCESS_EXPIRE of the stanza has passed."""

    reason: ClassVar = Reason.EXPIRED


@dataclass(frozen=True, slots=True)
class WrongHmac:
    """The HMAC key of the stanza did not make the packet."""

    reason: ClassVar = Reason.HMAC


@dataclass(frozen=True, slots=True)
class UnknownTag:
    """The tag names no client of this host in this epoch, the last or the next."""

    reason: ClassVar = Reason.TAG


@dataclass(frozen=True, slots=True)
class Forged:
    """The tag names a client, whose key did not make the packet."""

    reason: ClassVar = Reason.HMAC


class Fit(enum.IntEnum):
    """How much of a packet that was not decrypted fits the stanza; of several stanzas the best fit is reported."""

    NOTHING = 1  # it is no packet of this kind of keys
    KIND = 2  # another key made it
    KEY = 3  # it is encrypted to the stanza's key


@dataclass(frozen=True, slots=True)
class NotDecrypted:
    """The stanza's key did not open the packet; `problem` is the text of the cipher or of gpg."""

    reason: ClassVar = Reason.DECRYPTION
    problem: str
    fit: Fit = Fit.KIND


@dataclass(frozen=True, slots=True)
class NotExamined:
    """gpg had no time for the packet, or ended before its turn."""

    reason: ClassVar = Reason.BUSY
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NotSigned:
    """The stanza wants a signature, and there is none."""

    reason: ClassVar = Reason.SIGNATURE


@dataclass(frozen=True, slots=True)
class BadSignature:
    """gpg does not find the signature good; `status` is its verdict in words."""

    reason: ClassVar = Reason.SIGNATURE
    status: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WrongSigner:
    """The signature is good, and `option` of the stanza does not name its key."""

    reason: ClassVar = Reason.SIGNATURE
    fingerprint: str
    option: SignerOption


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A field of the plaintext breaks the format; `problem` is the parser's text."""

    reason: ClassVar = Reason.DECODE
    field: Field
    problem: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """The packet was seen before."""

    reason: ClassVar = Reason.REPLAY


@dataclass(frozen=True, slots=True)
class SentElsewhere:
    """The packet was seen before, from another origin: one of the two is not the client."""

    reason: ClassVar = Reason.REPLAY
    first: IPAddress


@dataclass(frozen=True, slots=True)
class MaybeReplayed:
    """The packet was made before the start, or before a flood of OpenPGP packets that could not all be kept."""

    reason: ClassVar = Reason.REPLAY


@dataclass(frozen=True, slots=True)
class WrongClock:
    """The packet is `seconds` old, negative where it comes from the future: a clock must be wrong."""

    reason: ClassVar = Reason.CLOCK
    seconds: float


@dataclass(frozen=True, slots=True)
class TooOld:
    """The packet was made `seconds` ago, more than `limit`."""

    reason: ClassVar = Reason.STALE
    seconds: float
    limit: int


@dataclass(frozen=True, slots=True)
class TooNew:
    """The packet was made `seconds` in the future, more than `limit`."""

    reason: ClassVar = Reason.FUTURE
    seconds: float
    limit: int


@dataclass(frozen=True, slots=True)
class WrongUser:
    """The user is not the one of REQUIRE_USERNAME."""

    reason: ClassVar = Reason.USERNAME
    sent: str
    required: str


@dataclass(frozen=True, slots=True)
class SourceRequired:
    """The packet names no source, and REQUIRE_SOURCE_ADDRESS wants one."""

    reason: ClassVar = Reason.SOURCE_REQUIRED


@dataclass(frozen=True, slots=True)
class WrongSource:
    """The source lies outside SOURCE."""

    reason: ClassVar = Reason.SOURCE
    source: IPAddress


@dataclass(frozen=True, slots=True)
class ImpossibleSource:
    """No connection comes from the source: unspecified, multicast or broadcast."""

    reason: ClassVar = Reason.SOURCE
    source: IPAddress


@dataclass(frozen=True, slots=True)
class LinkLocalSource:
    """The source is another host on each link, and a grant would let in all of them."""

    reason: ClassVar = Reason.SOURCE
    source: IPAddress


class Unserved(enum.Enum):
    """A kind of request that the stanza or the settings do not serve."""

    COMMAND = enum.auto()  # ENABLE_CMD_EXEC is not set
    NO_FORWARDING = enum.auto()  # ENABLE_FORWARD_ACCESS is N
    ONLY_FORWARDING = enum.auto()  # ENABLE_FORWARD_ACCESS is Y, and the packet wants no NAT
    NO_TARGET = enum.auto()  # FORWARD_ALL is set without FORCE_NAT, and the packet names no target
    NAT_WITH_OS = enum.auto()  # NAT where REQUIRE_OS is set
    NAT = enum.auto()  # neither ENABLE_IPT_FORWARDING nor ENABLE_IPT_LOCAL_NAT is set
    FORWARDING = enum.auto()  # ENABLE_IPT_FORWARDING is not set
    LOCAL_NAT = enum.auto()  # ENABLE_IPT_LOCAL_NAT is not set
    NETWORK = enum.auto()  # a network as source, and no MAX_PREFIX4 or MAX_PREFIX6 for it
    NETWORK_BESIDE = enum.auto()  # a network beside NAT, REQUIRE_OS, ENABLE_DESTINATION_RULE or a command cycle
    EVERYTHING = enum.auto()  # all services of OPEN_PORTS, and there are none
    TWO_SOURCES = enum.auto()  # two sources for a command, which takes one


@dataclass(frozen=True, slots=True)
class NotServed:
    """The stanza or the settings do not serve this kind of request."""

    reason: ClassVar = Reason.UNSUPPORTED
    request: Unserved


@dataclass(frozen=True, slots=True)
class WindowTooLong:
    """The packet asks for `seconds`, more than the stanza's longest window."""

    reason: ClassVar = Reason.UNSUPPORTED
    seconds: int
    limit: int


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """The packet names a command that the stanza does not define."""

    reason: ClassVar = Reason.UNSUPPORTED
    name: str


@dataclass(frozen=True, slots=True)
class PrefixTooWide:
    """The packet asks for a network with a prefix of `prefix`, and the shortest that the stanza allows is `limit`."""

    reason: ClassVar = Reason.UNSUPPORTED
    prefix: int
    limit: int


@dataclass(frozen=True, slots=True)
class ServiceRestricted:
    """RESTRICT_PORTS names a requested service."""

    reason: ClassVar = Reason.SERVICES
    service: Service


@dataclass(frozen=True, slots=True)
class ServiceClosed:
    """OPEN_PORTS does not name a requested service."""

    reason: ClassVar = Reason.SERVICES
    service: Service


ServiceDenial = ServiceRestricted | ServiceClosed


@dataclass(frozen=True, slots=True)
class TargetPort:
    """The stanza does not open a NAT target's port, and has no NAT_TARGETS."""

    reason: ClassVar = Reason.TARGET
    denial: ServiceDenial


@dataclass(frozen=True, slots=True)
class WrongTarget:
    """NAT_TARGETS does not name a target; `port` None is all ports."""

    reason: ClassVar = Reason.TARGET
    target: IPAddress
    port: int | None


@dataclass(frozen=True, slots=True)
class UnknownTarget:
    """The packet names a NAT host that is neither an address nor a name of NAT_TARGETS."""

    reason: ClassVar = Reason.TARGET
    host: str


@dataclass(frozen=True, slots=True)
class OtherFamily:
    """The NAT target is of another family of addresses than the source."""

    reason: ClassVar = Reason.TARGET
    target: IPAddress


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """No packet filter could express the grant, such as NAT between families of addresses."""

    reason: ClassVar = Reason.TARGET
    problem: str


class CodeFault(enum.Enum):
    """What is wrong with a one-time code."""

    MISSING = enum.auto()  # the packet has none
    WRONG = enum.auto()  # it is not the one of the last, this or the next step
    USED = enum.auto()  # it was used already, or a later one was
    FIRST_OF_TWO = enum.auto()  # right, and after many wrong ones another one has to follow
    TOO_MANY = enum.auto()  # not looked at: too many wrong ones in this step


@dataclass(frozen=True, slots=True)
class CodeDenied:
    """The stanza wants a one-time code (ONE_TIME_CODE), and this one does not count."""

    reason: ClassVar = Reason.CODE
    fault: CodeFault


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The replay store could not say whether the packet is new."""

    reason: ClassVar = Reason.STORE
    problem: str


@dataclass(frozen=True, slots=True)
class FirewallFailed:
    """The helper or the packet filter refused the grant."""

    reason: ClassVar = Reason.FIREWALL
    problem: str


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """doorward-exec did not take the command."""

    reason: ClassVar = Reason.COMMAND
    problem: str


@dataclass(frozen=True, slots=True)
class Bug:
    """An unforeseen error."""

    reason: ClassVar = Reason.INTERNAL
    problem: str


Bare = NoStanza | Expired | UnknownTag | WrongHmac | Replayed  # their reason says it all
Failure = StoreFailed | FirewallFailed | CommandFailed | Bug
Quoted = Malformed | NotDecrypted | NotExamined | Undecodable | Inexpressible | Failure  # another part's text
SignatureDenial = NotSigned | BadSignature | WrongSigner
TimeDenial = WrongClock | TooOld | TooNew
SourceDenial = WrongSource | ImpossibleSource | LinkLocalSource
TargetDenial = TargetPort | WrongTarget | UnknownTarget | OtherFamily
Denial = (
    Bare | Forged | Quoted | SignatureDenial | SentElsewhere | MaybeReplayed | TimeDenial | WrongUser | SourceRequired
    | SourceDenial | NotServed | WindowTooLong | UnknownCommand | PrefixTooWide | ServiceDenial | TargetDenial
    | CodeDenied
)  # fmt: skip
NO_STANZA: Final = NoStanza()
EXPIRED: Final = Expired()
UNKNOWN_TAG: Final = UnknownTag()
FORGED: Final = Forged()
WRONG_HMAC: Final = WrongHmac()
REPLAYED: Final = Replayed()
