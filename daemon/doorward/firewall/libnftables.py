"""libnftables in this process, through ctypes: 60 µs for a transaction that costs 1.9 ms as a process."""

from __future__ import annotations

import ctypes
import enum
import json
from typing import Any, Final

from doorward.errors import FirewallError

LIBRARY: Final = "libnftables.so.1"
ERROR_MAX: Final = 600  # characters of an error of nft


class Output(enum.IntFlag):
    """How listings look. Source: nftables include/nftables/libnftables.h, NFT_CTX_OUTPUT_*."""

    STATELESS = 1 << 2
    HANDLE = 1 << 3
    JSON = 1 << 4
    NUMERIC_PROTO = 1 << 7


class Libnftables:
    """One libnftables context. Its netlink socket stays in the network namespace it was made in."""

    def __init__(self, library: str = LIBRARY) -> None:
        """Load the library and make a context.

        Raises:
            FirewallError: the library is missing, or gives no context.
        """
        try:
            self._library = _bind(ctypes.CDLL(library))
        except (OSError, AttributeError) as error:
            msg = f"{library} cannot be used ({error}); install the package libnftables1 (Debian) or nftables"
            raise FirewallError(msg) from error
        context = self._library.nft_ctx_new(0)
        if not context:
            msg = f"{library} gives no context"
            raise FirewallError(msg)
        self._context = ctypes.c_void_p(context)
        if self._library.nft_ctx_buffer_output(self._context) or self._library.nft_ctx_buffer_error(self._context):
            msg = f"{library} cannot buffer its output"
            raise FirewallError(msg)

    def run(self, commands: str, output: Output = Output(0)) -> str:  # noqa: B008  an immutable flag
        """Run `commands` as one transaction and return their listing.

        Raises:
            FirewallError: in the words of nft; nothing was changed.
        """
        if "\0" in commands:
            msg = "a NUL byte in nft's commands"
            raise FirewallError(msg)
        self._library.nft_ctx_output_set_flags(self._context, int(output))
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        listed: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise FirewallError(first_words(errors.decode("utf-8", "replace")))
        return listed.decode("utf-8", "replace")

    def check(self, commands: str) -> None:
        """Raise the FirewallError that run() would raise, as far as nft detects it without a change."""
        self._library.nft_ctx_set_dry_run(self._context, True)  # noqa: FBT003  a C function's only argument
        try:
            self.run(commands)
        finally:
            self._library.nft_ctx_set_dry_run(self._context, False)  # noqa: FBT003  as above

    def objects(self, command: str, output: Output = Output(0)) -> list[dict[str, Any]]:  # noqa: B008  as above
        """The JSON objects of a list command, without nft's metainfo."""
        listed = json.loads(self.run(command, output | Output.JSON) or '{"nftables": []}')
        return [entry for entry in listed["nftables"] if "metainfo" not in entry]

    def close(self) -> None:
        """Free the context; the object cannot be used afterwards."""
        self._library.nft_ctx_free(self._context)
        self._context = ctypes.c_void_p(None)


def first_words(errors: str) -> str:
    """The error of nft on one line, without the lines that quote and underline the command."""
    lines = errors.splitlines()
    telling = [line for line in lines if "Error:" in line] or lines or ["no output"]
    return "; ".join(telling)[:ERROR_MAX]


def _bind(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the signatures of the functions in use."""
    context = ctypes.c_void_p
    signatures: tuple[tuple[str, object, list[object]], ...] = (
        ("nft_ctx_new", ctypes.c_void_p, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_set_dry_run", None, [context, ctypes.c_bool]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p, [context]),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p, [context]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, ctypes.c_char_p]),
    )
    for name, result, arguments in signatures:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
