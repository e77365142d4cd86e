"""What a host of the tests has in the place of systemd: one unit, doorwardd.service, and services that wait.

Run as `service_manager.py FOLDER COMMAND…`: COMMAND is the daemon, FOLDER gets the socket `manager`, on which
`systemctl` and `systemd-run` send their words as JSON, and get their exit code and what they print. The daemon is a
real one: it is started, ended, sent HUP, and its own status is what `systemctl show` prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

UNIT = "doorwardd.service"
CLIENT = """
import json, os, socket, sys
manager = socket.socket(socket.AF_UNIX)
manager.connect(sys.argv[1])
manager.sendall(json.dumps(sys.argv[2:]).encode() + b"\\n")
code, text = json.loads(manager.makefile().read())
print(text)
sys.exit(code)
"""
_SECONDS = 30
_SHOW = argparse.ArgumentParser("systemctl")
_SHOW.add_argument("verb")
_SHOW.add_argument("--property", required=True)
_SHOW.add_argument("units", nargs="+")
for _flag in ("--value", "--quiet"):
    _SHOW.add_argument(_flag, action="store_true")
Answer = tuple[int, str]


class Manager:
    """The one unit, what it said of itself, and the commands that wait."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._folder, self._command = folder, command
        self._enabled = True
        self._status = ""
        self._ready = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heard.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o666)  # the listener has no privileges
        threading.Thread(target=self._hear, daemon=True).start()

    def answer(self, words: list[str]) -> Answer:
        """Do what systemctl or systemd-run is asked for."""
        if words[0] == "systemd-run":
            return self._run(words)
        verb, *units = [word for word in words[1:] if not word.startswith("--") or word == "--now"]
        named = [unit for unit in units if unit != "--now"]
        with self._lock:
            if verb == "daemon-reload":
                return 0, ""
            if verb == "show":
                return 0, self._show(words)
            codes = [self._one(verb, unit) for unit in named]
        return max(codes), ""

    def _one(self, verb: str, unit: str) -> int:
        """The exit code of a verb for one unit; others than ours are not there."""
        if verb == "stop" and (waiting := self._waiting.pop(unit, None)):
            waiting.terminate()
            waiting.wait()
            return 0
        if unit != UNIT:
            return 5
        if verb in {"enable", "disable"}:
            self._enabled = verb == "enable"
        elif verb in {"stop", "restart"}:
            self.stop()
        if verb == "restart":
            return 0 if self.start() else 1
        if verb == "reload" and self._process:
            self._process.send_signal(signal.SIGHUP)
        known = {"is-active": self._process is not None and self._process.poll() is None, "is-enabled": self._enabled}
        return 0 if known.get(verb, True) else 3

    def _show(self, words: list[str]) -> str:
        """What `systemctl show` prints; of a unit that is not there what systemd says of it, an empty property each."""
        asked = _SHOW.parse_args(words[1:])
        runs = self._process is not None and self._process.poll() is None
        states = {"ActiveState": "active" if runs else "inactive", "StatusText": self._status}
        ours = {**states, "UnitFileState": "enabled" if self._enabled else "disabled"}
        blocks = []
        for unit in asked.units:
            known = {"ActiveState": "inactive", **(ours if unit == UNIT else {}), "Id": unit}
            told = [(name, known.get(name, "")) for name in asked.property.split(",")]
            blocks.append("\n".join(value if asked.value else f"{name}={value}" for name, value in told))
        return "\n\n".join(blocks)

    def start(self) -> bool:
        """Start the daemon, and say whether it got ready."""
        self._ready.clear()
        log = (self._folder / "daemon.log").open("ab")
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._folder / "notify")}
        self._process = subprocess.Popen(self._command, env=environment, stderr=log, stdout=log)
        return self._ready.wait(_SECONDS)

    def stop(self) -> None:
        """End the daemon."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _run(self, words: list[str]) -> Answer:
        """Start a service that runs its command again until it succeeds."""
        unit = next(word.partition("=")[2] for word in words if word.startswith("--unit="))
        command = words[words.index("--") + 1 :]
        again = ["/bin/sh", "-c", 'until "$@"; do sleep 1; done', "sh", *command]
        self._waiting[f"{unit}.service"] = subprocess.Popen(again, start_new_session=True)
        return 0, ""

    def _hear(self) -> None:
        """Keep the status that the daemon gives of itself."""
        while True:
            for line in self._heard.recv(65536).decode().splitlines():
                name, _, value = line.partition("=")
                if name == "STATUS":
                    self._status = value
                elif name == "READY":
                    self._ready.set()


def serve(folder: Path, command: list[str]) -> None:
    """Run the daemon, and answer until this process is ended."""
    manager = Manager(folder, command)
    if not manager.start():
        sys.exit("the daemon does not get ready")
    with socket.create_server(str(folder / "manager"), family=socket.AF_UNIX) as server:
        (folder / "serves").touch()
        threading.Thread(target=_answer, args=(server, manager), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    manager.stop()


def _answer(server: socket.socket, manager: Manager) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_answer_one, args=(connection, manager), daemon=True).start()


def _answer_one(connection: socket.socket, manager: Manager) -> None:
    with connection, connection.makefile("rw") as stream:
        stream.write(json.dumps(manager.answer(json.loads(stream.readline()))))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(Path(sys.argv[1]), sys.argv[2:])
