"""What a host does with one packet, seen from wherever this file runs as a script. Standard library only.

    python3 -c "$(cat probe.py)" '[["tcp", "192.0.2.7", 22], ["udp", "192.0.2.7", 62201]]'

prints a list of pairs: the place, and what it does. Python 3.6 can read it: annotations of now are texts.
"""

import errno
import json
import socket
import sys

SECONDS = 1.5  # in which an open port would have answered; a lost SYN is repeated after one
OPEN = "accepts connections"
ANSWERS = "answers"
REFUSES = "refuses"
SILENT = "is silent"
UNKNOWN = "cannot be asked"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def answers(places: "list[tuple[str, str, int]]") -> "list[tuple[str, str]]":
    """Ask every address of each place (tcp or udp, name or address, port) once; return pairs of it and its answer."""
    found = []  # type: list[tuple[str, str]]
    for kind, host, port in places:
        name = f"{kind}/{port} of {host}"
        try:
            shown = socket.getaddrinfo(host, port, type=_KINDS[kind])
        except (OSError, UnicodeError) as error:
            found.append((name, f"{UNKNOWN}: {error}"))
            continue
        for family, address in dict.fromkeys((one[0], one[4]) for one in shown):
            found.append((f"{name} ({address[0]})", _answer(kind, family, address)))
    return found


def _answer(kind: str, family: int, address: "tuple[object, ...]") -> str:
    with socket.socket(family, _KINDS[kind]) as asking:
        asking.settimeout(SECONDS)
        try:
            asking.connect(address)
            if kind == "tcp":
                return OPEN
            asking.send(b"?")  # noise, of which a daemon that waits for knocks makes nothing
            asking.recv(1)
        except OSError as error:
            return _judged(error)
    return ANSWERS


def _judged(error: OSError) -> str:
    """Tell silence from a refusal, and from a failure on the way that hides both."""
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:
        return SILENT
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return REFUSES
    return f"{UNKNOWN}: {error.strerror or error}"


if __name__ == "__main__":
    json.dump(answers(json.loads(sys.argv[1])), sys.stdout)
