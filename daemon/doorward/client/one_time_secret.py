"""`doorward keys otp`: a new secret for one-time codes, shown once and written nowhere."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from doorward import qr_code
from doorward.client import identity
from doorward.errors import ClientError, WireError
from doorward.values import check_name

if TYPE_CHECKING:
    from doorward.client.surroundings import Outside

SECRET_BYTES: Final = 20  # RFC 4226, section 4, R6
ISSUER: Final = "doorward"


def uri(secret: str, label: str) -> str:
    """What authenticator apps read from a QR code; the defaults of RFC 6238 go without saying.

    Source: github.com/google/google-authenticator/wiki/Key-Uri-Format.
    """
    return f"otpauth://totp/{quote(f'{ISSUER}:{label}', safe=':')}?{urlencode({'secret': secret, 'issuer': ISSUER})}"


def show(label: str | None, outside: Outside) -> None:
    """Make a secret, and print it for the host's stanza and for an app.

    Raises:
        ClientError: the label is no word.
    """
    try:
        name = check_name(label or identity.usual_comment(outside.environ))
    except WireError as error:
        msg = f"--comment: {error}"
        raise ClientError(msg) from error
    secret = base64.b32encode(outside.random_bytes(SECRET_BYTES)).decode("ascii")
    outside.say(f"ONE_TIME_CODE {secret}")
    outside.say(uri(secret, name))
    qr = qr_code.shower()
    if qr is None:
        outside.warn(f"without a QR code, which needs {qr_code.REMEDY}")
    else:
        qr(uri(secret, name), outside.out)
