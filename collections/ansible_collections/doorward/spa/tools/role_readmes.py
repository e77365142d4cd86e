"""Write each role's README.md from its argument_specs: `python tools/role_readmes.py [--check]`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
_MARKUP = (
    (re.compile(r"\bP\(([\w.]+)#\w+\)"), r"`\1`"),
    (re.compile(r"\bO\([\w.]+#role:\w+:(\w+)\)"), r"`\1`"),
    (re.compile(r"\b[CVOM]\(([^)]*)\)"), r"`\1`"),
)


def readme(role: Path) -> str:
    """Return the README of a role."""
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
    parts = [f"# doorward.spa.{role.name}", f"{spec['short_description']}.", *_paragraphs(spec["description"])]
    parts += ["## Variables", *(_variable(name, option, "-") for name, option in spec["options"].items())]
    parts.append("*Made from meta/argument_specs.yml by tools/role_readmes.py.*")
    return _formatted("\n\n".join(parts) + "\n")


def main(arguments: list[str]) -> int:
    """Write the files, or with --check only say which are out of date."""
    stale = 0
    for role in sorted(ROLES.iterdir()):
        file, text = role / "README.md", readme(role)
        current = file.read_text(encoding="utf-8") if file.exists() else ""
        if current != text and "--check" in arguments:
            sys.stderr.write(f"{file} is out of date\n")
            stale = 1
        elif current != text:
            file.write_text(text, encoding="utf-8")
    return stale


def _formatted(text: str) -> str:
    """Return the text in the form of every Markdown file of the repository (.mdformat.toml)."""
    command = [Path(sys.executable).parent / "mdformat", "-"]
    done = subprocess.run(command, cwd=ROLES, input=text, check=True, capture_output=True, text=True)  # noqa: S603  ours
    return done.stdout


def _variable(name: str, option: dict[str, Any], bullet: str) -> str:
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    facts = [kind, "required" if option.get("required") else f"default `{_shown(option.get('default'))}`"]
    if "choices" in option:
        facts.append("one of " + ", ".join(f"`{choice}`" for choice in option["choices"]))
    lines = [f"{bullet} `{name}` ({'; '.join(facts)}): {' '.join(_paragraphs(option['description']))}"]
    nested = option.get("options", {})
    return "\n".join(lines + [_variable(inner, nested[inner], "  -") for inner in nested])


def _paragraphs(text: str | list[str]) -> list[str]:
    paragraphs = [text] if isinstance(text, str) else text
    for pattern, replacement in _MARKUP:
        paragraphs = [pattern.sub(replacement, paragraph.strip()) for paragraph in paragraphs]
    return paragraphs


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else str(default) or "empty"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
