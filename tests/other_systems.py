"""Python as another system has it, as far as that can be here: without the names and modules that only Linux has.

    python tests/other_systems.py darwin pytest tests/unit/client
    python tests/other_systems.py win32 doorward keys generate

The names come from mypy's typeshed, which says for every system what the standard library has there. They are taken
out of the modules before anything of ours is loaded. What stays Linux's: the kernel's answers, its errors, its paths,
`os.name` and `sys.platform`, on which the standard library depends, and scapy, which has code for each system.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES: Final = ("os", "_socket", "socket", "select", "errno", "fcntl", "resource", "signal", "time", "mmap")
# Whole modules that a system lacks; on Windows an import of them fails.
LACKING: Final = {"darwin": ("spwd",), "win32": ("fcntl", "grp", "pwd", "pty", "resource", "spwd", "termios", "tty")}
# Python itself cannot start programs, or make temporary files, without these.
_NEEDED: Final = {"waitstatus_to_exitcode", "WNOHANG", "waitpid", "WIFSIGNALED", "WTERMSIG", "WIFEXITED", "WEXITSTATUS"}


def lost(system: str) -> dict[str, set[str]]:
    """The names of each module that Linux has and another system has not."""
    return {name: _names(name, "linux") - _names(name, system) - _NEEDED for name in MODULES}


def take_out(system: str) -> int:
    """Take them out of the modules; return their number."""
    count = 0
    for name, gone in lost(system).items():
        module = importlib.import_module(name)
        for each in gone & set(vars(module)):
            delattr(module, each)
            count += 1
    for name in LACKING[system]:
        sys.modules[name] = None  # type: ignore[assignment] # an import fails then
    return count


def _names(module: str, system: str) -> set[str]:
    stubs = importlib.util.find_spec("mypy")
    assert stubs is not None
    assert stubs.origin is not None
    folder = Path(stubs.origin).parent / "typeshed/stdlib"
    file = folder / module / "__init__.pyi" if (folder / module).is_dir() else folder / f"{module}.pyi"
    return set(_defined(ast.parse(file.read_text("utf-8")).body, system))


def _defined(body: list[ast.stmt], system: str) -> Iterator[str]:
    for one in body:
        match one:
            case ast.If(test=test, body=then, orelse=otherwise):
                yield from _defined(then if _holds(test, system) else otherwise, system)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.ImportFrom(names=names):
                yield from (each.asname or each.name for each in names)


def _holds(test: ast.expr, system: str) -> bool:
    told = SimpleNamespace(platform=system, version_info=sys.version_info)
    expression = compile(ast.Expression(test), "typeshed", "eval")
    return bool(eval(expression, {"sys": told, "TYPE_CHECKING": True}))  # noqa: S307  typeshed's own conditions


def main() -> None:
    """Run a module in such a Python."""
    _, system, module, *words = sys.argv
    if module == "pytest":
        importlib.import_module("scapy.all")
        vars(tempfile)["_O_TMPFILE_WORKS"] = False  # it has looked already
    count = take_out(system)
    sys.stderr.write(f"{count} names of Linux are not there\n")
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
