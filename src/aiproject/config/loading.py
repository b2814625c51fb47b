"""Reads the settings, and reports all of their errors at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aiproject.codes import Detail
from aiproject.config.settings import Settings
from aiproject.config.sources import config_path, setting_fields
from aiproject.errors import Misconfigured
from aiproject.setting_names import PREFIX, SERVICE_LINK_IN_PORT, is_service_address, unknown_keys, unknown_variables

__all__ = ["load_settings"]

_NAMES: Final = {setting.path: setting.name for setting in setting_fields(Settings)}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (from the command line) take precedence over everything else.

    Raises:
        Misconfigured: with all errors, one per line, none of which contains a value (a value may be a secret).
    """
    path = config_path()
    complaints = list(unknown_variables(os.environ, _NAMES.values()))
    if path and not Path(path).is_file():
        raise _refusal([*complaints, f"AIPROJECT_CONFIG: there is no file {path}"])
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        complaints += [complaint for fault in error.errors(include_url=False) for complaint in _complaints(fault, path)]
        raise _refusal(complaints) from None
    except ValueError as error:  # the file is not TOML
        complaints.append(f"AIPROJECT_CONFIG: {path} cannot be read: {error}")
        raise _refusal(complaints) from None
    if complaints:
        raise _refusal(complaints)
    return settings


def _refusal(complaints: Iterable[str]) -> Misconfigured:
    """Return the error with all complaints. They are in English, like pydantic's own."""
    return Misconfigured(Detail.SETTINGS_REFUSED, complaints="\n".join(complaints))


def _complaints(fault: ErrorDetails, path: str) -> Iterator[str]:
    """Yield the complaints about one fault, without its value."""
    place = tuple(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        keys = {*_NAMES.values(), *(".".join(known) for known in _NAMES)}
        for complaint in unknown_keys(".".join(place), fault["input"], keys):
            yield f"AIPROJECT_CONFIG: {path}: {complaint}"
        return
    # The path of the setting may be followed by the position within its value.
    name = next((_NAMES[place[:end]] for end in range(len(place), 0, -1) if place[:end] in _NAMES), "_".join(place))
    if name == "port" and is_service_address(str(fault["input"])):
        yield SERVICE_LINK_IN_PORT
    else:
        yield f"{PREFIX}{name.upper()}: {message}" if name else message
