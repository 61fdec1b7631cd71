"""What the paper leaves open: statements that have two readings, and settings whose values it does not give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic.fields import FieldInfo

from .profiles import Profile
from .run import DataConfig, LearnedGate, ModelConfig, TrainConfig

SECTIONS = {"data": DataConfig, "model": ModelConfig, "model.gate": LearnedGate, "train": TrainConfig}
TWO_READINGS = ("model.mixer", "model.fusion", "model.freeze", "model.gate.scope", "model.gate.binary")
NOT_STATED = ("our assumption", "not stated")  # words by which a field's description says so


def two_readings() -> list[dict[str, str]]:
    """Return ``setting``, ``what it decides``, ``default`` and ``alternatives`` of each statement with two readings."""
    fields = dict(_fields())
    return [
        {
            "setting": name,
            "what it decides": fields[name].description,
            "default": fields[name].default,
            "alternatives": ", ".join(str(one) for one in _values(fields[name]) if one != fields[name].default),
        }
        for name in TWO_READINGS
    ]


def not_stated(profiles: Sequence[Profile] = ()) -> list[dict[str, str]]:
    """Return ``setting``, ``meaning`` and ``default`` of each assumption of ours, and its value in each profile."""
    return [
        {"setting": name, "meaning": field.description, "default": str(field.default)}
        | {profile.name: _value(profile, name) for profile in profiles}
        for name, field in _fields()
        if any(words in (field.description or "") for words in NOT_STATED)
    ]


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    for section, config in SECTIONS.items():
        for name, field in config.model_fields.items():
            yield f"{section}.{name}", field


def _values(field: FieldInfo) -> tuple:
    return (False, True) if field.annotation is bool else get_args(field.annotation)


def _value(profile: Profile, setting: str) -> str:
    """A setting's value in a profile; a dash where the profile has no learned gate."""
    value: object = profile.run
    for name in setting.split("."):
        value = getattr(value, name, "–")
    return str(value)
