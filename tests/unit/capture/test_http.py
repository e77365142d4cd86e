from __future__ import annotations

import http.client
import io
import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doorward.capture.http import REQUEST_MAX, Rules, is_whole, read
from doorward.values import ANYWHERE, Datagram, Networks

PACKET = (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" * 3)[:180]
ON_THE_WIRE = PACKET.replace(b"+", b"-").replace(b"/", b"_")
PROXY = ipaddress.ip_address("10.0.0.8").packed
STRANGER = ipaddress.ip_address("203.0.113.5").packed
PROXIES = Networks.of([ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2001:db8:1::/48")])
TRUSTING = Rules(proxies=PROXIES)


def asked(content: bytes, origin: bytes = STRANGER, rules: Rules = TRUSTING) -> Datagram:
    return read(Datagram(content, origin, bytes(4), 40000, 80, 6), rules)


def request(*fields: str, agent: str = "Fwknop/2.6.10", target: bytes = ON_THE_WIRE, end: str = "\r\n") -> bytes:
    lines = [f"User-Agent: {agent}", "Accept: */*", "Host: door", *fields, "Connection: close", "", ""]
    return b"GET /" + target + b" HTTP/1.0" + end.encode() + end.join(lines).encode()


def forwarded(*values: str, origin: bytes = PROXY, rules: Rules = TRUSTING) -> str | None:
    found = asked(request(*(f"X-Forwarded-For: {value}" for value in values)), origin, rules).forwarded
    return None if found is None else str(ipaddress.ip_address(found))


def test_a_request_of_fwknops_client_carries_its_packet() -> None:
    assert asked(request()) == Datagram(PACKET, STRANGER, bytes(4), 40000, 80, 6)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("method", [b"GET", b"get", b"Get"])
def test_lines_may_end_either_way_and_the_method_may_be_in_any_case(end: str, method: bytes) -> None:
    assert asked(method + request(end=end)[3:]).payload == PACKET


@pytest.mark.parametrize("blank", [b" ", b"\t", b"\r", b"\n", b"\v", b"\f"])
def test_the_packet_ends_at_the_first_blank(blank: bytes) -> None:
    assert asked(b"GET /" + ON_THE_WIRE + blank + request()[5:]).payload == PACKET


@pytest.mark.parametrize("agent", ["curl/8", "", "xFwknop", "fwknop/2", " curl Fwknop"])
def test_another_agent_counts_only_where_any_does(agent: str) -> None:
    content = request(agent=agent)
    assert asked(content).payload == content
    assert asked(content, rules=Rules(any_agent=True)).payload == PACKET


def test_the_agents_word_in_another_field_is_not_an_agent() -> None:
    content = request("Cookie: User-Agent: Fwknop", agent="curl")
    assert asked(content).payload == content


@pytest.mark.parametrize(
    "content", [b"", b"GET", b"GET ", b"POST /x", b"GET http://door/x", PACKET, b"HEAD /" + ON_THE_WIRE, b"\0GET /"]
)
def test_what_is_no_get_request_stays_as_it_is(content: bytes) -> None:
    assert asked(content).payload == content


def test_a_trusted_proxy_says_whom_it_speaks_for() -> None:
    assert forwarded("198.51.100.7") == "198.51.100.7"
    assert forwarded("2001:db8:9::7") == "2001:db8:9::7"
    assert forwarded("::ffff:198.51.100.7") == "198.51.100.7"


def test_the_origin_stays_the_proxy() -> None:
    datagram = asked(request("X-Forwarded-For: 198.51.100.7"), PROXY)
    assert (datagram.origin, datagram.payload) == (PROXY, PACKET)


def test_nobody_else_is_believed() -> None:
    assert forwarded("198.51.100.7", origin=STRANGER) is None
    assert forwarded("198.51.100.7", rules=Rules()) is None
    assert forwarded("198.51.100.7", rules=Rules(proxies=Networks.of([]))) is None


def test_what_a_client_wrote_before_the_proxy_does_not_count() -> None:
    assert forwarded("1.2.3.4, 198.51.100.7") == "198.51.100.7"
    assert forwarded("1.2.3.4", "198.51.100.7") == "198.51.100.7"
    assert forwarded("198.51.100.7, 10.0.0.9") == "198.51.100.7"
    assert forwarded("1.2.3.4, 198.51.100.7, 10.0.0.9, 2001:db8:1::2") == "198.51.100.7"
    assert forwarded("rubbish, 198.51.100.7") == "198.51.100.7"


def test_where_all_are_trusted_the_first_counts() -> None:
    assert forwarded("10.0.0.3, 10.0.0.4") == "10.0.0.3"
    assert forwarded("198.51.100.7", rules=Rules(proxies=ANYWHERE)) == "198.51.100.7"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "unknown",
        "198.51.100.7, rubbish",
        "198.51.100.7,",
        "198.51.100",
        "198.51.100.7:80",
        "0.0.0.0",  # noqa: S104  a value that is refused
        "::",
        "1.2.3.4 5.6.7.8",
        "198.51.100.07",
        "\u0661.2.3.4",
        "fe80::1%eth0" * 40,
    ],
)  # fmt: skip  one list
def test_what_is_no_address_is_nobodys(value: str) -> None:
    assert forwarded(value) is None


@pytest.mark.parametrize("cut", range(1, 40))
def test_an_address_that_was_cut_is_not_taken_for_another(cut: int) -> None:
    whole = request("X-Forwarded-For: 198.51.100.77")
    start = whole.index(b"198.51.100.77")
    assert asked(whole[: start + cut], PROXY).forwarded in {None, ipaddress.ip_address("198.51.100.77").packed}
    assert asked(whole, PROXY).forwarded is not None


def test_a_request_is_whole_with_its_blank_line() -> None:
    for end in ("\r\n", "\n"):
        whole = request(end=end)
        assert is_whole(whole)
        assert not any(is_whole(whole[:length]) for length in range(len(whole) - len(end)))
    assert not is_whole(PACKET + b"\r\n\r\n")


def test_a_bomb_of_fields_is_read_no_further_than_a_request_may_be_long() -> None:
    bomb = request(*["X-Forwarded-For: 198.51.100.7"] * 100_000)
    assert asked(bomb, PROXY).forwarded is not None
    late = request(*["X: y"] * 10_000, "X-Forwarded-For: 198.51.100.7")
    assert len(late) > REQUEST_MAX
    assert asked(late, PROXY).forwarded is None
    assert forwarded(", ".join(["10.0.0.1"] * 500)) == "10.0.0.1"


TOKENS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)


