"""The sources of settings: arguments, variables and the settings file.

A grouped setting has a flat name, ``spark_url``, and a path, ``iflytek.spark.url``. Arguments and variables use the
flat name; the file may use either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, TomlConfigSettingsSource

from aiproject.config.iflytek import SettingGroup
from aiproject.setting_names import PREFIX

__all__ = [
    "GroupedSource",
    "SettingField",
    "TomlSource",
    "VariablesSource",
    "config_path",
    "setting_fields",
]

TomlSource = TomlConfigSettingsSource


class SettingField(NamedTuple):
    """One setting.

    Attributes:
        name: the flat name in lower case: the variable without ``AIPROJECT_``.
        path: the names of its groups and its own, as in the settings file.
        field: its declaration.
    """

    name: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def key(self) -> str:
        """The key in the settings file, with a dot after each table."""
        return ".".join(self.path)


def setting_fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[SettingField]:
    """Yield the settings of a model, including those of its groups, in the order of their declaration."""
    prefix = model.variable_prefix if issubclass(model, SettingGroup) else ""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, SettingGroup):
            yield from setting_fields(inner, (*path, name))
        else:
            yield SettingField(prefix + name, (*path, name), field)


def config_path() -> str:
    """Return the value of ``AIPROJECT_CONFIG``, whose name is case-insensitive like all variables; empty: no file."""
    return next((value for name, value in os.environ.items() if name.upper() == f"{PREFIX}CONFIG" and value), "")


def _put(values: dict[str, Any], path: tuple[str, ...], value: object, flat_name: str) -> None:
    for name in path[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the type of the group refuses it
        values = inner
    if path[-1] in values:
        raise ValueError(f"{flat_name} and {'.'.join(path)} are the same setting; remove one of the two")
    values[path[-1]] = value


class GroupedSource(PydanticBaseSettingsSource):
    """Wraps another source and moves the flat names of grouped settings to their groups.

    Raises:
        ValueError: on calling: a setting is given under both of its names.
    """

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        given = self._source()
        values: dict[str, Any] = {name: _copy(value) for name, value in given.items()}
        for setting in setting_fields(self.settings_cls):
            if len(setting.path) > 1 and setting.name in values:
                _put(values, setting.path, values.pop(setting.name), setting.name)
        return values


def _copy(value: Any) -> Any:
    return {name: _copy(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


class VariablesSource(EnvSettingsSource):
    """The environment: every setting by its flat name."""

    def __call__(self) -> dict[str, Any]:
        fields = list(setting_fields(self.settings_cls))
        # A group has no variable of its own: such a name is misspelt, and `load_settings` reports it.
        groups = {setting.path[0] for setting in fields if len(setting.path) > 1}
        values = {name: value for name, value in super().__call__().items() if name not in groups}
        for setting in fields:
            value = self.env_vars.get(f"{PREFIX}{setting.name}".lower()) if len(setting.path) > 1 else None
            if value is not None:
                _put(values, setting.path, value, setting.name)
        return values
