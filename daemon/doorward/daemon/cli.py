"""doorwardd's command line: fwknopd's options, and the commands check, explain, keys and import-knockd."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward import replay
from doorward.commands import journal
from doorward.config import access
from doorward.crypto import keys
from doorward.crypto.keys import HMAC_KEY_BYTES
from doorward.daemon import preconditions, processes, units
from doorward.daemon.detach import detach
from doorward.errors import ConfigError, DoorwardError, FirewallError, ShareError
from doorward.findings import hold
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import TABLE
from doorward.helper import hearing
from doorward.helper.share import connected
from doorward.host.running import holder
from doorward.linux import files, seccomp, seqpacket
from doorward.listener.captures import described
from doorward.listener.share import ask_once
from doorward.processes import configuration
from doorward.processes.options import parser
from doorward.record import fwknop
from doorward.values import DigestType, FirewallMode, ForeignFirewall, Reason

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from doorward.config.settings import DaemonSettings
    from doorward.processes.configuration import Configuration

_KILL_SECONDS: Final = 4.0  # as fwknopd waits before SIGKILL
_HMAC_BYTES: Final = {  # the lengths that fwknop generates
    DigestType.MD5: 16,
    DigestType.SHA1: 20,
    DigestType.SHA384: 128,
    DigestType.SHA512: 128,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run doorwardd and return its exit code: 0 done, 1 failed or not running, 2 usage."""
    try:
        try:
            return _main(argv)
        finally:
            print(end="", flush=True)  # noqa: T201  a closed pipe is noticed here
    except BrokenPipeError:
        if not seqpacket.hung_up(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes again at exit
        return 1


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["explain"]:
        from doorward.daemon import explain  # noqa: PLC0415  the daemon does not need its imports

        return explain.main(arguments[1:])
    if arguments[:1] == ["keys"]:
        from doorward.daemon import host_key  # noqa: PLC0415  the daemon does not need its imports

        return host_key.main(arguments[1:])
    if arguments[:1] == ["import-knockd"]:
        from doorward.daemon import import_knockd  # noqa: PLC0415  the daemon does not need its imports

        return import_knockd.main(arguments[1:])
    if arguments[:1] == ["check"]:
        options, checks = parser(check=True).parse_args(arguments[1:]), True
    else:
        options, checks = _parsed(arguments)
    checking = _explain if options.explain_config else _check
    try:
        return (checking if checks else _command(options))(options)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    return 1


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, bool]:
    """The options, and whether `check` follows them; any other argument is a usage error."""
    known = parser()
    options, rest = known.parse_known_args(arguments)
    if rest == ["explain"]:
        known.error("write explain first: doorwardd explain --origin ADDRESS ...")
    if rest and rest != ["check"]:
        known.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest == ["check"]


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """The command that the options name; of several the first one in fwknopd's order (server/fwknopd.c, main())."""
    commands = {
        "key_gen": _make_keys,
        "key_gen_file": _make_keys,
        "dump_serv_err_codes": _dump_codes,
        "fw_list": _list_grants,
        "fw_list_all": _list_all,
        "fw_flush": _flush,
        "explain_config": _explain,
        "dump_config": _dump,
        "kill": _kill,
        "restart": _restart,
        "status": _status,
        "exit_parse_config": _check,
        "exit_parse_digest_cache": _read_replays,
    }
    return next((run for name, run in commands.items() if getattr(options, name)), _run)


def _run(options: argparse.Namespace) -> int:
    if not options.exec:
        seccomp.require()
    if options.listener:
        return processes.listener(options)
    if os.geteuid() != 0:
        msg = "must be run as root: it opens a packet socket and changes the firewall"
        raise DoorwardError(msg)
    if options.helper:
        return processes.helper(options)
    if options.exec:
        return processes.executor(options)
    found = configuration.load(options)[0]  # problems are shown while there is a terminal
    preconditions.require(found.access.stanzas, firewall=not options.test)
    _rotate(options)
    if options.foreground:
        return processes.both(options, found, lambda: None)
    return detach(partial(processes.both, options, found))


