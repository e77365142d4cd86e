"""The client's GnuPG options with real keyrings, beside Debian's fwknop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from doorward.client import cli
from doorward.crypto import openpgp
from doorward.values import Secret, SymmetricKeys
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE = "correct horse"  # noqa: S105  of a key that lives for this test
LINE = ["-T", "-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "--no-save-args"]
HMAC = SymmetricKeys(Secret(b"unused"), Secret(b"two"))


class Rings(NamedTuple):
    """The client's keyring, whose key `locked` has a passphrase and `open` none, and the host's."""

    client: Path
    host: Path


def gpg(home: Path, *words: str, content: bytes = b"") -> bytes:
    return subprocess.run(
        ["gpg", "--homedir", str(home), "--batch", "--quiet", *words],
        input=content,
        check=True,
        capture_output=True,
        timeout=120,
    ).stdout


def generate(home: Path, name: str, passphrase: str) -> None:
    words = ("--pinentry-mode", "loopback", "--passphrase", passphrase)
    gpg(home, *words, "--quick-generate-key", name, "rsa2048", "default", "never")
    listed = gpg(home, "--with-colons", "--list-keys", name).decode()
    fingerprint = re.findall(r"^fpr:+([0-9A-F]+):", listed, re.MULTILINE)[0]
    gpg(home, *words, "--quick-add-key", fingerprint, "rsa2048", "encr", "never")


@pytest.fixture(scope="module")
def rings() -> Iterator[Rings]:
    folder = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
    made = Rings(folder / "client", folder / "host")
    for home in made:
        home.mkdir(0o700)
    generate(made.client, "locked@example.org", PASSPHRASE)
    generate(made.client, "open@example.org", "")
    generate(made.host, "host@example.org", "")
    gpg(made.client, "--import", content=gpg(made.host, "--export", "host@example.org"))
    gpg(made.host, "--import", content=gpg(made.client, "--export"))
    yield made
    for home in made:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def flawed(rings: Rings) -> Rings:
    """The client's keyring with keys in it that are of no use."""
    plain = ("--pinentry-mode", "loopback", "--passphrase", "")
    long_ago = ("--faked-system-time", "20200101T000000!")
    for name, when, ends, subkey_ends in (
        ("bare", (), "never", None),
        ("expired", long_ago, "20200301T000000", "20200301T000000"),
        ("stale", long_ago, "never", "20200301T000000"),
        ("revoked", (), "never", "never"),
    ):
        gpg(rings.client, *plain, *when, "--quick-generate-key", f"{name}@example.org", "ed25519", "default", ends)
        if subkey_ends is not None:
            gpg(
                rings.client, *plain, *when, "--quick-add-key", fingerprint(rings, name), "cv25519", "encr", subkey_ends
            )
    certificate = (rings.client / "openpgp-revocs.d" / f"{fingerprint(rings, 'revoked')}.rev").read_text()
    gpg(rings.client, "--import", content=certificate.replace(":-----BEGIN", "-----BEGIN").encode())
    return rings


def fingerprint(rings: Rings, name: str) -> str:
    listed = gpg(rings.client, "--with-colons", "--list-keys", f"={name}@example.org").decode()
    return str(re.findall(r"^fpr:+([0-9A-F]+):", listed, re.MULTILINE)[0])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "TERMINAL", "/missing")  # nobody is asked where a person runs the tests
    return tmp_path


def payload(capsys: pytest.CaptureFixture[str], *words: str) -> bytes:
    code = cli.main(list(words))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    match = re.search(r"Final SPA Data: (\S+)", shown.out)
    assert match
    return match[1].encode()


def opened(rings: Rings, sealed: bytes) -> tuple[fwknop.Message, openpgp.Signature | None]:
    unsealed = openpgp.Decryptor(rings.host).unseal(openpgp.decode(fwknop.GPG_PREFIX + sealed)[0])
    return fwknop.parse(unsealed.plaintext), unsealed.signature


def named(rings: Rings, signer: str) -> list[str]:
    recipient = ["--gpg-recipient-key", "host@example.org", "--gpg-home-dir", str(rings.client)]
    return [*LINE, *recipient, "--gpg-signer-key", signer]


