"""Run the archive: `python3 -I doorward.pyz doorwardd …` is the daemon, anything else the client."""

import sys


def main() -> int:
    """Dispatch on the first argument and return the exit code."""
    if sys.argv[1:2] == ["doorwardd"]:
        from doorward.daemon import main as daemon_main  # noqa: PLC0415  the client must not load the daemon

        return daemon_main(sys.argv[2:])
    from doorward.client.cli import main as client_main  # noqa: PLC0415  the daemon must not load the client

    return client_main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
