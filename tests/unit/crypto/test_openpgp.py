"""The OpenPGP envelope with GnuPG itself; and with a stand-in for it that says what other versions of it say."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gnupg
import pytest

from doorward.crypto import openpgp
from doorward.crypto.openpgp import Signature, Status
from doorward.errors import AuthenticationError, OpenPgpError, WireError
from doorward.values import DigestType, Secret
from doorward.wire import fwknop
from gnupg_keys import PASSPHRASE, gpg, keyrings
from unit.making import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gnupg_keys import Keyrings

PLAINTEXT = fwknop.serialize(message())


@pytest.fixture(scope="module")
def rings() -> Iterator[Keyrings]:
    with keyrings() as made:
        yield made


def decoded(payload: bytes) -> bytes:
    return openpgp.decode(fwknop.GPG_PREFIX + payload)[0]


@pytest.mark.parametrize(
    ("signer", "status"),
    [
        ("alice", Status.GOOD),
        ("locked", Status.GOOD),
        ("ed25519", Status.GOOD),
        ("expired", Status.EXPIRED),
        ("revoked", Status.REVOKED),
        ("untrusted", Status.UNTRUSTED),
        ("stranger", Status.MISSING_KEY),
    ],
)
def test_what_our_client_seals_is_unsealed_with_what_gpg_thinks_of_its_signer(
    rings: Keyrings, signer: str, status: Status
) -> None:
    unsealed = openpgp.Decryptor(rings.host).unseal(decoded(rings.payload(message(), signer=signer)))
    name = rings.fingerprints[signer]
    assert unsealed == openpgp.Unsealed(PLAINTEXT, Signature(status, name, name))


def test_a_key_with_a_passphrase_decrypts_with_it_and_a_wrong_one_is_refused(rings: Keyrings) -> None:
    blob = decoded(rings.payload(message(), recipient="host-locked", signer=None))
    which = rings.fingerprints["host-locked"]
    right = openpgp.Decryptor(rings.host, None, Secret(PASSPHRASE.encode()), which)
    assert right.unseal(blob) == openpgp.Unsealed(PLAINTEXT, None)
    subprocess.run(["gpgconf", "--homedir", str(rings.host), "--kill", "gpg-agent"], check=True, timeout=30)
    with pytest.raises(AuthenticationError, match="decryption failed: "):
        openpgp.Decryptor(rings.host, None, Secret(b"wrong"), which).unseal(blob)
    for none in (b"", b"two\nlines"):
        with pytest.raises(OpenPgpError, match="a passphrase is one line"):
            openpgp.Decryptor(rings.host, None, Secret(none), which).unseal(blob)


def test_what_is_for_another_key_is_refused_before_gpg_is_asked(rings: Keyrings) -> None:
    blob = decoded(rings.payload(message(), recipient="bob"))
    with pytest.raises(AuthenticationError, match=r"encrypted to [0-9A-F]{16}"):
        openpgp.Decryptor(rings.host).unseal(blob)


def test_a_changed_message_is_refused_and_a_bomb_is_cut_off(rings: Keyrings) -> None:
    blob = bytearray(rings.message(PLAINTEXT))
    blob[-1] ^= 1
    with pytest.raises(AuthenticationError, match="decryption failed"):
        openpgp.Decryptor(rings.host).unseal(bytes(blob))
    bomb = openpgp.Decryptor(rings.host).unseal(rings.message(bytes(1_000_000)))
    assert len(bomb.plaintext) <= fwknop.PAYLOAD_MAX, "gpg stops there"


def test_an_hmac_lies_over_the_whole_text(rings: Keyrings) -> None:
    payload = openpgp.seal(
        PLAINTEXT,
        "=host@example.org",
        home=rings.client,
        hmac_key=Secret(b"key"),
        hmac_digest=DigestType.SHA512,
    )
    with pytest.raises(WireError):
        decoded(payload)
    sealed = payload[: -DigestType.SHA512.text_length]
    assert openpgp.Decryptor(rings.host).unseal(decoded(sealed)).plaintext == PLAINTEXT


def test_what_cannot_be_an_openpgp_packet_is_refused_without_gpg() -> None:
    with pytest.raises(WireError, match="too short"):
        openpgp.decode(b"hQ" + b"A" * 300)


def test_signers_whose_signatures_would_not_count_are_named_with_the_reason(rings: Keyrings) -> None:
    names = rings.fingerprints
    doubts = dict(openpgp.Decryptor(rings.host).doubts([*names.values(), "0" * 40]))
    assert doubts == {
        names["expired"]: "its key has expired",
        names["revoked"]: "its key is revoked",
        names["untrusted"]: "nobody says whose its key is (trust)",
        names["stranger"]: "its key is not in the keyring",
        "0" * 40: "its key is not in the keyring",
    }


def test_a_key_that_is_of_no_use_to_the_client_is_named_with_the_reason(rings: Keyrings) -> None:
    for recipient, words in (("alice", "it has no subkey for encryption"), ("revoked", "the key")):
        if recipient == "revoked":
            certificate = (rings.client / "openpgp-revocs.d" / f"{rings.fingerprints[recipient]}.rev").read_text()
            gpg(rings.client, "--import", content=certificate.replace(":-----BEGIN", "-----BEGIN").encode())
        with pytest.raises(OpenPgpError, match=f"nobody can encrypt to .*: {words}"):
            openpgp.seal(b"x", rings.fingerprints[recipient], home=rings.client)
    with pytest.raises(OpenPgpError, match="cannot sign: the key is revoked"):
        openpgp.seal(b"x", "=host@example.org", signer=rings.fingerprints["revoked"], home=rings.client)


def test_whom_a_message_names_does_not_say_which_key_may_open_it(rings: Keyrings) -> None:
    """Session keys are outside the signature: whoever sends a message can name anybody in one more of them."""
    blob = rings.message(fwknop.serialize(message()), "--local-user", rings.fingerprints["alice"], "--sign")
    locked = openpgp.Decryptor(rings.host, decrypt_id=rings.fingerprints["host-locked"])
    length = 3 + int.from_bytes(blob[1:3], "big")  # of the first packet, a session key in the old form
    for key_id in locked.key_ids:
        forged = blob[:4] + bytes.fromhex(key_id) + blob[12:length] + blob
        with pytest.raises(AuthenticationError, match="GPG_DECRYPT_ID does not name"):
            locked.unseal(forged)
        right = openpgp.Decryptor(rings.host, decrypt_id=rings.fingerprints["host"]).unseal(forged)
        assert right.signature is not None, "what is refused above is a good message"


def test_a_recipient_that_does_not_fit_the_format_is_named_with_the_reason(rings: Keyrings) -> None:
    with pytest.raises(OpenPgpError, match="begins with 'hF'") as caught:
        rings.payload(message(), recipient="ed25519")
    assert rings.fingerprints["ed25519"] in str(caught.value)


@pytest.mark.parametrize(
    ("recipient", "signer", "words"),
    [
        ("nobody", None, "gpg has no public key 'nobody'"),
        ("host", "nobody", "gpg has no secret key 'nobody'"),
        ("example.org", None, "fits 10 public keys; name one of"),
        ("host", "locked", "gpg does not make the knock.*has the key a passphrase"),
    ],
)
def test_a_key_that_cannot_be_used_is_an_error(rings: Keyrings, recipient: str, signer: str | None, words: str) -> None:
    subprocess.run(["gpgconf", "--homedir", str(rings.client), "--kill", "gpg-agent"], check=True, timeout=30)
    with pytest.raises(OpenPgpError, match=words):
        openpgp.seal(b"x", _mail(recipient), signer=signer and _mail(signer), home=rings.client)


def _mail(name: str) -> str:
    return f"={name}@example.org" if name in {"host", "locked"} else name


def test_a_knock_that_is_too_long_is_an_error(rings: Keyrings) -> None:
    with pytest.raises(OpenPgpError, match=r"characters of 1500: use smaller RSA keys"):
        openpgp.seal(random.Random(4).randbytes(1200), _mail("host"), home=rings.client)  # noqa: S311  bytes that do not compress


def test_what_is_missing_is_named(rings: Keyrings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OpenPgpError, match="/missing/gpg cannot be used"):
        openpgp.seal(b"x", "host", home=rings.client, exe=Path("/missing/gpg"))
    monkeypatch.setitem(sys.modules, "gnupg", None)
    with pytest.raises(OpenPgpError, match=r"need the Python package python-gnupg \(Debian: python3-gnupg\)"):
        openpgp.seal(b"x", "host", home=rings.client)


# ---- what other versions of gpg say ------------------------------------------------------------------------------

KEY, SIGNER, PRIMARY = "1" * 40, "A" * 40, "B" * 40
LISTED = f"sec:u:2048:1:{KEY[-16:]}:1:::u:::scESC:::+:::23::0:\nfpr:::::::::{KEY}:\nuid:u::::1::X::host::::::::::0:\n"
OPENED = f"DECRYPTION_KEY {KEY} {KEY} u\nPLAINTEXT 62 0 \nDECRYPTION_OKAY\n"
VALID = f"VALIDSIG {SIGNER} 2020-01-01 1 0 4 0 1 8 00 {PRIMARY}\nTRUST_FULLY 0 pgp\n"
BLOB = b"\x85\x01\x0c\x03" + bytes.fromhex(KEY[-16:]) + b"\x01" + bytes(258) + b"\xd2\x64" + bytes(100)


def speaking(folder: Path, said: str, code: int = 0, listed: str = LISTED, version: str = "2.2.40") -> Path:
    """Make a program that answers as gpg does: its keys, and `said` and the plaintext for any message."""
    (folder / "said").write_text("".join(f"[GNUPG:] {line}\n" for line in said.splitlines()))
    (folder / "listed").write_text(listed)
    (folder / "plaintext").write_bytes(PLAINTEXT)
    program = folder / "gpg"
    program.write_text(f"""#!/bin/sh