def test_a_key_without_a_passphrase_signs_without_asking(rings: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    sealed = payload(capsys, *named(rings, "open@example.org"), "--gpg-no-signing-pw", "--no-rc-file")
    message, signature = opened(rings, sealed)
    assert message.text == "192.0.2.1,tcp/22"
    assert signature is not None


def test_the_passphrase_is_asked_for_and_read_from_a_descriptor(
    rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*named(rings, "locked@example.org"), "--no-rc-file"]
    assert cli.main(words) == 1
    assert "there is no terminal to ask at" in capsys.readouterr().err
    reading, writing = os.pipe()
    os.write(writing, f"{PASSPHRASE}\n".encode())
    os.close(writing)
    message, signature = opened(rings, payload(capsys, *words, "--fd", str(reading)))
    os.close(reading)
    assert message.text == "192.0.2.1,tcp/22"
    assert signature is not None


@pytest.mark.parametrize("line", [f"GPG_SIGNING_PW_BASE64 {'Y29ycmVjdCBob3JzZQ=='}", "KEY_BASE64 Y29ycmVjdCBob3JzZQ"])
def test_the_file_may_name_everything(rings: Rings, home: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    rc_file = home / ".fwknoprc"
    rc_file.write_text(
        f"[default]\nUSE_GPG Y\nGPG_RECIPIENT host@example.org\nGPG_SIGNER locked@example.org\n"
        f"GPG_HOMEDIR {rings.client}\n{line}\n"
    )
    rc_file.chmod(0o600)
    _, signature = opened(rings, payload(capsys, *LINE))
    assert signature is not None


def test_a_wrong_passphrase_is_an_error_and_not_repeated(rings: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["gpgconf", "--homedir", str(rings.client), "--kill", "gpg-agent"], check=True, timeout=30)
    assert cli.main([*named(rings, "locked@example.org"), "--no-rc-file", "--key-rijndael", "hunter2"]) == 1
    shown = capsys.readouterr().err
    assert "is the passphrase right?" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("recipient", "reason"),
    [
        ("bare", "it has no subkey for encryption (gpg --quick-add-key"),
        ("expired", "the key has expired"),
        ("stale", "its subkey for encryption has expired"),
        ("revoked", "the key is revoked"),
        ("unknown", "gpg has no public key '=unknown@example.org' in "),
    ],
)
def test_a_recipient_that_is_of_no_use_is_told_with_the_reason_and_not_with_the_passphrase(
    flawed: Rings, recipient: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--gpg-recipient-key", f"={recipient}@example.org", "--gpg-home-dir", str(flawed.client), "--no-rc-file"]
    signing = ["--gpg-signer-key", "locked@example.org", "--key-rijndael", "hunter2"]
    assert cli.main([*LINE, *words, *signing]) == 1
    shown = capsys.readouterr().err
    assert reason in shown
    assert "passphrase" not in shown


def test_a_signer_that_is_of_no_use_is_told_with_the_reason(flawed: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*named(flawed, "=expired@example.org"), "--no-rc-file"]
    assert cli.main([*words, "--gpg-no-signing-pw"]) == 1
    shown = capsys.readouterr().err
    assert f"'expired@example.org' ({fingerprint(flawed, 'expired')}) cannot sign: the key has expired" in shown
    assert "passphrase" not in shown


def test_a_passphrase_that_is_missing_is_told(rings: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["gpgconf", "--homedir", str(rings.client), "--kill", "gpg-agent"], check=True, timeout=30)
    assert cli.main([*named(rings, "locked@example.org"), "--no-rc-file", "--gpg-no-signing-pw"]) == 1
    assert "has the key a passphrase? None was given" in capsys.readouterr().err
    assert cli.main([*named(rings, "locked@example.org"), "--no-rc-file"]) == 1
    shown = capsys.readouterr().err
    assert "no passphrase for signing: no file was read, and there is no terminal to ask at" in shown
    assert "leave it to gpg-agent with --gpg-agent" in shown


def test_without_a_signer_nothing_is_signed(rings: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*LINE, "--gpg-recip", "host@example.org", "--gpg-home-dir", str(rings.client), "--no-rc-file"]
    assert opened(rings, payload(capsys, *words))[1] is None


def test_the_dump_is_fwknops_and_the_hmac_lies_over_all(rings: Rings, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*named(rings, "open@example.org"), "--gpg-no-signing-pw", "--no-rc-file", "--key-hmac", "two"]
    theirs = subprocess.run(
        ["fwknop", *words], check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    ).stdout
    assert cli.main(words) == 0
    ours = capsys.readouterr().out
    labels = re.compile(r"^ *([A-Za-z ]+): ", re.MULTILINE)
    assert labels.findall(ours.partition("\n\n")[0]) == labels.findall(theirs.partition("\n\n")[0])
    for label in ("HMAC Type", "Encryption Type", "Encryption Mode", "Message Type"):
        line = re.compile(rf"^ *{label}: (.*)$", re.MULTILINE)
        assert line.findall(ours)[:1] == line.findall(theirs)[:1] != []
    match = re.search(r"Final SPA Data: (\S+)", ours)
    assert match
    sealed = match[1].encode()
    message, signature = opened(rings, sealed[: -HMAC.tag_length])
    assert (message.text, signature is None) == ("192.0.2.1,tcp/22", False)


def test_a_stanza_keeps_the_names_of_the_keys(rings: Rings, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*named(rings, "open@example.org"), "--gpg-no-signing-pw", "--save-rc-stanza", "-n", "mine"]
    payload(capsys, *words)
    assert "GPG_SIGNER                  open@example.org\n" in (home / ".fwknoprc").read_text()
    assert opened(rings, payload(capsys, "-T", "-n", "mine", "--no-save-args"))[1] is not None
