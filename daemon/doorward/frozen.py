"""`dataclass(frozen=True, slots=True)` for values, in a fifth of the time and without loading `dataclasses`.

`doorward connect` runs before every ssh, and a third of its time went into `dataclasses`: that loads `inspect`, `ast`
and `tokenize`, and writes ten methods a class. Each process of the daemon has a hundred such classes. `fields()` and
`replace()` of `dataclasses` work on them too.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  for whoever imports it from here
else:

    def dataclass(*, frozen: bool, slots: bool, order: bool = False) -> Callable[[type], type]:
        """Make a class with annotated fields a frozen value; `order` compares by the fields in turn."""
        if not (frozen and slots):
            msg = "these values are frozen and have slots"
            raise TypeError(msg)
        return lambda bare: _made(bare, order=order)


def _made(bare: type, *, order: bool) -> type:
    names = tuple(name for name, kind in bare.__annotations__.items() if not str(kind).startswith("ClassVar"))
    own = {name: value for name, value in vars(bare).items() if name not in {"__dict__", "__weakref__"}}
    defaults = {name: own.pop(name) for name in names if name in own}
    made = {
        "__slots__": names,
        "__qualname__": bare.__qualname__,
        "__match_args__": names,
        "__init__": _initializer(names, defaults, checked="__post_init__" in own),
        "__repr__": _repr,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__dataclass_fields__": _Fields(defaults),
    }
    return type(bare)(bare.__name__, bare.__bases__, {**made, **_comparisons(names, order=order), **own})


def _initializer(names: tuple[str, ...], defaults: dict[str, Any], *, checked: bool) -> Callable[..., None]:
    """The constructor, written as text as `dataclasses` does it: one with *args would take twice as long."""
    words = ", ".join(f"{name}=_defaults[{name!r}]" if name in defaults else name for name in names)
    lines = [f"_set(self, {name!r}, {name})" for name in names] + ["self.__post_init__()"] * checked or ["pass"]
    scope: dict[str, Any] = {"_set": object.__setattr__, "_defaults": defaults}
    exec(f"def __init__(self, {words}):\n " + "\n ".join(lines), scope)  # noqa: S102  the names of our own fields
    made: Callable[..., None] = scope["__init__"]
    return made


def _comparisons(names: tuple[str, ...], *, order: bool) -> dict[str, Any]:
    get: Callable[[Any], Any] = operator.attrgetter(*names) if names else lambda _one: ()

    def by(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda one, other: test(get(one), get(other)) if one.__class__ is other.__class__ else NotImplemented

    tests = ("eq", "lt", "le", "gt", "ge") if order else ("eq",)
    return {"__hash__": lambda one: hash(get(one)), **{f"__{test}__": by(getattr(operator, test)) for test in tests}}


def _repr(one: Any) -> str:  # noqa: ANN401  any of these values
    shown = ", ".join(f"{name}={getattr(one, name)!r}" for name in one.__slots__)
    return f"{one.__class__.__qualname__}({shown})"


def _refuse(one: object, name: str, *_value: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415  only where a mistake is made

    msg = f"{one.__class__.__qualname__} is frozen: {name} cannot be changed"
    raise FrozenInstanceError(msg)


class _Fields:
    """The fields of a class in the form of `dataclasses`, made when that asks for them for the first time."""

    __slots__ = ("_defaults",)

    def __init__(self, defaults: dict[str, Any]) -> None:
        """Keep the default values."""
        self._defaults = defaults

    def __get__(self, _one: object, owner: type) -> dict[str, Any]:
        """The fields by name."""
        from dataclasses import field, make_dataclass  # noqa: PLC0415  `doorward connect` never asks

        kinds = {name: owner.__annotations__[name] for name in owner.__slots__}  # type: ignore[attr-defined]
        pairs = [
            (name, kind, field(default=self._defaults[name])) if name in self._defaults else (name, kind)
            for name, kind in kinds.items()
        ]
        known: dict[str, Any] = vars(make_dataclass(owner.__name__, pairs))["__dataclass_fields__"]
        owner.__dataclass_fields__ = known  # type: ignore[attr-defined] # in the place of this object
        return known
