"""A client's half of its keys: what is written is read, and nothing else is."""

from __future__ import annotations

import base64

import pytest

from doorward.client import fwknoprc
from doorward.config import convert, half
from doorward.config.half import Half
from doorward.errors import ClientError
from doorward.values import Secret

KEY, HMAC_KEY = b"k" * 32, b"h" * 64
HALF = Half("web1", "192.0.2.10", convert.services("tcp/22"), Secret(KEY), Secret(HMAC_KEY))
MANY = Half("web-2.x", "2001:db8::1", convert.services("tcp/22,udp/51820"), Secret(KEY), Secret(HMAC_KEY), 4242)
SECRETS = [base64.b64encode(key).decode() for key in (KEY, HMAC_KEY)]
FORMS = pytest.mark.parametrize("form", ["line", "file"])
HALVES = pytest.mark.parametrize("made", [HALF, MANY], ids=["plain", "all of it"])


def complaint(text: str) -> str:
    """Why a text is refused; no key of it is repeated."""
    with pytest.raises(ClientError) as caught:
        half.parse(text)
    assert not [key for key in SECRETS if key[:8] in str(caught.value)]
    return str(caught.value)


@FORMS
@HALVES
def test_what_is_written_is_read(made: Half, form: str) -> None:
    text: str = getattr(made, form)
    assert half.parse(text) == half.parse(f"  {text}\r\n") == made


@HALVES
def test_the_line_may_have_been_wrapped_on_its_way(made: Half) -> None:
    assert half.parse(made.line.replace(" ", "\n")) == made


@HALVES
def test_the_file_is_a_section_of_the_clients_file(made: Half) -> None:
    profile = fwknoprc.parse(made.file.encode(), "rc").profile(made.section)
    assert (profile.server, profile.access, profile.key, profile.hmac_key) == (
        made.server,
        made.access,
        made.key,
        made.hmac_key,
    )
    assert profile.port in {None, made.port}


@HALVES
def test_fwknops_app_for_phones_finds_both_keys_in_the_line(made: Half) -> None:
    """It splits at blanks, then at colons, and takes the second part (Fwknop2, ConfigDetailFragment.java)."""
    found = {word.split(":")[0]: word.split(":")[1] for word in made.line.split(" ")}
    assert [found["KEY_BASE64"], found["HMAC_KEY_BASE64"]] == SECRETS


@FORMS
def test_a_text_that_was_cut_anywhere_is_refused(form: str) -> None:
    text: str = getattr(HALF, form).rstrip("\n")
    assert half.parse(text) == HALF
    for end in range(len(text)):
        assert complaint(text[:end])
    for begin in range(1, len(text)):
        if form == "line" or text[begin:].startswith(("[", "#")):
            rest = text[begin:]
            if half_of(rest) is None:
                continue
            assert half_of(rest) == HALF, "only the comment above a file may be missing"


def half_of(text: str) -> Half | None:
    try:
        return half.parse(text)
    except ClientError:
        return None


@FORMS
def test_a_character_that_was_changed_is_noticed(form: str) -> None:
    text: str = getattr(HALF, form)
    begin = text.index("[web1]") if form == "file" else 0
    for place in range(begin, len(text.rstrip("\n"))):
        if text[place] not in " \n#":
            assert half_of(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no CHECK at its end"),
        ("https://example.org/buy", "is no line of `doorward init`"),
        ("WIFI:S:home;T:WPA;P:secret;;", "its part 1 is none of KEY_BASE64"),
        ("KEY_BASE64 x", "is no line of `doorward init`"),
        ("\x1b[2J", "is no line of `doorward init`"),
        ("gr\u00fc\u00dfe", "is no line of `doorward init`"),
        ("A" * 5000, "is no line of `doorward init`"),
        (f"{HALF.line} {HALF.line}", "has KEY_BASE64 twice: give one line, once"),
        (f"{HALF.line}\n{MANY.line}\n", "has KEY_BASE64 twice: give one line, once"),
        (HALF.file * 2, "twice"),
        (HALF.line.rpartition(" ")[0], "has no CHECK at its end: it was cut"),
        (HALF.line.partition(" ")[2], "lacks KEY_BASE64: its beginning is missing"),
        (HALF.line[:-1] + "!", "is damaged: its CHECK does not fit"),
        (f"{HALF.line} WGET_CMD:/tmp/x", "its part 7 is none of"),
        (HALF.file.replace("ALLOW_IP", "KEY_COMMAND "), "its part 5 is none of"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, words: str) -> None:
    assert words in complaint(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"section": "de fault"}, "is damaged"),
        ({"section": "default"}, "no name for a section"),
        ({"section": "x]"}, "no name for a section"),
        ({"server": "-oProxyCommand=x"}, "no host name"),
        ({"server": "$(id)"}, "no host name"),
        ({"key": Secret(b"k" * 33)}, "a key has 33 bytes, more than 32"),
        ({"hmac_key": Secret(b"h" * 129)}, "a key has 129 bytes, more than 128"),
    ],
)
def test_a_half_that_no_client_can_use_is_refused(change: dict[str, object], words: str) -> None:
    fields = {"section": "web1", "server": "192.0.2.10", "access": HALF.access, "key": HALF.key, "hmac_key": HALF.key}
    made = Half(**{**fields, **change})  # type: ignore[arg-type]  # what a damaged or hostile line may hold
    assert words in complaint(made.line) or words == "is damaged"


def test_no_key_shows_itself() -> None:
    assert not [key for key in SECRETS if key[:8] in repr(HALF)]
