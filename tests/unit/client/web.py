"""Web sites for tests: a real server on the loopback, over TLS with a certificate of its own authority, or without."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = dt.datetime.now(dt.timezone.utc)


def certificate(folder: Path, *addresses: str, name: str = "test") -> Path:
    """Write a certificate that signs itself, for these addresses, with its key, into one file; return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(each)) for each in addresses])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@contextlib.contextmanager
def site(
    answer: Callable[[socket.socket, str], None], pem: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Serve on a free port until the block ends and yield the URL; `answer` gets each connection and its request."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    context = None
    if pem is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=_serve, args=(listener, context, answer))
        thread.start()
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"{'http' if pem is None else 'https'}://{shown}:{port}/ip"
        finally:
            with contextlib.suppress(OSError), socket.create_connection((host, port), 10) as ender:
                ender.sendall(b"END\r\n\r\n")
            thread.join()


def _serve(
    listener: socket.socket, context: ssl.SSLContext | None, answer: Callable[[socket.socket, str], None]
) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            if connection.recv(3, socket.MSG_PEEK) == b"END":
                return
            with contextlib.suppress(OSError):
                if context is None:
                    answer(connection, _head(connection))
                    continue
                with context.wrap_socket(connection, server_side=True) as sealed:
                    answer(sealed, _head(sealed))


def _head(connection: socket.socket) -> str:
    content = b""
    while b"\r\n\r\n" not in content and (chunk := connection.recv(4096)):
        content += chunk
    return content.decode()


def saying(body: str | bytes, status: str = "200 OK", *headers: str) -> Callable[[socket.socket, str], None]:
    """Return an answer of these words."""
    content = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""])
    return lambda connection, _: connection.sendall(head.encode() + content)
