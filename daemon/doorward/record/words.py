"""The facts of a denial in words, for our line, for `doorwardd explain` and for the helper's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward import denials
from doorward.denials import Bare, CodeFault, Quoted, ServiceDenial, TargetDenial, Unserved

if TYPE_CHECKING:
    from doorward.denials import Denial

_DAY: Final = 86_400  # seconds
_REQUESTS: Final = {
    Unserved.COMMAND: "commands are not enabled (ENABLE_CMD_EXEC)",
    Unserved.NO_FORWARDING: "the stanza does not forward (ENABLE_FORWARD_ACCESS)",
    Unserved.ONLY_FORWARDING: "the stanza only forwards (ENABLE_FORWARD_ACCESS)",
    Unserved.NO_TARGET: "the packet names no target to forward to (FORWARD_ALL without FORCE_NAT)",
    Unserved.NAT_WITH_OS: "NAT and REQUIRE_OS do not go together",
    Unserved.NAT: "NAT is not enabled (ENABLE_IPT_FORWARDING, ENABLE_IPT_LOCAL_NAT)",
    Unserved.FORWARDING: "forwarding is not enabled (ENABLE_IPT_FORWARDING)",
    Unserved.LOCAL_NAT: "local NAT is not enabled (ENABLE_IPT_LOCAL_NAT)",
    Unserved.NETWORK: "the stanza lets in no networks (MAX_PREFIX4, MAX_PREFIX6): name one address",
    Unserved.NETWORK_BESIDE: "no network beside NAT, REQUIRE_OS, ENABLE_DESTINATION_RULE or a command cycle",
    Unserved.EVERYTHING: "the packet names no services, and the stanza no OPEN_PORTS that are not restricted",
    Unserved.TWO_SOURCES: "a command takes one source, and the packet names two",
}
_CODES: Final = {
    CodeFault.MISSING: "the packet has no one-time code",
    CodeFault.WRONG: "the one-time code is wrong: is the clock right, here and where it was made?",
    CodeFault.USED: "the one-time code was used already, or a later one was",
    CodeFault.FIRST_OF_TWO: "the one-time code is right, and after many wrong ones the next one is wanted too",
    CodeFault.TOO_MANY: "too many wrong one-time codes: not looked at before the next one",
}


def words(denial: Denial) -> str:  # noqa: C901, PLR0911, PLR0912  a table: one sentence a fact
    """A denial in words; nothing where its reason says it all."""
    if isinstance(denial, Bare):
        return ""
    if isinstance(denial, Quoted):
        return denial.problem
    if isinstance(denial, ServiceDenial | TargetDenial):
        return _door_words(denial)
    match denial:
        case denials.NotSigned():
            return "not signed"
        case denials.BadSignature(status, fingerprint):
            return f"{status}: signed by {fingerprint}"
        case denials.WrongSigner(fingerprint, option):
            return f"signed by {fingerprint}, which {option} does not name"
        case denials.Forged():
            return "its tag names this client, whose key did not make the packet"
        case denials.SentElsewhere(first):
            return f"came from {first} before"
        case denials.MaybeReplayed():
            return "made before doorwardd started, or before a flood of OpenPGP packets: it may have been seen"
        case denials.WrongClock(seconds):
            return f"{seconds / _DAY:+.0f} days old by this host's clock: is it right?"
        case denials.TooOld(seconds, limit):
            return f"made {seconds:.0f} s ago, more than {limit}"
        case denials.TooNew(seconds, limit):
            return f"made {seconds:.0f} s in the future, more than {limit}"
        case denials.WrongUser(sent, required):
            return f"user {sent!r} is not {required!r}"
        case denials.SourceRequired():
            return "0.0.0.0 where REQUIRE_SOURCE_ADDRESS wants an address"
        case denials.WrongSource(source):
            return f"{source} is not in SOURCE"
        case denials.ImpossibleSource(source):
            return f"{source} is no address that a connection could come from"
        case denials.LinkLocalSource(source):
            return f"{source} is another host on each link, and would be let in on all of them"
        case denials.WindowTooLong(seconds, limit):
            return f"a window of {seconds} s, more than {limit} (MAX_FW_TIMEOUT)"
        case denials.UnknownCommand(name):
            return f"no command of the stanza is named {name} (COMMANDS)"
        case denials.PrefixTooWide(prefix, limit):
            return f"a network with a prefix of {prefix}, wider than {limit} (MAX_PREFIX4, MAX_PREFIX6)"
        case denials.NotServed(request):
            return _REQUESTS[request]
        case denials.CodeDenied(fault):
            return _CODES[fault]


def _door_words(denial: ServiceDenial | TargetDenial) -> str:
    """A denied service or NAT target in words."""
    match denial:
        case denials.ServiceRestricted(service):
            return f"{service} is in RESTRICT_PORTS"
        case denials.ServiceClosed(service):
            return f"{service} is not in OPEN_PORTS"
        case denials.TargetPort(refused):
            return _door_words(refused)
        case denials.WrongTarget(target, port):
            return f"{target},{'*' if port is None else port} is not in NAT_TARGETS"
        case denials.UnknownTarget(host):
            return f"{host} is no address, and no name in NAT_TARGETS"
        case denials.OtherFamily(target):
            return f"{target} is of another family than the source"
