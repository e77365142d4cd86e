"""The command `doorward knock`, which is fwknop's client: from its words to its exit code."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from doorward import __version__
from doorward.client import keys, last, options, spelling, stanza_file
from doorward.client.knock import Run, check, knock
from doorward.client.request import ENCRYPTION, HMAC, PASSPHRASE, Saved, client_file, saved_profile
from doorward.config import fwknoprc
from doorward.errors import ClientError
from doorward.wire.fwknop import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.client.spelling import Word
    from doorward.config.profile import Profile

DONE: Final = 0
_LINE_MAX: Final = 1024


def run(words: Sequence[str], outside: Outside, name: str) -> int:
    """Carry out one command line and return the exit code; `name` is what the program is called."""
    said = _read(words, name)
    arguments = _arguments(said, name)
    if arguments.show_last:
        outside.say(f"Last fwknop client command line: fwknop {last.text(last.load(_args_path(arguments, outside)))}")
        return DONE
    if arguments.last_cmd:
        said = last.load(_args_path(arguments, outside))
        if arguments.verbose:
            outside.say(f"Executing: fwknop {last.text(said)}")
        arguments = _arguments(said, name)
    return _carry_out(said, arguments, outside)


def _carry_out(said: list[Word], arguments: argparse.Namespace, outside: Outside) -> int:
    if arguments.stanza_list:
        outside.out.writelines(f"{stanza}\n" for stanza in client_file(outside, _rc_path(arguments, outside)).names)
        return DONE
    if arguments.key_gen or arguments.key_gen_file:
        return _generate(said, arguments, outside)
    if arguments.save_rc_stanza:
        check(_to_be_saved(arguments, outside), test=arguments.test)  # a command that fails leaves the file alone
        _save_stanza(stanza_file.settings(said), arguments, outside)
    profile, saved = _profile(arguments, outside)
    if not profile.no_save_args and not arguments.last_cmd:
        _keep_command(said, arguments, outside)
    asking = replace(outside, ask=_asker(arguments, outside))
    knock(profile, asking, _order(arguments, profile), saved)
    return DONE


def _args_path(arguments: argparse.Namespace, outside: Outside) -> Path:
    path: Path | None = arguments.save_args_file
    if path is None and arguments.no_home_dir:
        msg = "without a home directory name the file of the last command line: -E FILE"
        raise ClientError(msg)
    return path or outside.home / last.NAME


def _keep_command(said: list[Word], arguments: argparse.Namespace, outside: Outside) -> None:
    """Keep the command line for -l; that it cannot be kept is no reason not to knock."""
    if arguments.no_home_dir and arguments.save_args_file is None:
        return
    try:
        last.save(said, _args_path(arguments, outside))
    except OSError as error:
        if arguments.save_args_file is not None or arguments.verbose:
            outside.warn(f"the command line could not be kept: {error}")


def _to_be_saved(arguments: argparse.Namespace, outside: Outside) -> Profile:
    """Return what a stanza will say once the command line has been saved in it."""
    said, path, stanza = options.profile(arguments), _rc_path(arguments, outside), _stanza(arguments)
    if not path.exists():
        return said
    saved = fwknoprc.load(path)
    there = saved.has(stanza) and not arguments.force_stanza
    return said.over(saved.profile(stanza if there else fwknoprc.DEFAULT))


def _stanza(arguments: argparse.Namespace) -> str:
    """Return the name of the stanza to save."""
    stanza: str | None = arguments.named_config or arguments.server
    if stanza is None:
        msg = "name the stanza: -n NAME, or -D HOST for one of that name"
        raise ClientError(msg)
    return stanza


def _save_stanza(lines: list[tuple[str, str]], arguments: argparse.Namespace, outside: Outside) -> None:
    path = _rc_path(arguments, outside)
    stanza_file.save(path, _stanza(arguments), lines, force=bool(arguments.force_stanza), agree=outside.agree)


def parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of the options in their one spelling."""
    made = argparse.ArgumentParser(name, usage=f"{name} -A SERVICES -D HOST [options]", allow_abbrev=False)
    made.add_argument("-V", "--version", action="version", version=_version(name))
    options.add_knock(made)
    return made


def _version(name: str) -> str:
    """Return what -V prints; scripts made for fwknop look for its protocol."""
    return f"doorward {__version__}" + (f", FKO protocol version {VERSION}" if name == "fwknop" else "")


def _read(words: Sequence[str], name: str) -> list[Word]:
    try:
        return spelling.read(words)
    except ValueError as error:
        _usage(name, str(error))


