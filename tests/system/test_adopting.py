"""A new configuration that the packet filter takes only half of: the helper puts back what the old one says."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import GUARDED_SET
from doorward.helper import process
from doorward.helper.process import HelperProcess
from doorward.processes import options
from doorward.record import log
from system.doorwardd import ACCESS, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

SERVER = "ENABLE_UDP_SERVER Y\nUDPSERV_PORT "


class Half(Nftables):
    """The real packet filter, which fails once it has done everything."""

    def prepare(self) -> str | None:
        super().prepare()
        msg = "half of it"
        raise FirewallError(msg)


@contextlib.contextmanager
def helper(ns: Namespace, folder: Path) -> Iterator[HelperProcess]:
    """Yield a helper that has adopted its configuration, without a listener."""
    files = ("-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder / "run"))
    lines = log.make(foreground=True, verbose=False, identity="helper", facility="daemon")
    with contextlib.closing(lines), ns.inside():
        made = HelperProcess(options.parser().parse_args(files), lines)
        made.configure()
        made.adopt()
        yield made
        made._end()  # noqa: SLF001  what serve() does at its end


def guarded(ns: Namespace) -> str:
    return ns.nft(f"list set inet doorward {GUARDED_SET}")


def configure(folder: Path, services: str, port: int) -> None:
    write(folder / "access.conf", ACCESS.replace("tcp/22, udp/7777", services))
    write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/firewall.nft\n{SERVER}{port}\n")


def test_a_configuration_that_is_adopted_by_half_is_taken_back(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, "tcp/22", 5000)
    with helper(ns, tmp_path) as made:
        before = guarded(ns)
        assert "tcp . 22" in before
        configure(tmp_path, "tcp/23", 5001)
        made.configure()
        with monkeypatch.context() as patched:
            patched.setattr(process, "Nftables", Half)
            with pytest.raises(FirewallError, match="half of it"):
                made.adopt()
        assert guarded(ns) == before
        listening = ns.run("ss", "-Hlnu").stdout
        assert (":5000 " in listening, ":5001 " in listening) == (True, False)
        made.configure()
        made.adopt()
        assert "tcp . 23" in guarded(ns), "it can be adopted as a whole"