def _check(options: argparse.Namespace) -> int:
    """Check both files, and that the daemon could start; -a alone checks only that access.conf."""
    from doorward.daemon import trial  # noqa: PLC0415  the daemon does not need its imports

    if options.access_file is not None and options.config_file is None:
        read = access.load(options.access_file)
        warnings, heard, shared = read.warnings, "", ""
        for_exec: tuple[str, ...] = ()
    else:
        loaded, _ = configuration.load(options)
        preconditions.require(loaded.access.stanzas, firewall=not options.test)
        trial.of_settings(loaded.settings)
        warnings, read, for_exec = loaded.warnings, loaded.access, loaded.for_exec
        folder = loaded.settings.exec_folder
        for_exec += (f"what is open in {folder}",) if journal.listed(folder) else ()
        warnings += _about_firewall(loaded)
        heard, of_units = _about_hearing(loaded)
        warnings += of_units
        shared = _about_share(loaded.settings)
    for warning in (*warnings, *trial.of_stanzas(read)):
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201  the command's output
    print(f"Configs parsed, exiting. {len(read.stanzas)} stanzas.")  # noqa: T201  the command's output
    if heard:
        print(heard)  # noqa: T201  the command's output
    if shared:
        print(shared)  # noqa: T201  the command's output
    if for_exec:
        print(f"doorward-exec is needed for {', '.join(for_exec)}.")  # noqa: T201  the command's output
    return _report(options) if options.report else 0


def _report(options: argparse.Namespace) -> int:
    """Print what knocks need of this host, a line each as it is found; 1 where something does not hold."""
    from doorward.daemon import report  # noqa: PLC0415  the daemon does not need its imports

    found = []
    for each in report.findings(configuration.load(options)[0]):
        print(each, flush=True)  # noqa: T201  the command's output
        found.append(each)
    return 0 if hold(found) else 1


def _about_hearing(found: Configuration) -> tuple[str, tuple[str, ...]]:
    """How knocks of this configuration are heard on this host, and why; empty where only root can see it.

    With warnings of units that have them heard otherwise.
    """
    if found.settings.automatic and os.geteuid() != 0 and hearing.beforehand(found) is None:
        return "", ()
    way = hearing.way(found)
    chosen = found.heard(server=way.server)
    return f"Knocks are heard on {described(chosen)}: {way.why}.", units.warnings(chosen.settings.udp_server)


def _about_share(settings: DaemonSettings) -> str:
    """Whether the share of two gateways answers; empty where there is none."""
    if settings.replay_share is None:
        return ""
    try:
        ask_once(connected(settings.replay_share))
    except ShareError as error:
        policy = f"knocks meanwhile: SHARE_FAILURE {settings.share_failure}"
        return f"THE SHARE {settings.replay_share} FAILS: {error}; {policy}."
    return f"The share {settings.replay_share} answers."


def _about_firewall(found: Configuration) -> tuple[str, ...]:
    """What keeps grants of this configuration from being of use on this host; only root can see it."""
    if os.geteuid() != 0:
        return ()
    try:
        with closing(hearing.packet_filter(found)) as firewall:
            foreign = firewall.foreign()
            reported = foreign.findings() if found.settings.foreign_firewall is ForeignFirewall.REPORT else ()
            return (*reported, *_openings(firewall, found), *filter(None, [foreign.use_of_mark()]))
    except FirewallError as error:
        return (f"the firewall: {error}",)


def _openings(firewall: Nftables, found: Configuration) -> tuple[str, ...]:
    """What keeps a host open that should be closed: one that was confirmed, or has a table."""
    if firewall.table() is None and not firewall.is_confirmed:
        return ()
    standing = firewall.standing(found.served)
    closing = firewall.is_confirmed or found.settings.firewall_mode is not FirewallMode.OBSERVE
    return standing.sentences if closing else ()


def _dump(options: argparse.Namespace) -> int:
    from doorward.daemon import describe  # noqa: PLC0415  the daemon does without it

    for line in describe.dump(configuration.load(options)[0]):
        print(line)  # noqa: T201  the command's output
    return 0


def _explain(options: argparse.Namespace) -> int:
    found = configuration.load(options)[0]
    from doorward.daemon import describe  # noqa: PLC0415  the daemon does without it

    for line in (*describe.tell(found), *(f"warning: {warning}" for warning in found.warnings)):
        print(line)  # noqa: T201  the command's output
    return 0