def _arguments(said: Sequence[Word], name: str) -> argparse.Namespace:
    return parser(name).parse_args([str(word) for word in said])


def _usage(name: str, problem: str) -> NoReturn:
    parser(name).error(problem)


def _rc_path(arguments: argparse.Namespace, outside: Outside) -> Path:
    """Return the file of stanzas, for what cannot do without it."""
    if not _reads_file(arguments):
        without = "--no-rc-file" if arguments.no_rc_file else "--no-home-dir without --rc-file FILE"
        msg = f"-n, --save-rc-stanza and --stanza-list need a file of stanzas, and {without} leaves it out"
        raise ClientError(msg)
    path: Path = arguments.rc_file or outside.home / ".fwknoprc"
    return path


def _reads_file(arguments: argparse.Namespace) -> bool:
    """Say whether a file of stanzas is read."""
    return not arguments.no_rc_file and not (arguments.no_home_dir and arguments.rc_file is None)


def _profile(arguments: argparse.Namespace, outside: Outside) -> tuple[Profile, Saved]:
    """Return what command line and file say together, and what of it the file said."""
    said = options.profile(arguments)
    if said.key or said.hmac_key:
        outside.warn("warning: a key on the command line is visible to every user of this machine")
    saved = Saved()
    if _reads_file(arguments):
        stanza = arguments.named_config or (arguments.server if arguments.save_rc_stanza else None)
        saved = saved_profile(outside, arguments.rc_file, stanza, arguments.server)
    elif arguments.named_config is not None:
        _rc_path(arguments, outside)
    said = said.over(saved.profile)
    if arguments.ask_key:
        said = replace(said, key=None, key_file=None, gpg_password=None)
        saved = replace(saved, asked=saved.asked | {ENCRYPTION, PASSPHRASE})
    if arguments.ask_hmac_key:
        said = replace(said, hmac_key=None, hmac_key_file=None, use_hmac=True)
        saved = replace(saved, asked=saved.asked | {HMAC})
    return said, saved


def _order(arguments: argparse.Namespace, profile: Profile) -> Run:
    only_six = socket.AF_INET6 if arguments.ipv6_only else socket.AF_UNSPEC
    return Run(
        family=socket.AF_INET if profile.ipv4_only else only_six,
        test=bool(arguments.test),
        packet_file=arguments.save_packet,
        append=bool(arguments.save_packet_append),
    )


def _asker(arguments: argparse.Namespace, outside: Outside) -> Callable[[str], str]:
    """Return what gets a secret: a person at the terminal, or the next line of a descriptor."""
    descriptor = 0 if arguments.stdin else arguments.fd
    if descriptor is None:
        return outside.ask
    return lambda prompt: _line(descriptor, prompt)


def _line(descriptor: int, prompt: str) -> str:
    """Return the next line of a descriptor, read byte by byte: the lines behind it are the next secret's."""
    line = bytearray()
    try:
        while len(line) <= _LINE_MAX and (byte := os.read(descriptor, 1)) not in {b"", b"\n"}:
            line += byte
    except OSError as error:
        msg = f"descriptor {descriptor} cannot be read: {error.strerror}"
        raise ClientError(msg) from error
    text = line.decode("utf-8", "replace").removesuffix("\r")
    if not text or "\ufffd" in text or not text.isprintable():
        what = prompt.removeprefix("Enter ").rstrip(": ")
        msg = f"descriptor {descriptor} has no line of text for the {what}: keys are a line each, the HMAC key behind"
        raise ClientError(msg)
    return text


def _generate(said: list[Word], arguments: argparse.Namespace, outside: Outside) -> int:
    """Make keys: printed, into a file, or into the stanza. Nothing is sent: the host does not have them yet."""
    text = keys.new(outside.random_bytes, arguments.key_len, arguments.hmac_key_len, arguments.hmac_digest)
    if arguments.key_gen_file is not None:
        instead = f"`doorward keys generate --force --output {shlex.quote(str(arguments.key_gen_file))}` replaces it"
        keys.write(text, arguments.key_gen_file, instead=instead)
        outside.say(f"[+] Wrote Rijndael and HMAC keys to: {arguments.key_gen_file}")
    if arguments.save_rc_stanza:
        lines = dict(stanza_file.settings(said))
        lines.update((name, value) for name, _, value in (line.partition(": ") for line in text.splitlines()))
        _save_stanza(sorted(lines.items()), arguments, outside)
        if arguments.key_gen_file is None:
            outside.say(f"[+] Wrote Rijndael and HMAC keys to rc file: {_rc_path(arguments, outside)}")
    elif arguments.key_gen_file is None:
        outside.out.write(text)
    return DONE
