from __future__ import annotations

import os
import subprocess
import sys

CHILD = """
import os, sys
from doorward.daemon.detach import Screen
screen = Screen(foreground=True)
if not os.fork():
    screen.enter()
    os.write(1, b"\\x1b]0;title\\x07caf\\xc3\\xa9\\xff\\tend\\n")
    os.write(2, os.read(0, 10) + b"no line's end")
    os._exit(0)
screen.show()
os.wait()
screen.close(5)
"""


def test_a_terminal_gets_no_control_character_of_a_child_that_writes_to_it_through_a_pipe() -> None:
    ours, theirs = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", CHILD], check=True, stdin=theirs, stdout=theirs, stderr=theirs)
        assert os.read(ours, 1000).decode() == "?]0;title?caf\u00e9\ufffd\tend\r\nno line's end"
    finally:
        os.close(theirs)
        os.close(ours)
