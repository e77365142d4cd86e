"""The programs that tests, lab, bench and the package run on this machine, and the Debian package of each.

tests/repository/test_programs.py compares ``PACKAGES`` with the sources (``called``) and with .ci/bootstrap; at run
time ``require`` makes a missing program an error with the name of its package.
"""

from __future__ import annotations

import ast
import re
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = {
    "aa-exec": "apparmor",
    "apparmor_parser": "apparmor",
    "apt-config": "apt",
    "apt-get": "apt",
    "bash": "bash",
    "cat": "coreutils",
    "cp": "coreutils",
    "chmod": "coreutils",
    "chroot": "coreutils",
    "conntrack": "conntrack",
    "dpkg": "dpkg",
    "dpkg-buildpackage": "dpkg-dev",
    "dpkg-deb": "dpkg",
    "env": "coreutils",
    "fail2ban-regex": "fail2ban",
    "fish": "fish",
    "flock": "util-linux",
    "fwknop": "fwknop-client",
    "fwknopd": "fwknop-server",
    "git": "git",
    "gpg": "gnupg",
    "gpgconf": "gpgconf",
    "head": "coreutils",
    "id": "coreutils",
    "ip": "iproute2",
    "ipset": "ipset",
    "iptables": "iptables",
    "iptables-nft": "iptables",
    "iptables-restore": "iptables",
    "knock": "knockd",
    "lintian": "lintian",
    "ls": "coreutils",
    "man": "man-db",
    "mandoc": "mandoc",
    "make": "make",
    "mkdir": "coreutils",
    "mktemp": "coreutils",
    "mosh": "mosh",
    "mv": "coreutils",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nc": "netcat-openbsd",
    "nft": "nftables",
    "nice": "coreutils",
    "nmap": "nmap",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "perl": "perl",
    "ping": "iputils-ping",
    "pipx": "pipx",
    "pivot_root": "util-linux",
    "podman": "podman",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "rm": "coreutils",
    "rsync": "rsync",
    "runc": "runc",
    "scp": "openssh-client",
    "script": "bsdutils",
    "semodule_expand": "semodule-utils",
    "semodule_link": "semodule-utils",
    "sesearch": "setools",
    "sed": "sed",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "sftp": "openssh-client",
    "sh": "dash",
    "sleep": "coreutils",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "stat": "coreutils",
    "strace": "strace",
    "sudo": "sudo",
    "sysctl": "procps",
    "tcpdump": "tcpdump",
    "touch": "coreutils",
    "true": "coreutils",
    "ufw": "ufw",
    "umount": "mount",
    "unshare": "util-linux",
    "wget": "wget",
    "zsh": "zsh",
}
# Of the virtual environment, or the sources' own.
OURS: Final = frozenset({"ansible", "ansible-galaxy", "ansible-playbook", "doorward", "doorwardd", "python3"})
# Only inside the lab's hosts, whose images have systemd.
OF_HOSTS: Final = frozenset(
    {"chown", "chpasswd", "cut", "df", "du", "expr", "find", "grep", "install", "journalctl", "ln", "rmdir", "seq"}
    | {"sha256sum", "sort", "systemctl", "systemd-analyze", "systemd-run", "tail", "tr", "useradd"}
)
# First words of other lists: commands of doorward and podman, and data.
NO_PROGRAMS: Final = frozenset(
    {"check", "close", "connect", "exec", "explain", "firewall", "import", "inspect", "keys", "knock", "open", "run"}
    | {"ssh-config", "ssh_config", "start", "status", "stop"}
    | {"add", "controller", "delete", "doorward.spa.rollout", "ec2", "table", "tcp", "toor", "udp", "x"}
)
# What our programs run in turn.
INDIRECT: Final = {
    "runc": "podman's runtime in the lab",
    "strace": "the shell command of tests/system/as_units.py",
    "fish": "tests/package/test_completion.py, for each shell that we complete in",
    "ufw": "a shell command of tests/system/other_firewalls.py",
    "wget": "fwknop and doorward ask a web site with it",
    "zsh": "as fish",
}
_WRAPPERS: Final = frozenset({"env", "flock", "nice", "nsenter", "setpriv", "setsid", "unshare"})
_NETNS: Final = ("ip", "netns", "exec")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MissingProgramError(Exception):
    """A program is not installed; the text says which one, and its package."""


@cache
def require(program: str) -> None:
    """Make sure that a program is there.

    Raises:
        MissingProgramError: it is not.
    """
    if shutil.which(program) is None and shutil.which(program, path=_PATH) is None:
        package = PACKAGES.get(Path(program).name)
        remedy = f"apt-get install {package}, or make system" if package else "tests/programs.py does not know it"
        text = f"{program} is not installed: {remedy}"
        raise MissingProgramError(text)


