"""Run the archive: `python3 -I doorward.pyz doorwardd …` is the daemon, anything else the client.

The commands that pip and pipx install begin here too: what this Python lacks is one sentence, however it was installed.

`--modules=FOLDER:…` before everything else names folders where cryptography may be; -I sees only Python's own.
Python 3.6 and later can read this file, status_file.py and doorward/__init__.py: a sentence says that they are too old.
"""

import os
import sys

from doorward import status_file

_OLDEST = (3, 10)
_FAST = ("connect", "knock", "learn")  # commands that a person or a program waits for
_MODULES = "--modules="
_CRYPTOGRAPHY = ("cryptography", "_cffi_backend", "cffi")


def main() -> int:
    """Run a command and return the exit code; what this Python lacks is said in one sentence."""
    if sys.argv[1:] and sys.argv[1].startswith(_MODULES):
        folders = sys.argv.pop(1)[len(_MODULES) :].split(os.pathsep)
        sys.path += [folder for folder in folders if os.path.isabs(folder)]  # noqa: PTH117  pathlib is slow to load
    _leave(status_file.KILLED)
    if sys.version_info < _OLDEST:
        return _refuse(_too_old())
    try:
        return _run()
    except Exception as error:
        sentence = _lack(error) if isinstance(error, ImportError) else ""
        if sentence:
            return _refuse(sentence)
        _leave(f"the helper failed, which is a bug: {type(error).__name__}: {error}")
        raise


def doorwardd() -> int:
    """Run the command `doorwardd` of an installed package as the archive does, with the same sentences."""
    sys.argv.insert(1, "doorwardd")
    return main()


def _refuse(sentence: str) -> int:
    _leave(sentence)
    sys.stderr.write("doorward: " + sentence + "\n")
    return 1


def _leave(reason: str) -> None:
    """Say in the status file how `doorward connect` ended."""
    if sys.argv[1:2] == ["connect"]:
        status_file.leave(sys.argv[2:], reason)


def _too_old() -> str:
    found, wanted = (".".join(map(str, version[:2])) for version in (sys.version_info, _OLDEST))
    remedy = "install a newer one (RHEL 9: python3.11 and python3.11-cryptography; Debian: release 12 or later)"
    return f"Python {wanted} or later is needed, and {sys.executable} is Python {found}: {remedy}"


def _lack(error: ImportError) -> str:
    """What an import that failed says of this Python; nothing where the module is ours."""
    name = (error.name or "").partition(".")[0]
    if name in _CRYPTOGRAPHY:
        return f"the Python package cryptography is needed ({error}): install python3-cryptography for {sys.executable}"
    if name in sys.stdlib_module_names:
        return f"{sys.executable} lacks its module {name}: install all of Python (Debian: python3, not python3-minimal)"
    return ""


def _run() -> int:
    """Dispatch on the first argument."""
    archive = globals()["__loader__"]
    if hasattr(archive, "archive"):
        from doorward import compiled  # noqa: PLC0415  an installed package has compiled code

        fast = sys.argv[1:] and sys.argv[1] in _FAST
        compiled.use(archive, compiled.of_the_user(os.environ) if fast else compiled.of_the_host())
    if sys.argv[1:2] == ["doorwardd"]:
        from doorward.daemon import main as daemon_main  # noqa: PLC0415  the client must not load the daemon

        return daemon_main(sys.argv[2:])
    from doorward.console import main as console_main  # noqa: PLC0415  the daemon must not load the client

    return console_main(sys.argv[1:])


def end(code: int) -> None:
    """End; `doorward connect` at once, since ssh waits for it and Python's own tidying up takes 8 ms and more."""
    if sys.argv[1:2] == ["connect"]:
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        except OSError:
            sys.exit(code)  # which says so
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main())
