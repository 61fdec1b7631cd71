"""Reading and changing configs without Python: files, single fields, commented YAML."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InputError
from ..files import read_text
from .identity import completed
from .run import RunConfig

Model = TypeVar("Model", bound=BaseModel)
COMMENT_COLUMN = 40
OUTLINE = reprlib.Repr()  # of a file's content: aliases can make a short file very long
OUTLINE.maxlevel = 1
MERGE = "tag:yaml.org,2002:merge"  # of the key <<, which takes over the fields of another mapping


def load_config(path: str | Path) -> RunConfig:
    """Read a :class:`RunConfig` from a JSON or YAML file; in a run's folder, as the record of that run.

    Raises
    ------
    InputError
        The file is missing, is neither JSON nor YAML, or a field is unknown or out of bounds.
    """
    fields = read_mapping(Path(path))
    try:
        is_record = Path(path).with_name("environment.json").is_file()
        return RunConfig.model_validate(completed(fields) if is_record else fields)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


def read_mapping(path: Path) -> dict:
    """Return the mapping that a YAML or JSON file holds.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, or holds no mapping.
    """
    text = read_text(path)
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: neither JSON nor YAML ({problem}); compare with `mammo config`") from None
    if not isinstance(content, dict):
        held = "is empty" if content is None else f"contains {OUTLINE.repr(content)}, not fields and their values"
        raise InputError(f"{path}: {held}; write FIELD: VALUE, as `mammo config` prints them")
    return content


def as_repeats(configs: Iterable[RunConfig], repeats: int) -> list[RunConfig]:
    """Return the configs as repeated cross-validation over all folds: one repeat per seed, starting from 0.

    The weights of the last epoch are kept, because choosing an epoch would use the held-out breasts.

    >>> [config.seed for config in as_repeats([RunConfig(seed=7)], 2)]
    [0, 1]
    """
    changes = ("seed=0", "data.fold=each", "train.keep=last")
    different = dict.fromkeys(with_changes(config, changes) for config in configs)
    return [with_seed(config, repeat, "--cv") for config in different for repeat in range(repeats)]


def with_seed(config: RunConfig, seed: int, option: str = "--seed") -> RunConfig:
    """Return a config with another seed; an :class:`InputError` names the option where the seed does not fit."""
    try:
        return config.with_seed(seed)
    except ValidationError as error:
        raise InputError(f"{option}: {describe(error)}") from None


def with_changes(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """Return a config with fields changed, each written ``train.epochs=3``; values are YAML.

    >>> with_changes(RunConfig(), ["train.epochs=3", "model.gate=none"]).model.gate.kind
    'none'

    Raises
    ------
    InputError
        A change is not FIELD=VALUE, names an unknown field, or its value is out of bounds.
    """
    fields = config.model_dump()
    for change in changes:
        name, equals, text = change.partition("=")
        if not name or not equals:
            raise InputError(f"--set {change!r}: write FIELD=VALUE, as in train.epochs=3")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, RecursionError, ValueError):
            raise InputError(f"--set {name}: {text!r} is not a valid value; put it into quotes") from None
        fields = merged(fields, _nested(name, value))
    try:
        return type(config).model_validate(fields)
    except ValidationError as error:
        raise InputError(f"--set: {describe(error, type(config))}") from None


def merged(fields: dict, overrides: dict) -> dict:
    """Return fields with overrides, section by section; a union whose kind changes starts from its defaults."""
    joined = dict(fields)
    for name, value in overrides.items():
        old = joined.get(name)
        if isinstance(old, dict) and isinstance(value, str) and old.get("kind") == value:
            continue
        is_section = isinstance(value, dict) and isinstance(old, dict)
        is_other_kind = is_section and "kind" in value and value["kind"] != old.get("kind")
        joined[name] = merged(old, value) if is_section and not is_other_kind else value
    return joined


def as_yaml(model: BaseModel) -> str:
    """Return a config as YAML that can be read back, with the meaning of each field as a comment."""
    return "\n".join(_yaml_lines(model, "")) + "\n"


def describe(error: ValidationError, model: type[BaseModel] = RunConfig) -> str:
    """Turn pydantic's report into one line: field, problem, given value, and the name that was probably meant."""
    known, parts = list(_paths(model)), []
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"] if part not in ("none", "fixed", "random", "learned")]
        field = ".".join(location) or "file"
        is_unknown = item["type"] == "extra_forbidden"
        what = f"unknown key{closest(field, known) or ', remove it'}" if is_unknown else item["msg"]
        # The message of a section names its fields.
        is_of_section = item["type"] == "value_error" and isinstance(item["input"], dict)
        is_silent = is_unknown or is_of_section or item["type"] == "json_invalid"
        value = "" if is_silent else f", got {_short(item['input'])}"
        told = "" if is_of_section and not location else f"{field}: "
        parts.append(f"{told}{' '.join(what.removeprefix('Value error, ').split())}{value}")
    return "; ".join(parts)


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` if a known name is similar, else an empty string."""
    known = list(known)
    leaf = name.rpartition(".")[2]
    found = difflib.get_close_matches(name, known, 1, 0.7) or [one for one in known if one.rpartition(".")[2] == leaf]
    return f"; did you mean {found[0]}?" if found else ""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its surprises: 1e-3 is a number, 010 is ten, yes is a word, repeated keys are an error."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in forms if not tag.endswith((":int", ":bool"))]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor):
        """Return a mapping as it is written, before the mappings of its key ``<<`` are mixed into it.

        Raises
        ------
        yaml.constructor.ConstructorError
            A key occurs twice. The quoted text ``"<<"`` is an ordinary key, another one than ``<<``.
        """
        node, found = super().compose_mapping_node(anchor), []
        for one, _ in node.value:
            is_merge = one.tag == MERGE
            key = is_merge, one.value if is_merge else self.construct_object(one, deep=True)
            if key in found:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key[1]!r} occurs twice", one.start_mark)
            found.append(key)
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _nested(name: str, value: object) -> dict:
    """Return ``{"train": {"epochs": 3}}`` of ``train.epochs``."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _paths(model: type[BaseModel], prefix: str = ""):
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in _models_in(field.annotation):
            yield from _paths(inner, f"{prefix}{name}.")


def _models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in _models_in(part)]


def _yaml_lines(model: BaseModel, indent: str):
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        meaning = f"# {field.description}" if field.description else ""
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:".ljust(COMMENT_COLUMN if meaning else 0) + (f" {meaning}" if meaning else "")
            yield from _yaml_lines(value, indent + "  ")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            text = yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
            text = text.removesuffix("\n...\n").strip()
            yield f"{indent}{name}: {text}".ljust(COMMENT_COLUMN if meaning else 0) + (f" {meaning}" if meaning else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
