"""Whether the kernel says that something keeps this machine's clock right; on BSD and macOS too."""

from __future__ import annotations

import ctypes
from typing import Final

UNSYNCHRONISED: Final = "nothing keeps this machine's clock right (timedatectl)"
_CALLS: Final = ("adjtimex", "ntp_adjtime")  # Linux; BSD and macOS
_ROOM: Final = 512  # bytes, for the struct timex of any system; its first field, the modes, stays 0: nothing is set
_TIME_ERROR: Final = 5  # sys/timex.h


def is_synchronised() -> bool | None:
    """Whether the clock is synchronised; None where the system does not say."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows names its libraries
        return None
    call = next((getattr(library, name) for name in _CALLS if hasattr(library, name)), None)
    state = -1 if call is None else call(ctypes.create_string_buffer(_ROOM))
    return None if state < 0 else state != _TIME_ERROR