def _make_keys(options: argparse.Namespace) -> int:
    """Print a new pair of keys, or write it to a new file of mode 0600."""
    named, default = options.hmac_key_len, _HMAC_BYTES.get(options.hmac_digest_type, HMAC_KEY_BYTES)
    hmac_bytes = default if named is None else named
    weakness = keys.weakness(options.key_len, hmac_bytes)
    if weakness:
        print(f"warning: {weakness}", file=sys.stderr)  # noqa: T201  the command's output
    import secrets  # noqa: PLC0415  the daemon does without it

    made = keys.generate(secrets.token_bytes, options.key_len, hmac_bytes)
    if options.key_gen_file is None:
        print(made, end="")  # noqa: T201  the command's output
        return 0
    try:
        files.create(options.key_gen_file, made.encode())
    except OSError as error:
        msg = f"{options.key_gen_file}: {error.strerror}"
        raise DoorwardError(msg) from error
    print(f"[+] Wrote Rijndael and HMAC keys to: {options.key_gen_file}")  # noqa: T201  the command's output
    return 0


def _dump_codes(_options: argparse.Namespace) -> int:
    for code, text in fwknop.CODES.items():
        print(f"err code: {code}, err string: '{text}'")  # noqa: T201  the command's output
    print(f"reasons of verdicts: {', '.join(map(str, Reason))}")  # noqa: T201  the command's output
    return 0


def _read_replays(options: argparse.Namespace) -> int:
    """Check that the replay store can be read; a problem is exit code 1."""
    _rotate(options)
    path = configuration.settings(options).replay_file
    if not path.exists():
        print(f"{path} is not there yet.")  # noqa: T201  the command's output
        return 0
    with contextlib.closing(replay.ReplayView(path)) as view:
        view.has(bytes(32))
    print(f"Digest cache {path} parsed, exiting.")  # noqa: T201  the command's output
    return 0


def _list_all(options: argparse.Namespace) -> int:
    """Print the live grants and the table that holds them."""
    _list_grants(options)
    with closing(Libnftables()) as nft:
        print(nft.run(f"list table {TABLE}", Output.HANDLE), end="")  # noqa: T201  the command's output
    return 0


def _status(options: argparse.Namespace) -> int:
    pid = holder(configuration.settings(options).pid_file)
    print("No running doorwardd detected." if pid is None else f"Detected doorwardd is running (pid={pid}).")  # noqa: T201
    return 1 if pid is None else 0


def _restart(options: argparse.Namespace) -> int:
    os.kill(_pid(options), signal.SIGHUP)
    return 0


def _kill(options: argparse.Namespace) -> int:
    pid = _pid(options)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _KILL_SECONDS
    while holder(configuration.settings(options).pid_file) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return 0


def _pid(options: argparse.Namespace) -> int:
    pid = holder(configuration.settings(options).pid_file)
    if pid is None:
        msg = "no running doorwardd detected"
        raise DoorwardError(msg)
    return pid


def _rotate(options: argparse.Namespace) -> None:
    """Put the replay store aside where the options ask for it; the command or the start goes on with a new one."""
    if not options.rotate_digest_cache:
        return
    settings = configuration.settings(options)
    skew = settings.max_age or 0
    old = replay.rotate(settings.replay_file, int(time.time()), skew)
    print(f"{settings.replay_file} is new, the old one is {old}; knocks are refused for {skew} s")  # noqa: T201


def _list_grants(options: argparse.Namespace) -> int:
    with closing(_firewall(options)) as firewall:
        grants = firewall.grants()
    for grant in grants:
        print(f"{grant.source} {grant.service} closes in {grant.remaining:.0f} s")  # noqa: T201  the command's output
    return 0


def _flush(options: argparse.Namespace) -> int:
    with closing(_firewall(options)) as firewall:
        firewall.flush()
    return 0


def _firewall(options: argparse.Namespace) -> Nftables:
    if os.geteuid() != 0:
        msg = "must be run as root to read the firewall"
        raise FirewallError(msg)
    settings = configuration.settings(options)
    return Nftables(settings.firewall_file, FirewallMode.OBSERVE, frozenset)