def require_all(command: Sequence[str]) -> None:
    """Make sure that the program of a command line is there, and the one that it runs in a namespace.

    Raises:
        MissingProgramError: one is not.
    """
    require(command[0])
    if tuple(command[:3]) == _NETNS and len(command) > len(_NETNS) + 1:
        require_all(command[4:])


# --- the programs that sources run ------------------------------------------------------------------------------------

_RUNNERS: Final = frozenset(
    {"attempt", "call", "check_call", "check_output", "command", "console", "execv", "execvp", "Popen", "popen"}
    | {"process", "run", "_run", "started"}
)
_WORD: Final = re.compile(r"(?:/[a-z]+)*/?[a-z][A-Za-z0-9_.+-]*")
_OPAQUE: Final = re.compile(r"""'[^']*'|"(?:(?!\$\()[^"])*"|\$\{[^}]*\}|@[A-Z]+@""")
_SPLIT: Final = re.compile(r"\n|;|&&|\|\|?|\$\(|`|[(){}]|\b(?:do|then|else|if|while|exec)\s|!\s")
_ASSIGNED: Final = re.compile(r"(?:[A-Za-z_]\w*=\S*\s+)*")
_SHELL_WORDS: Final = frozenset(
    {"case", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in", "then", "until", "while"}
    | {"cd", "command", "echo", "exec", "exit", "export", "false", "kill", "printf", "read", "return", "set", "shift"}
    | {"test", "trap", "true", "umask", "unset", "wait"}
)


def called(source: str) -> Iterator[tuple[int, str]]:
    """The programs that a Python source runs, each with its line.

    A program is the first word of an argument list: of a call that runs something, of a list or tuple that has options
    too, behind a program that runs another one, and of the commands of a shell script.
    """
    tree = ast.parse(source)
    constants = dict(_constants(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            listed = node.args[0] if node.args else None
            words = listed.elts if isinstance(listed, (ast.List, ast.Tuple)) else node.args
            runs = _name(node.func) in _RUNNERS
        elif isinstance(node, (ast.List, ast.Tuple)):
            words, runs = node.elts, _has_options(node.elts)
        else:
            continue
        yield from _in_words(words if runs else [], constants)
        yield from _in_scripts([_text(word, constants) or "" for word in words], node.lineno)


def _in_scripts(words: Sequence[str], line: int) -> Iterator[tuple[int, str]]:
    for shell, option, script in zip(words, words[1:], words[2:], strict=False):
        if shell.rpartition("/")[2] in {"sh", "bash"} and re.fullmatch(r"-[eu]*c", option):
            yield from ((line, word) for _, word in called_by_shell(script))


def called_by_shell(script: str) -> Iterator[tuple[int, str]]:
    """The programs that a shell script runs, each with its line."""
    functions = set(re.findall(r"^\s*(\w+)\(\)", script, re.MULTILINE))
    for number, line in enumerate(script.replace("\\\n", " ").splitlines(), 1):
        text = _OPAQUE.sub("X", line.partition(" # ")[0])
        if text.lstrip().startswith("#"):
            continue
        for part in _SPLIT.split(text):
            command = _ASSIGNED.sub("", part.lstrip(' "'), count=1)
            found = _WORD.match(command)
            word = found[0] if found else ""
            if word and word not in _SHELL_WORDS | functions and not re.match(r"\w+[=)]", command):
                yield number, word


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from ((_name(target), node.value.value) for target in node.targets)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, {}) or "@X@" for value in node.values)
    return constants.get(_name(node))


def _has_options(words: Sequence[ast.expr]) -> bool:
    return any(isinstance(word, ast.Starred) or (_text(word, {}) or "").startswith("-") for word in words[1:])


def _in_words(nodes: Sequence[ast.expr], constants: dict[str, str]) -> Iterator[tuple[int, str]]:
    words = [_text(node, constants) for node in nodes]
    first = words[0] if words else None
    if first is None or not _WORD.fullmatch(first):
        return
    yield nodes[0].lineno, first
    rest = 4 if tuple(words[:3]) == _NETNS else _behind(words) if first in _WRAPPERS else len(words)
    if rest < len(words):
        yield from _in_words(nodes[rest:], constants)


def _behind(words: Sequence[str | None]) -> int:
    """Where the program begins that a wrapper runs: behind ``--``, or at the first word that is no option's."""
    if "--" in words:
        return words.index("--") + 1
    for place, word in enumerate(words[1:], 1):
        if word is not None and word in PACKAGES:
            return place
    return len(words)
