"""Runs tutorial.sh on a client beside a host with doorwardd, both made for it: `make tutorial` shows what it prints."""

from __future__ import annotations

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
for source in ("daemon", "tests"):
    if str(REPOSITORY / source) not in sys.path:
        sys.path.insert(0, str(REPOSITORY / source))

from gnupg_keys import ULTIMATE  # noqa: E402  after the path is set
from system import netns  # noqa: E402
from system.doorwardd import HMAC_KEY, KEY, PACKAGE, doorwardd, write  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

OTHER: Final = "10.77.0.22"
SERVICES: Final = {22: "SSH-2.0-OpenSSH", 110: "+OK mail", 6543: "ghost"}
SECONDS: Final = 300  # a knock's window


def main() -> int:
    """Print what the tutorial prints, and return its exit code."""
    with scene() as (host, client, folder, _):
        return subprocess.run(
            client.command(str(REPOSITORY / "tests/tutorial/tutorial.sh")),
            env=environment(host, client, folder),
            check=False,
        ).returncode


@contextlib.contextmanager
def scene() -> Iterator[tuple[Namespace, Namespace, Path, Running]]:
    """Yield the host, the client, the client's home and the daemon."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw", dir="/tmp")))
        host, client, web = stack.enter_context(netns.network("host", "client", "web"))
        client.run("ip", "addr", "add", f"{OTHER}/24", "dev", "eth0")
        for port, name in SERVICES.items():
            stack.enter_context(netcat(host, port, name))
        stack.enter_context(resolver(web, folder))
        home = folder / "home"
        home.mkdir()
        keyrings(folder)
        write(home / ".fwknoprc", client_file(web))
        write_command(folder)
        running = stack.enter_context(doorwardd(host, folder, access_file(folder), settings()))
        yield host, client, folder, running


def environment(host: Namespace, client: Namespace, folder: Path) -> dict[str, str]:
    """Return what the script finds."""
    return {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "SSL_CERT_FILE": str(folder / "web.pem"),
        "HOST": host.ipv4,
        "IP": client.ipv4,
        "OTHER": OTHER,
        "CLOSE": " ".join(host.command(f"{folder}/bin/doorward", "close")),
        "RECIPIENT": key_id(folder / "host", "host@example.org"),
        "SIGNER": key_id(folder / "home/.gnupg", "client@example.org"),
    }


def access_file(folder: Path) -> str:
    """Return the host's stanzas.

    What OPEN_PORTS names is closed to everybody else; the mail service is not, so its number stands in none.
    """
    lines = f"{KEY}\n{HMAC_KEY}\nFW_ACCESS_TIMEOUT {SECONDS}\n"
    own, signer = key_id(folder / "host", "host@example.org"), key_id(folder / "home/.gnupg", "client@example.org")
    gpg = f"GPG_HOME_DIR {folder}/host\nGPG_DECRYPT_ID {own}\nGPG_ALLOW_NO_PW Y\nGPG_FINGERPRINT_ID {signer}\n"
    return (
        f"SOURCE ANY\n{lines}OPEN_PORTS tcp/22, tcp/6543\n"
        f"SOURCE ANY\n{lines}RESTRICT_PORTS tcp/22\n"
        f"SOURCE ANY\n{gpg}{HMAC_KEY}\nFW_ACCESS_TIMEOUT {SECONDS}\nOPEN_PORTS tcp/22\n"
    )


def settings() -> str:
    """Return the daemon's settings."""
    return "ENABLE_IPT_LOCAL_NAT Y;\n"


def client_file(web: Namespace) -> str:
    """Return the client's ~/.fwknoprc."""
    keys = f"{KEY}\n{HMAC_KEY}\n".replace(":", "")
    return f"[default]\n{keys}RESOLVE_URL https://{web.ipv4}/ip\nGPG_NO_SIGNING_PW Y\nNO_SAVE_ARGS Y\n"


def write_command(folder: Path) -> None:
    """Put `doorward`, as this checkout has it, where the script finds it."""
    (folder / "bin").mkdir()
    script = f'#!/bin/sh\nexec env PYTHONPATH={PACKAGE} {sys.executable} -m doorward "$@"\n'
    write(folder / "bin/doorward", script, 0o755)


@contextlib.contextmanager
def netcat(host: Namespace, port: int, name: str) -> Iterator[None]:
    """Answer at a port with a line; netcat answers one connection, so it is started again."""
    script = f"while :; do echo '{name}' | nc -l -N {port} >/dev/null; done"
    with host.process("sh", "-c", script, start_new_session=True) as shell:
        try:
            yield
        finally:
            os.killpg(shell.pid, 15)


@contextlib.contextmanager
def resolver(web: Namespace, folder: Path) -> Iterator[None]:
    """Answer HTTPS requests with the address that they come from, under a certificate of its own."""
    key, certificate = folder / "web.key", folder / "web.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=web", "-addext", f"subjectAltName=IP:{web.ipv4}"]
    subprocess.run([*request, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with web.inside():
        server = http.server.ThreadingHTTPServer((web.ipv4, 443), _Address)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Address(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with the client's address."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.client_address[0]}\n".encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def keyrings(folder: Path) -> None:
    """Make the host's and the client's key, without a passphrase, and have each trusted by the other."""
    homes = {"host@example.org": folder / "host", "client@example.org": folder / "home/.gnupg"}
    for name, home in homes.items():
        home.mkdir(mode=0o700)
        gpg(
            home,
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-generate-key",
            name,
            "rsa2048",
            "default",
            "never",
        )
        gpg(
            home,
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-add-key",
            key_id(home, name),
            "rsa2048",
            "encr",
            "never",
        )
    for name, home in homes.items():
        for other in homes.values():
            if other != home:
                gpg(other, "--import", content=gpg(home, "--export", name))
                gpg(other, "--import-ownertrust", content=f"{key_id(home, name)}:{ULTIMATE}:\n".encode())


def key_id(home: Path, name: str) -> str:
    """Return a key's fingerprint."""
    listed = gpg(home, "--with-colons", "--list-keys", name).decode()
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))


def gpg(home: Path, *words: str, content: bytes = b"") -> bytes:
    """Run GnuPG and return what it prints."""
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *words]
    return subprocess.run(command, input=content, check=True, capture_output=True, timeout=120).stdout


if __name__ == "__main__":
    sys.exit(main())