@given(
    st.lists(st.tuples(st.one_of(TOKENS, st.sampled_from(["USER-AGENT", "x-forwarded-for"])), VALUES), max_size=12),
    st.sampled_from(["Fwknop", "fwknop", "curl", ""]),
    st.lists(st.ip_addresses().map(str), max_size=3),
)
def test_fields_are_read_as_the_standard_library_reads_them(
    fields: list[tuple[str, str]], agent: str, addresses: list[str]
) -> None:
    said = [f"{name}: {value}" for name, value in fields]
    if addresses:
        said.append(f"X-Forwarded-For: {', '.join(addresses)}")
    content = request(*said, agent=agent)
    oracle = http.client.parse_headers(io.BytesIO(content.partition(b"\r\n")[2]))
    agents = any(value.startswith("Fwknop") for value in oracle.get_all("user-agent", []))
    datagram = asked(content, PROXY)
    assert (datagram.payload == PACKET) == agents
    hops = ",".join(oracle.get_all("x-forwarded-for", [])).split(",")
    if agents and addresses and ipaddress.ip_address(addresses[-1]).packed not in PROXIES:
        last = ipaddress.ip_address(hops[-1].strip())
        mapped = last.ipv4_mapped if isinstance(last, ipaddress.IPv6Address) else None
        assert datagram.forwarded == ((mapped or last).packed if int(last) else None)


@given(st.binary(max_size=400), st.booleans())
@example(b"GET /", True)  # noqa: FBT003  an example's value
@example(b"GET /\r\n\r\n:\r\n", True)  # noqa: FBT003
def test_any_bytes_give_a_datagram(content: bytes, prefixed: bool) -> None:  # noqa: FBT001  a drawn value
    content = b"GET /" + content if prefixed else content
    for rules in (TRUSTING, Rules(any_agent=True, proxies=ANYWHERE)):
        datagram = asked(content, PROXY, rules)
        assert datagram.payload == content or not set(datagram.payload) & set(b" \t\r\n\v\f")
        assert datagram._replace(payload=b"", forwarded=None) == Datagram(b"", PROXY, bytes(4), 40000, 80, 6)
    assert is_whole(content) in {True, False}
