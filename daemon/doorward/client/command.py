"""The command `doorward knock`, which is fwknop's client: from its words to the packet."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final

from doorward import __version__
from doorward.client import getopt, keys, last_command, section_file
from doorward.client.knock import knock
from doorward.client.known_hosts import with_pinned_key
from doorward.client.profile import Profile
from doorward.client.request import ENCRYPTION, HMAC, PASSPHRASE, Saved, client_file, saved_profile
from doorward.crypto.keys import weakness as weakness_of
from doorward.errors import ClientError
from doorward.wire.fwknop import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import SimpleNamespace

    from doorward.client.fwknoprc import ClientFile
    from doorward.client.getopt import Said
    from doorward.client.options import Command
    from doorward.client.section_file import Change
    from doorward.client.surroundings import Outside

_LINE_MAX: Final = 1024


def run(words: Sequence[str], outside: Outside, called: Command) -> None:
    """Run one command line; `called` has the name that the program was called by.

    Raises:
        UsageError: the words do not fit.
    """
    said = getopt.read(words)
    arguments = getopt.values(called, said)
    if arguments.help:
        from doorward.client import usage  # noqa: PLC0415  only for help

        outside.out.write(usage.page(called))
        return
    if arguments.version:
        protocol = f", FKO protocol version {VERSION}" if called.name == "fwknop" else ""  # scripts look for it
        outside.say(f"doorward {__version__}{protocol}")
        return
    if arguments.show_last or arguments.last_cmd:
        said = last_command.load(_args_path(arguments, outside))
        if arguments.show_last:
            outside.say(f"Last fwknop client command line: fwknop {last_command.text(said)}")
            return
        if arguments.verbose:
            outside.say(f"Executing: fwknop {last_command.text(said)}")
        arguments = getopt.values(called, said)
    _carry_out(said, arguments, outside)


def _carry_out(said: list[Said], arguments: SimpleNamespace, outside: Outside) -> None:
    if arguments.stanza_list:
        outside.out.writelines(f"{section}\n" for section in client_file(outside, _rc_path(arguments, outside)).names)
        return
    if arguments.key_gen or arguments.key_gen_file:
        _generate(said, arguments, outside)
        return
    change = _change(section_file.settings(said), arguments, outside) if arguments.save_rc_stanza else None
    profile, saved = _profile(arguments, outside, None if change is None else change.file)

    def keep() -> None:
        """Write the files; a command that says too little for a knock changes none."""
        if change is not None:
            change.write()
        if not profile.no_save_args and not arguments.last_cmd:
            _keep_command(said, arguments, outside)

    asking = outside._replace(ask=_asker(arguments, outside))
    if arguments.no_home_dir:
        asking = asking._replace(environ={**outside.environ, "XDG_STATE_HOME": os.devnull})
    knock(profile, asking, arguments, saved, keep)


def _args_path(arguments: SimpleNamespace, outside: Outside) -> Path:
    path: Path | None = arguments.save_args_file
    if path is None and arguments.no_home_dir:
        msg = "without a home directory name the file of the last command line: -E FILE"
        raise ClientError(msg)
    return path or outside.home / last_command.NAME


def _keep_command(said: list[Said], arguments: SimpleNamespace, outside: Outside) -> None:
    """Keep the command line for -l; failing to keep it is not fatal."""
    if arguments.no_home_dir and arguments.save_args_file is None:
        return
    try:
        last_command.save(said, _args_path(arguments, outside))
    except OSError as error:
        if arguments.save_args_file is not None or arguments.verbose:
            outside.warn(f"the command line could not be kept: {error}")


def _section(arguments: SimpleNamespace) -> str:
    """The name of the section to save."""
    section: str | None = arguments.section or arguments.server
    if section is None:
        msg = "name the section: -n NAME, or -D HOST for a section of that name"
        raise ClientError(msg)
    return section


def _change(lines: list[tuple[str, str]], arguments: SimpleNamespace, outside: Outside) -> Change:
    path, force = _rc_path(arguments, outside), bool(arguments.force_stanza)
    return section_file.change(path, _section(arguments), lines, force=force, agree=outside.agree)


def _rc_path(arguments: SimpleNamespace, outside: Outside) -> Path:
    """The file of sections, for commands that need it."""
    if not _reads_file(arguments):
        without = "--no-rc-file" if arguments.no_rc_file else "--no-home-dir without --rc-file FILE"
        msg = f"-n, --save-rc-stanza and --stanza-list need a file of sections, and {without} leaves it out"
        raise ClientError(msg)
    path: Path = arguments.rc_file or outside.home / ".fwknoprc"
    return path


def _reads_file(arguments: SimpleNamespace) -> bool:
    """Whether a file of sections is read."""
    return not arguments.no_rc_file and not (arguments.no_home_dir and arguments.rc_file is None)


def _profile(arguments: SimpleNamespace, outside: Outside, file: ClientFile | None = None) -> tuple[Profile, Saved]:
    """The profile of command line and file together, and the file's part of it; `file` is the one to be written."""
    said = Profile.of(arguments)
    if said.key or said.hmac_key:
        outside.warn("warning: a key on the command line is visible to every user of this machine")
    saved = Saved()
    if _reads_file(arguments):
        section = arguments.section or (arguments.server if arguments.save_rc_stanza else None)
        saved = saved_profile(outside, file or arguments.rc_file, section, arguments.server)
    elif arguments.section is not None:
        _rc_path(arguments, outside)
    said = said.over(saved.profile)
    if _reads_file(arguments) and not arguments.ask_key:
        said = with_pinned_key(said, None, outside.environ)
    if arguments.ask_key:
        said = said._replace(key=None, key_file=None, key_command=None, gpg_password=None)
        saved = saved._replace(asked=saved.asked | {ENCRYPTION, PASSPHRASE})
    if arguments.ask_hmac_key:
        said = said._replace(hmac_key=None, hmac_key_file=None, hmac_key_command=None, use_hmac=True)
        saved = saved._replace(asked=saved.asked | {HMAC})
    return said, saved


