"""Reading the YAML files of ``params/``: each key once, and errors that name the nearest right name."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lmolt_utils.errors import CompanionError

T = TypeVar("T")


class ParameterError(CompanionError):
    """A parameter, a system or a switch that is unknown, missing or of the wrong type."""


class Strict(BaseModel):
    """What a YAML file of ``params/`` holds: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'X'?`` for the closest known name; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def explain(error: ValidationError, model: type[BaseModel], what: str) -> str:
    """Pydantic's problems with a ``model``, one a line; ``what``: what the model's fields are to the user."""
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name in model.model_fields and (meaning := model.model_fields[name].description):
            message += f" ({meaning})"
        if problem["type"] == "extra_forbidden":
            message = f"unknown {what} {name!r}{nearest(name, model.model_fields)}"
        elif problem["type"] == "value_error":
            message = f"{what} {name!r}: {message}" if name else message
        elif problem["type"] == "missing":
            message = f"{what} {name!r} has no value: {message}"
        else:
            message = f"{what} {name!r} = {problem['input']!r:.200}: {message}"
        lines.append(message)
    return "\n".join(lines)


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML's safe loader silently keeps the last of two equal keys; this one refuses them, and aliases: nine lines of
    them may stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name) is not read: write its value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path) -> Any:
    """Safe-loaded YAML; raises :class:`ParameterError` with the line when it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)  # noqa: S506 (it is a SafeLoader)
    # PyYAML raises others too, as for `!!int ""` and thousands of brackets.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ParameterError(f"{path} is not readable YAML: {error!s:.300}") from None


def read_as(path: Path, kind: type[T]) -> T:
    """The YAML file as ``kind``; raises :class:`ParameterError` with the first places where it is none."""
    try:
        return TypeAdapter(kind).validate_python(read_yaml(path))
    except ValidationError as error:
        problems = [(".".join(map(str, one["loc"])), one["input"], one["msg"]) for one in error.errors()[:3]]
        told = "; ".join(f"{where or 'the file'} = {value!r:.60}: {text:.200}" for where, value, text in problems)
        raise ParameterError(f"{path}: {told}") from None
