from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.client import getopt, last_command
from doorward.client.options import KNOCK
from doorward.client.profile import Carrier
from doorward.values import Secret

OPTIONS = [row for row in KNOCK.rows if row.spelling]


def read(line: str) -> str:
    return " ".join(map(str, getopt.read(line.split())))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-A tcp/22 -s -D h", "--access=tcp/22 --source-ip --destination=h"),
        ("-Atcp/22 -sTvv", "--access=tcp/22 --source-ip --test --verbose --verbose"),
        ("--access=tcp/22 --dest h", "--access=tcp/22 --destination=h"),
        ("--nat-l --nat-a h --nat-r", "--nat-local --nat-access=h --nat-rand-port"),
        ("-vAtcp/22", "--verbose --access=tcp/22"),
        ("-C -x", "--server-cmd=-x"),  # getopt takes the next word whatever it looks like
        ("--key-rijndael --abc", "--key-rijndael=--abc"),
        ("--key-base64-rijndael abc=", "--key-base64-rijndael=abc="),
        ("--key-base64-rijndael=abc==", "--key-base64-rijndael=abc=="),
        ("-4 -6", "--server-resolve-ipv4 --server-resolve-ipv6"),
        ("--resolve-ip-http", "--resolve-ip-https"),
        ("--spoof-src 192.0.2.1", "--spoof-source=192.0.2.1"),
        ("-h", "--help"),
        ("-k", "--key-gen"),
        ("-k -v", "--key-gen --verbose"),
        ("-w /usr/bin/wget -R", "--wget-cmd=/usr/bin/wget --resolve-ip-https"),
        ("-w/usr/bin/wget", "--wget-cmd=/usr/bin/wget"),
        ("--resolve-dns -v", "--resolve-dns=default --verbose"),
        ("--resolve-dns a@b", "--resolve-dns=a@b"),
    ],
)
def test_a_command_line_is_read_as_getopt_reads_it(typed: str, meant: str) -> None:
    assert read(typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-A tcp/22 -s -k host", "--access=tcp/22 --source-ip --destination=host"),
        ("-k host -A tcp/22 -s", "--destination=host --access=tcp/22 --source-ip"),
        ("-A tcp/22 -w -k host", "--access=tcp/22 --resolve-ip-https --destination=host"),
        ("-A tcp/22 -k host -w", "--access=tcp/22 --destination=host --resolve-ip-https"),
        ("-A tcp/22 -k -D host", "--access=tcp/22 --key-gen --destination=host"),
        ("--gpg-recip A --gpg-sign B", "--gpg-recipient-key=A --gpg-signer-key=B"),
        ("--gpg-recipient A --gpg-signing-key B", "--gpg-recipient-key=A --gpg-signer-key=B"),
        ("--Access tcp/22 --Destination h", "--access=tcp/22 --destination=h"),
        ("--Server-port 53 --Spoof-user bob --allow-IP 192.0.2.1", None),
        ("--whatismyip", "--resolve-ip-https"),
        ("--HTTP", "--server-proto=http"),
        ("--TCP-sock", "--server-proto=tcp"),
        ("--quiet -s", "--source-ip"),
        ("--Show-last-cmd", "--show-last"),
        (
            "-A tcp/6543 --NAT-access host:110 --NAT-local",
            "--access=tcp/6543 --nat-access=host --nat-port=110 --nat-local",
        ),
        ("--NAT-access 10.0.0.1,2222", "--nat-access=10.0.0.1 --nat-port=2222"),
        ("--Forward-access 10.0.0.1,2222", "--nat-access=10.0.0.1 --nat-port=2222"),
        ("-F 10.0.0.1,2222", "--nat-access=10.0.0.1 --nat-port=2222"),
        ("--NAT-access 10.0.0.1", "--nat-access=10.0.0.1"),
        ("--NAT-access [2001:db8::5]:2222", "--nat-access=[2001:db8::5] --nat-port=2222"),
        ("--NAT-access 2001:db8::5", "--nat-access=2001:db8::5"),
        ("--NAT-access 10.0.0.1:99 --NAT-rand-port", "--nat-access=10.0.0.1 --nat-rand-port"),
        ("--NAT-local", "--nat-local --nat-port=55000"),
        ("--NAT-local --NAT-rand-port", "--nat-local --nat-rand-port"),
        ("--nat-local --nat-access h:110", "--nat-local --nat-access=h:110"),
    ],
)
def test_the_words_of_the_old_tutorials_keep_their_meaning(typed: str, meant: str | None) -> None:
    assert read(typed) == (meant or "--server-port=53 --spoof-user=bob --allow-ip=192.0.2.1")


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("--nonsense", "unrecognized option --nonsense"),
        ("--nonsense=hunter2", "unrecognized option --nonsense$"),
        ("-x", "unrecognized option -x"),
        ("-vx", "unrecognized option -x"),
        ("-A", "-A needs a value"),
        ("--access", "--access needs a value"),
        ("--test=1", "--test takes no value"),
        ("--nat", "--nat may be --nat-access, --nat-local, --nat-port, --nat-rand-port"),
        ("-k host", "'host' belongs to no option"),
        ("-A tcp/22 host", "'host' belongs to no option"),
        ("-s -- -A", "'-A' belongs to no option"),
        ("-", "'-' belongs to no option"),
    ],
)
def test_what_no_option_is_is_refused(typed: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(typed)


def test_every_option_has_one_canonical_long_name() -> None:
    names = [option.name for option in OPTIONS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("--") for name in names)
    for option in OPTIONS:
        for name in (*option.names, *option.old_names):
            (word,) = getopt.read([name] if not option.metavar else [name, "x"])
            assert word.name == option.name


def test_keys_are_replaced_by_what_asks_for_them() -> None:
    typed = "-A tcp/22 --key-rijndael h2 --key-base64-rijndael h3 --key-hmac=h4 --key-base64-hmac h5 -G /f"
    words = getopt.read(typed.split())
    kept = [str(word) for word in getopt.without_keys(words)]
    assert kept == ["--access=tcp/22", "--ask-key", "--ask-hmac-key", "--get-key=/f"]


def test_every_option_that_takes_a_key_is_replaced() -> None:
    carriers = {option.name for option in OPTIONS if option.metavar == "KEY" and not option.name.startswith("--gpg")}
    assert carriers | {"--otp"} == {option.name for option in OPTIONS if option.instead}
    assert len(carriers) == 4


WORDS = st.one_of(
    st.sampled_from([name for option in OPTIONS for name in (*option.names, *option.old_names)]),
    st.sampled_from(["--NAT-access", "--NAT-local", "--NAT-rand-port", "-F", "--", "-", "", "-vv", "-kv", "--nat"]),
    st.text(max_size=8),
)


@given(st.lists(WORDS, max_size=8))
def test_any_words_are_options_or_an_error_and_mean_the_same_when_they_are_kept(words: list[str]) -> None:
    try:
        said = getopt.read(words)
    except ValueError:
        return
    kept = last_command.text(said)
    assert getopt.read(shlex.split(kept)) == getopt.without_keys(said)


def test_what_is_said_twice_is_kept_twice() -> None:
    said = getopt.read(["-vv", "--resolve-url", "a", "--resolve-url", "a", "--key-hmac", "x", "--key-base64-hmac", "y"])
    assert last_command.text(said) == "--verbose --verbose --resolve-url a --resolve-url a --ask-hmac-key"


@pytest.mark.parametrize("text", ["--", "-v", "--test"])
def test_a_word_behind_an_option_is_its_value_whatever_it_looks_like(text: str) -> None:
    said = getopt.read(["-C", text, "--key-hmac", text])
    found = getopt.values(KNOCK, said)
    assert (found.command, found.hmac_key) == (text, Secret(text.encode()))
    assert (found.use_hmac, found.verbose, found.test) == (True, None, None)


def test_another_option_wins_over_an_implied_setting_wherever_it_stands() -> None:
    for words in (["-H", "px", "-P", "tcp"], ["-P", "tcp", "-H", "px"]):
        assert getopt.values(KNOCK, getopt.read(words)).carrier is Carrier.TCP
    for words in (["-R", "-a", "192.0.2.1"], ["-a", "192.0.2.1", "--resolve-url", "x"]):
        assert str(getopt.values(KNOCK, getopt.read(words)).source) == "192.0.2.1"
    assert getopt.values(KNOCK, getopt.read(["-H", "px"])).carrier is Carrier.HTTP


def test_a_value_that_is_wrong_is_named_by_its_option() -> None:
    with pytest.raises(getopt.UsageError, match="--server-port: '0' is not a number"):
        getopt.values(KNOCK, getopt.read(["-p", "0"]))
