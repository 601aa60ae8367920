"""Frozen dataclasses to and from TOML: a configuration is a typed value, parsed once.

Each part's own spec stands beside the part; this module knows only how to read, check, change and write one.
"""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from renorm.errors import RecipeError

__all__ = [
    "from_mapping",
    "from_toml",
    "load_toml",
    "override",
    "parse_toml",
    "read_text",
    "require",
    "require_literals",
    "to_json",
    "to_mapping",
    "to_toml",
]

T = TypeVar("T")


def require(condition: bool, rule: str, value: object) -> None:
    """Raise ``ValueError(rule, got value)`` unless ``condition`` holds; specs call it in ``__post_init__``.

    Example:
        >>> require(0 > 1, "steps must be >= 1 (there is nothing to fit)", 0)
        Traceback (most recent call last):
        ValueError: steps must be >= 1 (there is nothing to fit), got 0
    """
    if not condition:
        raise ValueError(f"{rule}, got {value!r}")


def require_literals(spec: Any) -> None:
    """Raise ``ValueError`` unless every ``Literal`` field of ``spec`` has one of its values.

    Recipes are checked as they are read; this is for specs made in Python.
    """
    for name, hint in typing.get_type_hints(type(spec)).items():
        allowed = typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            require(getattr(spec, name) in allowed, f"{name} must be one of {allowed}", getattr(spec, name))


def from_mapping(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build the frozen dataclass ``cls`` from nested tables; every key and type is checked.

    Args:
        cls: A dataclass whose fields are scalars, ``Literal``, ``tuple[..., ...]``, optional, or dataclasses.
        mapping: Nested tables, as ``tomllib`` returns them.
        where: Dotted path of this table, for messages.

    Raises:
        RecipeError: On an unknown key (with the nearest known one), a wrong type or a value out of range.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Spec:
        ...     steps: int = 10
        >>> from_mapping(Spec, {"steps": 20})
        Spec(steps=20)
        >>> from_mapping(Spec, {"stepz": 20})
        Traceback (most recent call last):
        renorm.errors.RecipeError: unknown key 'stepz'; did you mean 'steps'?
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else key
        if key not in known:
            raise RecipeError(_unknown(path, key, known, where))
        values[key] = _convert(hints[key], value, path)
    try:
        return cls(**values)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"[{where}] {error}" if where else str(error)) from None


def to_mapping(spec: Any) -> dict[str, Any]:
    """Nested tables of a spec, ready for TOML or JSON: tuples become lists and ``None`` is left out."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if dataclasses.is_dataclass(value):
            table[field.name] = to_mapping(value)
        elif isinstance(value, tuple):
            table[field.name] = [to_mapping(part) if dataclasses.is_dataclass(part) else part for part in value]
        elif value is not None:
            table[field.name] = value
    return table


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Valid JSON: a number that is not finite, which JSON has no word for, becomes ``null``.

    Example:
        >>> to_json({"power": [1.0, float("nan")], "bound": (float("inf"), 2)})
        '{"power": [1.0, null], "bound": [null, 2]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_toml(spec: Any) -> str:
    """A spec as TOML text; ``from_toml(type(spec), to_toml(spec)) == spec``."""
    import tomli_w

    return tomli_w.dumps(to_mapping(spec))


def from_toml(cls: type[T], text: str, *, source: str = "recipe") -> T:
    """A spec from TOML text; ``source`` names the file in messages."""
    table = parse_toml(text, source=source)
    try:
        return from_mapping(cls, table)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """TOML text as nested tables; ``source`` names the file in messages."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is no valid TOML: {error}") from None


def override(spec: T, changes: Mapping[str, Any]) -> T:
    """A copy of ``spec`` with dotted keys changed: ``override(recipe, {"fit.steps": 100})``.

    Strings are parsed as TOML values first, so that the command line can pass what was typed.
    """
    table = to_mapping(spec)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        inner: Any = table
        kind: Any = type(spec)
        for depth, parent in enumerate(parents):
            here = ".".join(parents[:depth])
            kind, inner = _step_into(kind, inner, parent, here)
        parsed = _parse(value) if isinstance(value, str) else value
        if isinstance(inner, list):
            inner[_place(last, inner, dotted)] = parsed
        else:
            inner[last] = parsed
    return from_mapping(type(spec), table)


def _step_into(kind: Any, inner: Any, parent: str, here: str) -> tuple[Any, Any]:
    """The type and the value one step along a dotted key: a table of a table, or an entry of a list of tables."""
    path = f"{here}.{parent}" if here else parent
    if isinstance(inner, list):
        place = _place(parent, inner, path)
        if not isinstance(inner[place], dict):
            raise RecipeError(f"{path} is a single value, it has no keys")
        return typing.get_args(kind)[0], inner[place]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = _of_kind(list(typing.get_args(kind)), inner, here)
    known = {f.name for f in dataclasses.fields(kind)}
    if parent not in known or not isinstance(inner.get(parent), dict | list):
        raise RecipeError(_unknown(path, parent, sorted(known), here))
    return typing.get_type_hints(kind)[parent], inner[parent]


def _place(text: str, entries: list[Any], path: str) -> int:
    """An index into a list, from a dotted key."""
    if not (text.isdecimal() and int(text) < len(entries)):
        raise RecipeError(f"{path}: a place in this list is 0 ... {len(entries) - 1}, got '{text}'")
    return int(text)


def load_toml(cls: type[T], path: Path) -> T:
    """A spec from a TOML file."""
    return from_toml(cls, read_text(path), source=str(path))


def read_text(path: Path) -> str:
    """The text of a TOML file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is no text file; a recipe is a TOML file") from None


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _unknown(path: str, key: str, known: list[str], where: str) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known {'in ' + where if where else 'here'}: {', '.join(known)}"
    return f"unknown key '{path}'; {hint}"


def _of_kind(options: list[Any], value: Any, path: str) -> Any:
    """The dataclass that a table asks for by its key ``kind``; the first one if it names none."""
    kinds = {next(f.default for f in dataclasses.fields(option) if f.name == "kind"): option for option in options}
    asked = value.get("kind", next(iter(kinds))) if isinstance(value, Mapping) else next(iter(kinds))
    if not isinstance(asked, str) or asked not in kinds:
        raise RecipeError(f"{path}.kind must be one of {', '.join(map(repr, kinds))}, got {asked!r}")
    return kinds[asked]


def _convert(kind: Any, value: Any, path: str) -> Any:
    """``value`` as the annotated type ``kind``, or a RecipeError that names ``path``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args):
            raise RecipeError(f"{path} must be one of {', '.join(map(repr, args))}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        options = [a for a in args if a is not type(None)]
        if value is None:
            return None
        if len(options) > 1 and all(dataclasses.is_dataclass(option) for option in options):
            return _convert(_of_kind(options, value, path), value, path)
        for option in options[:-1]:
            try:
                return _convert(option, value, path)
            except RecipeError:
                continue
        return _convert(options[-1], value, path)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path} must be a table, got {value!r}")
        return from_mapping(kind, value, where=path)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{path} must be a list, got {value!r}")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise RecipeError(f"{path} must have {len(args)} entries, got {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise RecipeError(f"{path} must be of type {kind.__name__}, got {value!r}")
    if kind is float and value != value:
        raise RecipeError(f"{path} must be a number, got nan")
    return value
