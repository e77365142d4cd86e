"""One stanza of access.conf as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.values import ANYWHERE, Networks, Service

if TYPE_CHECKING:
    from doorward.values import SymmetricKeys

WINDOW_DEFAULT: Final = 30  # seconds, fwknopd's DEF_FW_ACCESS_TIMEOUT
WINDOW_MAX_DEFAULT: Final = 300  # seconds, fwknopd's DEF_MAX_FW_TIMEOUT


@dataclass(frozen=True, slots=True)
class Stanza:
    """Who may open what, from where, for how long. Windows in seconds, `expires` in Unix seconds.

    `open_ports` None allows every service that `restrict_ports` does not name. `number` counts from 1, as in the logs.
    """

    number: int
    path: str
    line: int
    source: Networks
    keys: SymmetricKeys
    destination: Networks = ANYWHERE
    open_ports: frozenset[Service] | None = None
    restrict_ports: frozenset[Service] = frozenset()
    fw_access_timeout: int = WINDOW_DEFAULT
    max_fw_timeout: int = WINDOW_MAX_DEFAULT
    require_username: str | None = None
    require_source_address: bool = False
    expires: int | None = None
