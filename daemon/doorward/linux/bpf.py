"""Classic BPF programs: steps with labels, assembled into struct sock_filter. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

INSTRUCTION_BYTES: Final = 8  # struct sock_filter: code, jump if true, jump if false, k
_SOCK_FILTER: Final = struct.Struct("=HBBI")
JA, JEQ, JGT, JGE, JSET, JEQ_X, JGE_X, RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x1D, 0x3D, 0x06


class Step(NamedTuple):
    """One instruction. A jump has a label; a condition jumps there where it turns out as `when` says."""

    code: int
    k: int = 0
    label: str = ""
    when: bool = True


Source = list[Step | str]  # a string marks the place of a label


def size(step: Step | str) -> int:
    """Return how many instructions a line of the source becomes."""
    if isinstance(step, str):
        return 0
    return 2 if step.label and step.code != JA else 1


def assemble(source: Source) -> bytes:
    """Return the instructions. A condition steps over an unconditional jump, whose reach is not 8 but 32 bits."""
    labels: dict[str, int] = {}
    end = 0
    for step in source:
        if isinstance(step, str):
            labels[step] = end
        end += size(step)
    encoded = b""
    for step in source:
        if isinstance(step, str):
            continue
        if size(step) > 1:
            encoded += _SOCK_FILTER.pack(step.code, 0 if step.when else 1, 1 if step.when else 0, step.k)
        place = len(encoded) // INSTRUCTION_BYTES + 1
        jump = _SOCK_FILTER.pack(JA, 0, 0, labels[step.label] - place) if step.label else b""
        encoded += jump or _SOCK_FILTER.pack(step.code, 0, 0, step.k)
    return encoded
