"""`doorward keys pin`: fetch a host's public key over ssh and keep it. It is as good as ssh's own check of the host."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from doorward.client import known_hosts, ssh_settings
from doorward.client.keys import key_file
from doorward.client.request import saved_profile
from doorward.config import convert
from doorward.crypto import fingerprint
from doorward.errors import ClientError, WireError
from doorward.values import PUBLIC_KEY_WORD, Protocol, Service

if TYPE_CHECKING:
    from types import SimpleNamespace

    from doorward.client.surroundings import Outside

_ANSWER_MAX: Final = 16_384  # bytes that the host's login may print around the key
# A connection of its own to a host that ssh knows, and nothing but the command.
_SETTINGS: Final = (
    "StrictHostKeyChecking=yes",
    *("ControlPath=none", "ClearAllForwardings=yes", "PermitLocalCommand=no"),
    *("RemoteCommand=none", "RequestTTY=no", "ForwardAgent=no", "ForwardX11=no"),
)
_SHOW: Final = "sh -c 'PATH=$PATH:/usr/sbin:/usr/local/sbin exec doorwardd keys show'"


def run(said: SimpleNamespace, outside: Outside) -> None:
    """Fetch the key and write it into the file of known hosts, under the host's name and the one that ssh dials.

    Raises:
        ClientError: the host shows no key or another one than before, or this machine has no pair to knock with.
        ConfigError: a file of this user has mistakes.
    """
    host = said.destination.removeprefix("ssh://").rstrip("/").rpartition("@")[2].strip("[]")
    dialled = ssh_settings.ask(said.destination, said.ssh_config)
    names = list(dict.fromkeys((host, dialled.host or host)))
    saved = saved_profile(outside, None, None, names[-1], Service(Protocol.TCP, dialled.port))
    own = saved.profile.client_key_file or key_file(outside.environ)
    if not own.exists():
        msg = (
            f"there is no {own} to knock with: `doorward keys generate --public` makes it, and the host needs its line"
        )
        raise ClientError(msg)
    line = _line(_answer(said), said.destination)
    file = known_hosts.path(outside.environ)
    place = known_hosts.pin(file, names, line, force=bool(said.force))
    outside.say(f"{host}: {fingerprint.of_line(*convert.public_line(line))}")
    outside.say(f"{file}:{place}: knocks at {' and '.join(names)} use this key")
    if saved.profile.can_seal or saved.profile.use_gpg:
        outside.warn(f"{saved.path} names another key for {names[-1]}, which is used instead")
    elif saved.profile.server not in {None, *names}:
        outside.warn(f"{saved.path} has knocks for {names[-1]} go to {saved.profile.server}: pin that host's key too")


def _answer(said: SimpleNamespace) -> bytes:
    """What the host prints; ssh's own words, and questions, are at the terminal."""
    config = ["-F", str(said.ssh_config)] if said.ssh_config is not None else []
    options = [word for each in _SETTINGS for word in ("-o", each)]
    command = ["ssh", *config, *options, "--", said.destination, _SHOW]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:  # noqa: S603  no shell; a checked word
        assert running.stdout is not None  # noqa: S101  it was asked for
        answer = running.stdout.read(_ANSWER_MAX + 1)
        if len(answer) > _ANSWER_MAX:
            running.kill()
    if running.returncode:
        msg = (
            f"ssh {said.destination} ended with {running.returncode}: it has to know the host already (ssh's "
            "known_hosts), and the host needs a key pair (`doorwardd keys generate`)"
        )
        raise ClientError(msg)
    return answer


def _line(answer: bytes, destination: str) -> str:
    """The public line in what a host printed.

    Raises:
        ClientError: there is not just one.
    """
    rows = [row.strip() for row in answer.decode("utf-8", "replace").splitlines()]
    found = [row for row in rows if row.startswith(f"{PUBLIC_KEY_WORD} ")]
    if len(found) != 1:
        msg = f"{destination} shows {len(found)} public keys, where there must be one"
        raise ClientError(msg)
    try:
        key, comment = convert.public_line(found[0])
    except (ValueError, WireError) as error:
        msg = f"{destination} shows no good public key: {error}"
        raise ClientError(msg) from None
    return f"{key} {comment or ''}".rstrip()
