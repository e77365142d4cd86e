from __future__ import annotations

import io
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from doorward.client import learn, seen
from doorward.errors import ClientError
from unit.client.test_external_address import outside

if TYPE_CHECKING:
    from pathlib import Path


def told(home: Path, line: str, host: str = "127.0.0.1", environ: dict[str, str] | None = None) -> str:
    """What `doorward learn` prints for a line on standard input."""
    out = io.StringIO()
    surroundings = outside()._replace(home=home, out=out, environ=environ or {})
    learn.run(SimpleNamespace(host=host, address=None), surroundings, io.StringIO(line))
    return out.getvalue()


def test_an_address_of_ssh_connection_is_remembered_for_the_host(tmp_path: Path) -> None:
    assert told(tmp_path, "10.9.8.7 51514 127.0.0.1 22\n") == "127.0.0.1 sees this machine at 10.9.8.7: behind NAT\n"
    ((entry,), complaint) = seen.load(seen.path({}, tmp_path))
    assert (entry.by, str(entry.address), complaint) == ("127.0.0.1", "10.9.8.7", "")


def test_the_loopback_is_nobodys_source(tmp_path: Path) -> None:
    line = "127.0.0.1 51514 127.0.0.1 22\n"
    with pytest.raises(ClientError, match=r"127\.0\.0\.1 cannot see this machine at 127\.0\.0\.1"):
        told(tmp_path, line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["", "\n", "hello", "<html>\x1b[2J", "1.2.3 4", "x" * 2000])
def test_a_line_that_is_no_ssh_connection_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(ClientError, match="is no SSH_CONNECTION") as caught:
        told(tmp_path, line)
    assert str(caught.value).isprintable()


def test_no_standard_input_is_no_ssh_connection() -> None:
    with pytest.raises(ClientError, match="is no SSH_CONNECTION"):
        learn.run(SimpleNamespace(host="127.0.0.1", address=None), outside(), None)


def test_an_address_of_the_other_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot see this machine at fd77::7"):
        told(tmp_path, "fd77::7 1 2 3")


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="/dev/null/doorward/seen: "):
        told(tmp_path, "10.9.8.7 1 2 3", environ={"XDG_STATE_HOME": os.devnull})
