from __future__ import annotations

import io
import ipaddress
import itertools
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doorward.client import external_address
from doorward.client.address import Endpoint
from doorward.client.profile import Profile
from doorward.client.surroundings import Outside
from doorward.errors import ClientError
from unit.client.web import certificate, saying, site

if TYPE_CHECKING:
    import socket

PUBLIC = Endpoint(ipaddress.ip_address("9.9.9.9"), 62201)
PRIVATE = Endpoint(ipaddress.ip_address("10.0.0.1"), 62201)
PUBLIC6 = Endpoint(ipaddress.ip_address("2620:fe::fe"), 62201)
ME, ME6 = "8.8.4.4", "2001:4860:4860::8888"


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a certificate for the loopback that this machine believes."""
    path = certificate(tmp_path, "127.0.0.1", "::1")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def outside() -> Outside:
    return Outside(
        clock=time.time,
        monotonic=time.monotonic,
        random_bytes=secrets.token_bytes,
        environ={},
        home=Path("/"),
        ask=lambda _: "",
        agree=lambda _: False,
        out=io.StringIO(),
        err=io.StringIO(),
    )


def address(*urls: str, host: Endpoint | None = PUBLIC, **said: object) -> str:
    profile = Profile(resolve_urls=urls)._replace(**said)  # type: ignore[arg-type]  # by name
    return str(external_address.address(profile, host, outside()))


def complaint(*urls: str, host: Endpoint | None = PUBLIC, **said: object) -> str:
    with pytest.raises(ClientError, match="no site reports this machine") as caught:
        address(*urls, host=host, **said)
    return str(caught.value)


@pytest.mark.parametrize("body", [ME, f"{ME}\n", f"  {ME}\r\n"])
def test_a_site_is_asked_over_tls_and_believed(pem: Path, body: str) -> None:
    with site(saying(body), pem) as url:
        assert address(url) == ME


def test_a_chunked_answer_is_put_together(pem: Path) -> None:
    with site(saying(b"4\r\n8.8.\r\n3\r\n4.4\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked"), pem) as url:
        assert address(url) == ME


def test_for_a_host_of_ipv6_the_site_is_asked_over_ipv6(pem: Path) -> None:
    with site(saying(ME6), pem, "::1") as url:
        assert address(url, host=PUBLIC6) == ME6
    with site(saying(ME6), pem) as url:
        assert "127.0.0.1: " in complaint(url, host=PUBLIC6)  # it cannot be asked over IPv6


def test_the_request_names_the_program(pem: Path) -> None:
    heads: list[str] = []

    def answer(connection: socket.socket, head: str) -> None:
        heads.append(head)
        saying(ME)(connection, head)

    with site(answer, pem) as url:
        address(url)
        address(url, user_agent="me")
    assert [head.split("\r\n")[1] for head in heads] == ["User-Agent: Fwknop/2.6.11", "User-Agent: me"]
    assert heads[0].startswith("GET /ip HTTP/1.1\r\n")


def test_the_next_site_is_asked_where_one_fails(pem: Path) -> None:
    with site(saying("down", "503 Sorry"), pem) as first, site(saying(ME), pem) as second:
        assert address("https://127.0.0.1:1/", first, second) == ME
        text = complaint("https://127.0.0.1:1/", first)
    assert "https://127.0.0.1:1/: Connection refused; " in text
    assert f"{first}: answers with status 503" in text


def test_a_certificate_that_nobody_vouches_for_is_refused(pem: Path, tmp_path: Path) -> None:
    other = certificate(tmp_path, "127.0.0.1", name="other")
    with site(saying(ME), other) as url:
        assert "certificate verify failed" in complaint(url)
    assert pem.exists()


def test_a_certificate_for_another_name_is_refused(pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = certificate(tmp_path, "192.0.2.1", name="other")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with site(saying(ME), other) as url:
        assert "not valid for" in complaint(url)
    assert pem.exists()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "answers '', not one plain address"),
        ("<html>8.8.4.4</html>", "not one plain address"),
        (f"{ME} {ME}", "not one plain address"),
        (f"{ME}\n1.1.1.1\n", "not one plain address"),
        (f"{ME},tcp/22", "not one plain address"),
        ("08.8.4.4", "not one plain address"),
        ("\x1b[2J8.8.4.4", "answers '?[2J8.8.4.4', not one"),
        ("127.0.0.1", "answers 127.0.0.1, which is no source of packets"),
        ("0.0.0.0", "which is no source of packets"),  # noqa: S104  an answer
        ("224.0.0.1", "which is no source of packets"),
        ("169.254.1.1", "which is no source of packets"),
        ("10.0.0.9", "answers 10.0.0.9, a private address, but 9.9.9.9 is public"),
        (ME6, f"answers {ME6}, but the host to knock at is 9.9.9.9"),
        ("x" * 17_000, "answers with more than 16384 bytes"),
    ],
)
def test_what_is_no_usable_address_is_refused(pem: Path, body: str, reason: str) -> None:
    with site(saying(body), pem) as url:
        assert reason in complaint(url)


def test_a_private_address_is_right_within_a_private_network(pem: Path) -> None:
    with site(saying("10.0.0.9"), pem) as url:
        assert address(url, host=PRIVATE) == "10.0.0.9"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("file:///etc/passwd", "redirects to a text that is no web address"),
        ("ftp://127.0.0.1/", "redirects to a text that is no web address"),
        ("https://u:p@127.0.0.1/", "redirects to a text that is no web address"),
        ("http://127.0.0.1/", "redirects to an address without TLS"),
        ("/again", "redirects more than 3 times"),
    ],
)
def test_a_redirection_leads_nowhere_but_to_the_web(pem: Path, target: str, reason: str) -> None:
    with site(saying("", "302 Found", f"Location: {target}"), pem) as url:
        assert reason in complaint(url)


def test_a_redirection_over_tls_is_followed(pem: Path) -> None:
    with site(saying(ME), pem) as there, site(saying("", "301 Moved", f"Location: {there}"), pem) as url:
        assert address(url) == ME


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\n", b"HTTP/9 x\r\n\r\n", b"SSH\x1b[2J\r\n"])
def test_another_protocol_than_http_is_refused_in_printable_text(pem: Path, content: bytes) -> None:
    with site(lambda connection, _: connection.sendall(content), pem) as url:
        assert complaint(url).isprintable()


@pytest.mark.parametrize("secure", [True, False])
def test_a_site_that_drips_is_given_up(pem: Path, monkeypatch: pytest.MonkeyPatch, *, secure: bool) -> None:
    monkeypatch.setattr(external_address, "SECONDS", 0.4)

    def drip(connection: socket.socket, _: str) -> None:
        for _turn in itertools.count():
            connection.sendall(b"a")
            time.sleep(0.05)

    with site(drip, pem if secure else None) as url:
        assert "slow" in (text := complaint(url)) or "timed out" in text


def test_a_site_that_says_nothing_is_given_up(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_address, "SECONDS", 0.3)

    def listen(connection: socket.socket, _: str) -> None:
        connection.recv(1)

    with site(listen, pem) as url:
        assert "timed out" in complaint(url)


def test_without_tls_only_the_person_who_asked_for_it_is_served() -> None:
    with site(saying(ME)) as url:
        assert address(url, resolve_http_only=True) == ME
        warned = outside()
        external_address.address(Profile(resolve_urls=(url,)), PUBLIC, warned)
    assert isinstance(warned.err, io.StringIO)
    assert "without TLS an attacker on the path can answer" in warned.err.getvalue()


def test_there_are_several_sites_to_ask_without_being_told() -> None:
    assert len(external_address.SITES) >= 2
    assert all(url.startswith("https://") for url in external_address.SITES)


@pytest.mark.parametrize("wget", ["/usr/bin/wget", "wget --tries=1"])
def test_the_users_own_wget_is_run(wget: str) -> None:
    heads: list[str] = []

    def answer(connection: socket.socket, head: str) -> None:
        heads.append(head)
        saying(ME)(connection, head)

    with site(answer) as url:
        assert address(url, wget=wget) == ME
        assert address(url, wget=wget, wget_user_agent=True) == ME
    assert "User-Agent: Fwknop/2.6.11" in heads[0]
    assert "User-Agent: Wget/" in heads[1]


def program(code: str) -> str:
    return f"{sys.executable} -c '{code}'"


@pytest.mark.parametrize(
    ("wget", "reason"),
    [
        ("/missing/wget", "No such file"),
        (program("print(1)"), "answers '1', not one plain address"),
        (program("print(9 * 20000)"), "not one plain address"),
        (program('import sys; sys.stdout.write("9" * 99999)'), "answers with more than 16384 bytes"),
        (program('import os; os.write(1, b"8.8.4.4 "); os.kill(os.getpid(), 9)'), None),
    ],
)
def test_a_wget_that_misbehaves_is_an_error(wget: str, reason: str | None) -> None:
    if reason is None:
        assert address("https://x/", wget=wget) == ME
    else:
        assert reason in complaint("https://x/", wget=wget)


def test_a_wget_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_address, "SECONDS", 0.3)
    assert "prints nothing within 0.3 s" in complaint("https://x/", wget=program("import time; time.sleep(60)"))


def test_what_wget_would_take_for_a_shells_word_stays_a_word(tmp_path: Path) -> None:
    assert complaint(f"https://x/$(touch {tmp_path}/y);touch%20{tmp_path}/y", wget=program("print(2)"))
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=300))
@example(b"Transfer-Encoding: chunked\r\n\r\n-5\r\n")
@example(b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n")
@example(b"Content-Length: -1\r\n\r\n")
@example(b"Content-Length: 99999999999999999999\r\n\r\nx")
@example(b"\xff: \xff\r\n" * 150)
def test_whatever_a_site_sends_nothing_but_an_error_comes_of_it(rest: bytes) -> None:
    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest)

    with site(answer) as url:
        assert complaint(url, resolve_http_only=True)
