"""The command line `doorward`, many times in one process: reads JSON lists of arguments, writes what each printed.

Started by the tests as a program of its own inside a namespace.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from doorward.client import cli


def main() -> int:
    """Run what standard input says, a line a run."""
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(json.loads(line))
        sys.stdout.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