def _asker(arguments: SimpleNamespace, outside: Outside) -> Callable[[str], str]:
    """The call that gets a secret: from the terminal, or the next line of a descriptor."""
    descriptor = 0 if arguments.stdin else arguments.fd
    if descriptor is None:
        return outside.ask
    return lambda prompt: _line(descriptor, prompt)


def _line(descriptor: int, prompt: str) -> str:
    """The next line of a descriptor, read byte by byte: the following lines are other secrets."""
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
        msg = f"descriptor {descriptor} has no line of text for the {what}: a key a line, the HMAC key second"
        raise ClientError(msg)
    return text


def _generate(said: list[Said], arguments: SimpleNamespace, outside: Outside) -> None:
    """Make keys: printed, into a file, or into the section. Nothing is sent: the host does not have them yet."""
    weakness = weakness_of(arguments.key_len, arguments.hmac_key_len)
    if weakness:
        outside.warn(f"warning: {weakness}")
    text = keys.new(outside.random_bytes, arguments.key_len, arguments.hmac_key_len, arguments.hmac_digest)
    if arguments.key_gen_file is not None:
        instead = f"`doorward keys generate --force --output {shlex.quote(str(arguments.key_gen_file))}` replaces it"
        keys.write(text, arguments.key_gen_file, instead=instead)
        outside.say(f"[+] Wrote Rijndael and HMAC keys to: {arguments.key_gen_file}")
    if arguments.save_rc_stanza:
        lines = dict(section_file.settings(said))
        lines.update((name, value) for name, _, value in (line.partition(": ") for line in text.splitlines()))
        _change(sorted(lines.items()), arguments, outside).write()
        if arguments.key_gen_file is None:
            outside.say(f"[+] Wrote Rijndael and HMAC keys to rc file: {_rc_path(arguments, outside)}")
    elif arguments.key_gen_file is None:
        outside.out.write(text)
