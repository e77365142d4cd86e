"""Key text and fingerprints."""

from __future__ import annotations

import base64

import pytest

from unit.collection_plugins import plugin

key_text = plugin("plugin_utils._key_text")

KEY, HMAC = bytes(range(32)), bytes(range(64))
GOOD = key_text.render(KEY, HMAC)
B64 = base64.b64encode(KEY).decode()


def test_a_key_is_read_as_it_was_written() -> None:
    assert key_text.parse(GOOD) == {"KEY_BASE64": B64, "HMAC_KEY_BASE64": base64.b64encode(HMAC).decode()}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n".join(reversed(GOOD.splitlines())), id="order"),
        pytest.param(GOOD.replace("\n", "\r\n\r\n"), id="line ends and empty lines"),
        pytest.param(GOOD.replace(": ", " \t"), id="spaces for the colon"),
        pytest.param(f"\n  {GOOD}", id="space around"),
    ],
)
def test_spelling_does_not_change_the_fingerprint(text: str) -> None:
    assert key_text.fingerprint(text) == key_text.fingerprint(GOOD)


@pytest.mark.parametrize("other", [(KEY[::-1], HMAC), (KEY, HMAC[::-1])])
def test_another_key_has_another_fingerprint(other: tuple[bytes, bytes]) -> None:
    assert key_text.fingerprint(key_text.render(*other)) != key_text.fingerprint(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(GOOD.splitlines()[0], id="half"),
        pytest.param(GOOD + GOOD.splitlines()[0], id="repeated"),
        pytest.param(GOOD + "OPEN_PORTS: tcp/22", id="more than keys"),
        pytest.param(GOOD.replace(B64, B64[:-3]), id="not base64"),
        pytest.param(f"KEY_BASE64: {B64}\nHMAC_KEY_BASE64: {B64}", id="the same key twice"),
        pytest.param(f"KEY_BASE64: {B64}; {B64}", id="two in one line"),
        pytest.param(GOOD.replace("HMAC", "[stanza]\nHMAC"), id="a stanza smuggled in"),
    ],
)
def test_anything_else_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(key_text.KeyTextError) as caught:
        key_text.parse(text)
    assert B64[:8] not in str(caught.value)


OTHER = key_text.render(KEY[::-1], HMAC)
GONE = key_text.missing("c is enrolled, and its key is gone")


@pytest.mark.parametrize(
    ("text", "host", "chosen"),
    [
        ("", "a", ("", "")),
        (GOOD, "a", (GOOD, "")),  # a text without names is whoever's variable it stands in
        (key_text.of_hosts({"a": GOOD}), "a", (GOOD, "")),
        (key_text.of_hosts({"a": GOOD}), "b", ("", "")),
        (key_text.of_hosts({"a": GOOD, "b": OTHER}), "a", (GOOD, "")),
        (key_text.of_hosts({"a": GOOD, "b": OTHER}), "b", (OTHER, "")),
        (key_text.of_hosts({"a": GOOD, "b": ""}), "b", ("", "")),
        (key_text.of_hosts({"a": GOOD, "c": GONE}), "c", ("", "c is enrolled, and its key is gone")),
        (key_text.of_hosts({"c": GONE, "a": GOOD}), "a", (GOOD, "")),
        (key_text.of_hosts({"fe80::1%eth0": GOOD}), "fe80::1%eth0", (GOOD, "")),
    ],
)
def test_a_connection_takes_the_key_of_its_own_host(text: str, host: str, chosen: tuple[str, str]) -> None:
    assert key_text.choose(text, host) == chosen


def test_the_text_of_no_host_is_empty() -> None:
    assert key_text.of_hosts({}) == key_text.of_hosts({"a": ""}) == ""


PUBLIC = "doorward1 " + "A" * 42 + "E="
PSK = base64.b64encode(KEY).decode()


def test_a_text_of_the_format_doorward_1_becomes_a_stanza_without_a_secret_key() -> None:
    text = key_text.of_public(f"{PUBLIC} web1", "/home/ops/own.key")
    assert key_text.is_public(text)
    assert not key_text.is_public(GOOD)
    assert (key_text.host_key(text), key_text.host_key(GOOD), key_text.host_key("")) == (f"{PUBLIC} web1", "", "")
    assert key_text.stanza(text, "web1") == f"[web1]\nHOST_KEY {PUBLIC} web1\nCLIENT_KEY_FILE /home/ops/own.key\n"
    assert key_text.stanza(f"HOST_KEY {PUBLIC}") == f"[default]\nHOST_KEY {PUBLIC}\n"
    assert f"PSK_BASE64 {PSK}\n" in key_text.stanza(key_text.of_public(PUBLIC, psk=PSK))
    assert key_text.choose(key_text.of_hosts({"a": text, "b": GOOD}), "a") == (text, "")
    assert key_text.psk(key_text.of_public(PUBLIC, psk=PSK)) == PSK
    assert key_text.psk(text) == key_text.psk(GOOD) == key_text.psk("") == ""


def test_a_mark_names_the_pre_shared_key_that_a_host_knows() -> None:
    mark, other = key_text.psk_mark(PSK), key_text.psk_mark(PSK[::-1])
    assert mark != other
    assert PSK not in mark
    assert key_text.psk_mark("") == key_text.NO_PSK
    known = [key_text.known_psk(each, PSK, PSK[::-1]) for each in (mark, other, key_text.NO_PSK, "")]
    assert known == [PSK, PSK[::-1], "", PSK]
    with pytest.raises(ValueError, match="neither doorward_psk nor doorward_previous_psk") as caught:
        key_text.known_psk(other, PSK, "")
    assert PSK not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"PSK_BASE64: {PSK}\n", id="no host's key"),
        pytest.param(f"HOST_KEY: {PUBLIC}\n{GOOD}", id="both formats"),
        pytest.param(f"HOST_KEY: {PUBLIC}\nHOST_KEY: {PUBLIC}\n", id="repeated"),
        pytest.param(f"HOST_KEY: {PUBLIC}\nPSK_BASE64: {PSK[:-5]}\n", id="cut"),
        pytest.param(f"HOST_KEY: {PUBLIC}\nCLIENT_KEY_FILE: /a b\n", id="two words"),
        pytest.param(f"HOST_KEY: {PUBLIC} web1 [x]\n", id="more than a name"),
        pytest.param(f"HOST_KEY: {PUBLIC}\nWGET_CMD: /bin/sh\n", id="a program smuggled in"),
    ],
)
def test_anything_else_in_such_a_text_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(key_text.KeyTextError) as caught:
        key_text.stanza(text)
    assert PSK[:8] not in str(caught.value)
