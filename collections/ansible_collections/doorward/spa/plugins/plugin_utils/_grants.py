# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the grants of a host, as `doorward status --json` has them, leave to be done; standard library only."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ANYONE = "any"  # the source of a grant for everybody
_PARTIAL = frozenset({"nat", "os", "destination"})  # a grant with one of these is not for the service as such


def source(text: str) -> str:
    """Return an address as the host shows it, or `any`.

    Raises:
        ValueError: it is neither.
    """
    return ANYONE if text.lower() == ANYONE else str(ipaddress.ip_address(text))


def lacking(grants: Iterable[dict], whose: str, services: Sequence[str], seconds: float) -> list[str]:
    """Return the services that no grant of a source opens for at least so many seconds more."""
    lasting = [one for one in _of(grants, whose) if one["remaining"] is None or one["remaining"] >= seconds]
    plain = {one["service"] for one in lasting if not _PARTIAL & set(one)}
    return [] if None in plain else [service for service in services if service not in plain]


def held(grants: Iterable[dict], whose: str) -> list[dict]:
    """Return the grants that closing for a source ends: its own, or with `any` everybody's."""
    return list(grants) if whose == ANYONE else _of(grants, whose)


def _of(grants: Iterable[dict], whose: str) -> list[dict]:
    return [one for one in grants if one["source"] == whose]
