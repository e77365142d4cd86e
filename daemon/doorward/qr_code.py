"""A text as a QR code in a terminal, where the package segno is installed (doorward[qr])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

REMEDY: Final = "the Python package segno: pip install 'doorward[qr]' (Debian: python3-segno)"


def shower() -> Callable[[str, TextIO], None] | None:
    """The call that shows a text as a QR code; None where the package for it is missing."""
    try:
        import segno  # noqa: PLC0415  an extra
    except ImportError:
        return None

    def show(text: str, out: TextIO) -> None:
        segno.make(text, error="l", micro=False).terminal(out=out, compact=True)

    return show
