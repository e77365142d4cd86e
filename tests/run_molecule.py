"""Runs the Molecule scenarios and writes what they counted as a JUnit file.

Each part of a scenario's sequence (check mode, converge, idempotence, …) counts as one test, and so does each test
of its verifier.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RECAP = re.compile(r"^\S+\s+: actions=\d+\s+successful=(\d+)\s.*\bfailed=(\d+)", re.MULTILINE)


def play(report: Path) -> tuple[int, str]:
    """The exit code and the output of all scenarios; the verifier's counts are in the report."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "MOLECULE_REPORT": str(report),
        "ANSIBLE_HOME": "/run/doorward-lab/molecule",
        "NO_COLOR": "1",
    }
    command = [str(binaries / "molecule"), "test", "--all"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = []
        for line in process.stdout or ():
            sys.stdout.write(line)
            lines.append(line)
    return process.returncode, "".join(lines)


def main() -> int:
    """The exit code of Molecule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junitxml", type=Path, required=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="doorward-molecule-") as folder:
        verified = Path(folder) / "verified.xml"
        code, output = play(verified)
        root = ET.parse(verified).getroot() if verified.exists() else ET.Element("testsuites")  # noqa: S314  our own file
    for passed, failed in RECAP.findall(output):
        total = str(int(passed) + int(failed))
        ET.SubElement(root, "testsuite", name="molecule", tests=total, failures=failed)
    ET.ElementTree(root).write(chosen.junitxml)
    return code


if __name__ == "__main__":
    sys.exit(main())
