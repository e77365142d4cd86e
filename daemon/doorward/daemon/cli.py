"""The command line of doorwardd: fwknopd's options, and the commands check and explain."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward import cycles, replay
from doorward.config import access
from doorward.crypto import keys
from doorward.crypto.keys import HMAC_KEY_BYTES
from doorward.daemon import configuration, fwknop_log, processes
from doorward.daemon.detach import detach
from doorward.daemon.options import parser
from doorward.errors import ConfigError, DoorwardError, FirewallError
from doorward.firewall import backends
from doorward.firewall.ruleset import TABLE
from doorward.pidfile import holder
from doorward.values import DigestType, FirewallBackend, Reason

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from doorward.firewall.backends import Backend

_KILL_SECONDS: Final = 4.0  # fwknopd waits as long before it kills
_HMAC_BYTES: Final = {  # what fwknop makes for each digest
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
            print(end="", flush=True)  # noqa: T201  here it can still be told that nobody reads it
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is left to be flushed
        return 1


def _nobody_reads(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLERR comes unasked, once the reader is gone
    return bool(poll.poll(0))


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["explain"]:
        from doorward.daemon import explain  # noqa: PLC0415  the daemon does without what comes with it

        return explain.main(arguments[1:])
    if arguments[:1] == ["check"]:
        options, checks = parser(check=True).parse_args(arguments[1:]), True
    else:
        options, checks = _parsed(arguments)
    options.exit_parse_config |= checks and not options.explain_config
    try:
        return _command(options)(options)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    return 1


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, bool]:
    """Return the options, and whether `check` stands behind them; what else stands there ends it all."""
    known = parser()
    options, rest = known.parse_known_args(arguments)
    if rest == ["explain"]:
        known.error("write explain first: doorwardd explain --origin ADDRESS ...")
    if rest and rest != ["check"]:
        known.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest == ["check"]


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """Return what the options ask for."""
    commands = {
        "key_gen": _make_keys,
        "key_gen_file": _make_keys,
        "dump_serv_err_codes": _dump_codes,
        "explain_config": _explain,
        "dump_config": _dump,
        "kill": _kill,
        "restart": _restart,
        "status": _status,
        "exit_parse_config": _check,
        "rotate_digest_cache": _rotate,
        "exit_parse_digest_cache": _read_replays,
        "fw_list": _list_grants,
        "fw_list_all": _list_all,
        "fw_flush": _flush,
    }
    return next((run for name, run in commands.items() if getattr(options, name)), _run)


def _run(options: argparse.Namespace) -> int:
    if options.listener:
        return processes.listener(options)
    if os.geteuid() != 0:
        msg = "must be run as root: it opens a packet socket and changes the firewall"
        raise DoorwardError(msg)
    if options.helper:
        return processes.helper(options)
    if options.exec:
        return processes.executor(options)
    found = configuration.load(options)[0]  # mistakes are shown on the terminal, before it is gone
    if options.foreground:
        return processes.both(options, found, lambda: None)
    return detach(partial(processes.both, options, found))


def _check(options: argparse.Namespace) -> int:
    """Read both files; -a alone checks only that one, so that a new access.conf can be tested before its time."""
    if options.access_file is not None and options.config_file is None:
        read = access.load(options.access_file)
        warnings, stanzas = read.warnings, read.stanzas
        for_exec: tuple[str, ...] = ()
    else:
        loaded, _ = configuration.load(options)
        warnings, stanzas, for_exec = loaded.warnings, loaded.access.stanzas, loaded.for_exec
        folder = loaded.settings.exec_folder
        for_exec += (f"what is open in {folder}",) if cycles.listed(folder) else ()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201  the command's output
    print(f"Configs parsed, exiting. {len(stanzas)} stanzas.")  # noqa: T201  the command's output
    if for_exec:
        print(f"doorward-exec is needed for {', '.join(for_exec)}.")  # noqa: T201  the command's output
    return 0


def _dump(options: argparse.Namespace) -> int:
    from doorward.daemon import in_words  # noqa: PLC0415  the daemon does without it

    for line in in_words.dump(configuration.load(options)[0]):
        print(line)  # noqa: T201  the command's output
    return 0


def _explain(options: argparse.Namespace) -> int:
    found = configuration.load(options)[0]
    from doorward.daemon import in_words  # noqa: PLC0415  the daemon does without it

    for line in (*in_words.tell(found), *(f"warning: {warning}" for warning in found.warnings)):
        print(line)  # noqa: T201  the command's output
    return 0


def _make_keys(options: argparse.Namespace) -> int:
    """Print a new pair of keys, or write it to a file that nobody else can read and that was not there."""
    hmac_bytes = options.hmac_key_len or _HMAC_BYTES.get(options.hmac_digest_type, HMAC_KEY_BYTES)
    import secrets  # noqa: PLC0415  the daemon does without it

    made = keys.generate(secrets.token_bytes, options.key_len, hmac_bytes)
    if options.key_gen_file is None:
        print(made, end="")  # noqa: T201  the command's output
        return 0
    try:
        with os.fdopen(os.open(options.key_gen_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made)
    except OSError as error:
        msg = f"{options.key_gen_file}: {error.strerror}"
        raise DoorwardError(msg) from error
    print(f"[+] Wrote Rijndael and HMAC keys to: {options.key_gen_file}")  # noqa: T201  the command's output
    return 0


def _dump_codes(_options: argparse.Namespace) -> int:
    for code, text in fwknop_log.CODES.items():
        print(f"err code: {code}, err string: '{text}'")  # noqa: T201  the command's output
    print(f"reasons of verdicts: {', '.join(map(str, Reason))}")  # noqa: T201  the command's output
    return 0


def _read_replays(options: argparse.Namespace) -> int:
    """Say that the replay store can be read; a problem is an exit code of 1."""
    path = configuration.settings(options).replay_file
    if not path.exists():
        print(f"{path} is not there yet.")  # noqa: T201  the command's output
        return 0
    with contextlib.closing(replay.ReplayStore(path, read_only=True)) as store:
        store.has(bytes(32))  # nothing is read before something is asked for
    print(f"Digest cache {path} parsed, exiting.")  # noqa: T201  the command's output
    return 0


def _list_all(options: argparse.Namespace) -> int:
    """Print the live grants and what holds them, with the packet filter's own tool where it is there."""
    _list_grants(options)
    if configuration.settings(options).backend is FirewallBackend.NFTABLES:
        command = ["nft", "-a", "list", "table", *TABLE.split()]
    else:
        command = ["iptables-save", "-c"]
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603  fixed words, no user's text
    except OSError as error:
        msg = f"{command[0]}: {error.strerror}"
        raise FirewallError(msg) from error


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


def _rotate(options: argparse.Namespace) -> int:
    settings = configuration.settings(options)
    skew = settings.max_age or 0
    old = replay.rotate(settings.replay_file, int(time.time()), skew)
    print(f"{settings.replay_file} is new, the old one is {old}; knocks are refused for {skew} s")  # noqa: T201
    return 0


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


def _firewall(options: argparse.Namespace) -> Backend:
    if os.geteuid() != 0:
        msg = "must be run as root to read the firewall"
        raise FirewallError(msg)
    settings = configuration.settings(options)
    return backends.of(settings, frozenset, console=True)