case "$*" in
*--version*) echo "gpg (GnuPG) {version}"; echo "cfg:version:{version}";;
*--list-config*) echo "cfg:version:{version}";;
*--list-*) cat {folder}/listed;;
*) cat >/dev/null; cat {folder}/said >&2; cat {folder}/plaintext; exit {code};;
esac
""")
    program.chmod(0o700)
    return program


def unsealed(folder: Path, said: str, code: int = 0, version: str = "2.2.40") -> openpgp.Unsealed:
    return openpgp.Decryptor(folder, speaking(folder, said, code, version=version)).unseal(BLOB)


@pytest.mark.parametrize(
    ("said", "signature"),
    [
        ("", None),
        (f"GOODSIG {SIGNER[-16:]} x\n{VALID}", Signature(Status.GOOD, SIGNER, PRIMARY)),
        (f"GOODSIG {SIGNER[-16:]} x\n", Signature(Status.UNTRUSTED, SIGNER[-16:], SIGNER[-16:])),
        (f"EXPSIG {SIGNER[-16:]} x\n{VALID}", Signature(Status.EXPIRED, SIGNER, PRIMARY)),
        (f"ERRSIG {SIGNER[-16:]} 1 8 00 1 9 {SIGNER}\n", Signature(Status.MISSING_KEY, SIGNER, SIGNER)),
        (f"ERRSIG {SIGNER[-16:]} 1 8 00 1 9 -\n", Signature(Status.MISSING_KEY, SIGNER[-16:], SIGNER[-16:])),
        (f"ERRSIG {SIGNER[-16:]} 1 8 00 1 4\n", Signature(Status.BAD, SIGNER[-16:], SIGNER[-16:])),
    ],
)
def test_a_signature_is_what_gpg_says_of_it(tmp_path: Path, said: str, signature: Signature | None) -> None:
    assert unsealed(tmp_path, OPENED + said, 2) == openpgp.Unsealed(PLAINTEXT, signature)


def test_at_a_bad_signature_gpg_stops_and_the_packet_has_one(tmp_path: Path) -> None:
    said = f"DECRYPTION_KEY {KEY} {KEY} u\nBADSIG {SIGNER[-16:]} x\n"
    assert unsealed(tmp_path, said, 1).signature == Signature(Status.BAD, SIGNER[-16:], SIGNER[-16:])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (OPENED + f"GOODSIG {SIGNER} x\nGOODSIG {SIGNER} x\n", "more than one signature"),
        (OPENED + "NODATA 3\n", "gpg refuses it: 3"),
        (OPENED + "PLAINTEXT 62 0 \n", "decryption failed: exit code 2"),
        ("DECRYPTION_FAILED\n" + OPENED, "decryption failed"),
        ("PLAINTEXT 62 0 \nDECRYPTION_OKAY\n", "does not say which key opened it"),
        (OPENED.replace(KEY, "2" * 40), "GPG_DECRYPT_ID does not name"),
    ],
)
def test_what_gpg_does_not_wholly_accept_is_refused(tmp_path: Path, said: str, words: str) -> None:
    with pytest.raises(AuthenticationError, match=words):
        unsealed(tmp_path, said, 2)


def test_a_plaintext_that_an_old_gpg_does_not_bound_is_refused(tmp_path: Path) -> None:
    program = speaking(tmp_path, OPENED, version="2.0.30")
    (tmp_path / "plaintext").write_bytes(b"x" * 1501)
    with pytest.raises(AuthenticationError, match="longer than any knock"):
        openpgp.Decryptor(tmp_path, program).unseal(BLOB)


def test_a_keyring_with_two_keys_of_a_name_is_an_error(tmp_path: Path) -> None:
    program = speaking(tmp_path, "", listed=LISTED + LISTED.replace("1111", "2222"))
    with pytest.raises(OpenPgpError, match="'x' fits 2 secret keys"):
        openpgp.Decryptor(tmp_path, program, decrypt_id="x")


PUBLIC = LISTED.replace("sec:", "pub:")
SUBKEY = "sub:{}:2048:1:AAAAAAAAAAAAAAAA:1::::::e::::::23:\nfpr:::::::::" + SIGNER + ":\n"

OTHER_SUBKEY = SUBKEY.format("r").replace("A", "B")


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (PUBLIC.replace(":u:", ":e:", 1), "the key has expired"),
        (PUBLIC.replace(":u:", ":d:", 1), "the key is disabled in this keyring"),
        (PUBLIC.replace("scESC", "scESCD"), "the key is disabled in this keyring"),
        (PUBLIC, "it has no subkey for encryption"),
        (PUBLIC + SUBKEY.format("e"), "its subkey for encryption has expired"),
        (
            PUBLIC + SUBKEY.format("e") + OTHER_SUBKEY,
            "its subkey for encryption has expired or is revoked",
        ),
        (PUBLIC + SUBKEY.format("q"), "its subkey for encryption cannot be used"),
    ],
)
def test_a_recipient_that_gpg_calls_unusable_is_named_with_its_flaw(tmp_path: Path, listed: str, words: str) -> None:
    program = speaking(tmp_path, "INV_RECP 0 x\n", 2, listed=listed)
    with pytest.raises(OpenPgpError, match=f"nobody can encrypt to 'host' .{KEY}.: {words}"):
        openpgp.seal(b"x", "x", home=tmp_path, exe=program)


def test_where_gpg_does_not_sign_the_hint_is_about_the_passphrase(tmp_path: Path) -> None:
    program = speaking(tmp_path, "BEGIN_SIGNING H8\n", 2, listed=PUBLIC)
    for given, hint in (
        ({"agent": True}, "gpg-agent was to ask for the passphrase"),
        ({"password": Secret(b"x")}, "is the passphrase right"),
        ({}, "has the key a passphrase"),
    ):
        with pytest.raises(OpenPgpError, match=hint):
            openpgp.seal(b"x", "x", signer="x", home=tmp_path, exe=program, **given)


class StrictGPG(gnupg.GPG):  # type: ignore[misc]  # python-gnupg has no types
    """Refuses a fingerprint that it sees twice, as python-gnupg did in its older versions."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.check_fingerprint_collisions = True


def test_a_keyring_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gnupg, "GPG", StrictGPG)
    program = speaking(tmp_path, "", listed=LISTED + LISTED)  # a fingerprint twice
    with pytest.raises(OpenPgpError, match="the keyring cannot be read"):
        openpgp.Decryptor(tmp_path, program, decrypt_id="x")
