"""The lines of verdicts: which of them are written in a flood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doorward.config.stanza import OpenPgp, Stanza
from doorward.record.line import CHEAP, Limiter, Suppressed, is_cheap
from doorward.record.log import LINES_PER_SECOND
from doorward.values import Reason, Secret
from unit.making import KEYS, stanza

AUTHENTICATED = {
    "symmetric": stanza(),
    "GnuPG": stanza(keys=None, openpgp=OpenPgp("host", Path("/home"), hmac_key=Secret(b"key"))),
}
OPEN = {
    "symmetric": stanza(keys=replace(KEYS, hmac_key=None)),
    "GnuPG": stanza(keys=None, openpgp=OpenPgp("host", Path("/home"))),
    "no stanza": None,
}
DENIED = [reason for reason in Reason if reason is not Reason.GRANTED]


@pytest.mark.parametrize("name", OPEN)
def test_every_line_but_a_grants_is_limited_where_no_hmac_key_is(name: str) -> None:
    limiter, chosen = Limiter(), OPEN[name]
    for reason in DENIED:
        written = [limiter.admits(reason, cheap=is_cheap(reason, chosen)) for _ in range(LINES_PER_SECOND + 3)]
        assert sum(written) == LINES_PER_SECOND
    assert limiter.summary() == [Suppressed(reason, 3) for reason in DENIED]
    assert limiter.summary() == []
    assert not is_cheap(Reason.GRANTED, chosen)


@pytest.mark.parametrize("chosen", AUTHENTICATED.values(), ids=AUTHENTICATED)
def test_a_new_packet_that_an_hmac_key_made_always_has_its_line(chosen: Stanza) -> None:
    limiter = Limiter()
    for reason in set(Reason) - set(CHEAP):
        assert all(limiter.admits(reason, cheap=is_cheap(reason, chosen)) for _ in range(LINES_PER_SECOND + 3))
    assert all(is_cheap(reason, chosen) for reason in CHEAP)
    assert limiter.summary() == []
