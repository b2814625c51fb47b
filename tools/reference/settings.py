"""The page of all settings, from the model `aiproject.config.settings.Settings`."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from aiproject.config.settings import Settings
from aiproject.config.sources import SettingField, setting_fields
from aiproject.config.types import Unit
from aiproject.setting_names import PREFIX
from tools.reference.catalogue import Translate, paragraphs

__all__ = ["SECTIONS", "settings_page"]

INTRODUCTION: Final = """\
Settings are read from the environment, or from a TOML file that the variable `AIPROJECT_CONFIG` names; the
environment takes precedence. The case of a variable's name does not matter, and an empty variable counts as not set.
Commands and server share the settings, so give them the same environment.

All errors in settings are reported at once, and with any error no command starts (exit status 78). A variable
`AIPROJECT_…`, or a key of the file, that is not on this page is such an error, so that a misspelt name does not leave
the default in force; the message names the setting that was probably meant. Before going back to an older release,
remove the settings that only the newer one has.

On Kubernetes, a Service named `aiproject` creates a variable `AIPROJECT_PORT` with its address in every pod: set
`enableServiceLinks: false` in the pod's spec, or give `AIPROJECT_PORT` a number there. The other variables that
Kubernetes creates for Services (`…_SERVICE_HOST` and so on) are ignored.

Host and port in the addresses of the platform may be any, `ws://` and `http://` included, which is how tests point
the server at a substitute. A secret is never shown in a log line, an error message or the output of a command.
"""

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = types.MappingProxyType(
    {
        "Server": ("host", "port", "workers", "data_dir", "shutdown_grace", "log_level", "log_format"),
        "Database": ("database_url", "hold_lease"),
        "iFlytek platform": (
            "iflytek_app_id",
            "iflytek_api_key",
            "iflytek_api_secret",
            "upstream_timeout",
            "upstream_connect_timeout",
            "upstream_first_frame_timeout",
            "upstream_call_timeout",
            "upstream_attempts",
        ),
        "Text model": (
            "spark_url",
            "spark_domain",
            "spark_max_tokens",
            "spark_temperature",
            "spark_top_k",
            "spark_warm_connections",
            "spark_concurrency",
        ),
        "Dictation and pictures": (
            "dictation_url",
            "dictation_language",
            "dictation_accent",
            "dictation_correction",
            "dictation_pace",
            "dictation_frame_bytes",
            "ocr_url",
            "voice_anonymous",
        ),
        "Accounts and quotas": (
            "registration",
            "signup_tokens",
            "signup_pic_times",
            "signup_voice_seconds",
            "signups_per_address_per_day",
            "client_gone_drain",
            "unpaid_tokens_per_day",
            "quota_wait",
            "time_zone",
        ),
        "Passwords and sessions": (
            "password_min_length",
            "argon2_memory",
            "argon2_passes",
            "argon2_lanes",
            "session_idle",
            "session_lifetime",
            "admin_key_file",
        ),
        "E-mail": ("public_url", "smtp_url", "mail_from"),
        "Browsers and proxies": ("cors_origins", "trusted_proxies"),
        "Rate limits": (
            "limits",
            "address_requests_per_minute",
            "address_concurrent_calls",
            "account_requests_per_minute",
            "account_concurrent_calls",
            "redis_url",
        ),
        "Connections and request bodies": (
            "address_connections",
            "address_concurrent_uploads",
            "max_connections",
            "receive_budget_bytes",
            "body_timeout",
            "reader_timeout",
        ),
        "Sandbox and tests": ("sandbox_speech_model", "fault_point"),
    }
)
"""The settings by subject, in the order of the page. Names are those of the variables, in lower case."""


def settings_page(t: Translate) -> str:
    """Return the page, with a heading for each setting so that it can be linked to."""
    settings = {setting.name: setting for setting in setting_fields(Settings)}
    parts = [f"# {t('Settings')}", *(t(paragraph) for paragraph in paragraphs(INTRODUCTION))]
    for section, names in SECTIONS.items():
        parts.append(f"## {t(section)}")
        for name in names:
            parts += _setting(settings[name], t)
    return "\n\n".join(parts) + "\n"


def _setting(setting: SettingField, t: Translate) -> Iterator[str]:
    facts = {
        "Key in the file": ", ".join(f"`{key}`" for key in dict.fromkeys((setting.key, setting.name))),
        "Type": _type(setting.field, t),
        "Default": _default(setting.field, t),
    }
    if _is_secret(setting.field):
        facts["Secret"] = t("never logged or shown")
    yield f"### `{PREFIX}{setting.name.upper()}`"
    yield t(setting.field.description or "")
    yield "\n".join(f"- {t(name)}{t(': ')}{value}" for name, value in facts.items())


def _types(annotation: Any) -> Iterator[Any]:
    """Yield the types that a setting may have, ``None`` left out and annotations taken off."""
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _types(part)
    elif annotation is not type(None):
        yield annotation


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """Yield what the declaration says beside the type, also within a union such as ``Seconds | None``."""
    pending: list[Any] = [*field.metadata]
    annotations = [field.annotation]
    while annotations:
        annotation = annotations.pop()
        if get_origin(annotation) is Annotated:
            pending += get_args(annotation)[1:]
        annotations += [part for part in get_args(annotation) if get_origin(annotation) is not Literal]
    for item in pending:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in _types(field.annotation)


def _type(field: FieldInfo, t: Translate) -> str:
    kind = next(_types(field.annotation))
    if get_origin(kind) is Literal:
        return t("one of {choices}", choices=t(", ").join(f"`{choice}`" for choice in get_args(kind)))
    if kind is bool:
        return t("`true` or `false`")
    words = {int: "integer", float: "number", Path: "path"}.get(kind, "list" if get_origin(kind) is tuple else "text")
    return t(words) + _unit(field, t) + _bounds(field, t)


def _unit(field: FieldInfo, t: Translate) -> str:
    unit = next((item for item in _metadata(field) if isinstance(item, Unit)), None)
    return t(" ({unit})", unit=t(unit.name)) if unit else ""


def _bounds(field: FieldInfo, t: Translate) -> str:
    words: list[str] = []
    for item in _metadata(field):
        match item:
            case annotated_types.Ge():
                words.append(t("at least {bound}", bound=_number(item.ge)))
            case annotated_types.Gt():
                words.append(t("more than {bound}", bound=_number(item.gt)))
            case annotated_types.Le():
                words.append(t("at most {bound}", bound=_number(item.le)))
            case annotated_types.MultipleOf():
                words.append(t("a multiple of {bound}", bound=_number(item.multiple_of)))
            case annotated_types.MaxLen():
                words.append(t("at most {bound} characters", bound=_number(item.max_length)))
    return "".join(t(", ") + word for word in words)


def _number(value: object) -> str:
    return f"{value:,}"


def _default(field: FieldInfo, t: Translate) -> str:
    match field.default:
        case None:
            word = _word_for_none(field)
            return f"`{word}`" if word else t("not set")
        case "" | () | SecretStr():
            return t("not set")
        case bool():
            return f"`{str(field.default).lower()}`"
        case float():
            return f"`{field.default:g}`"
        case tuple():
            return f"`{','.join(field.default)}`"
        case Path():
            return f"`./{field.default}`"
        case _:
            return f"`{field.default}`"


def _word_for_none(field: FieldInfo) -> str:
    """The word of the description that sets ``None``, as ``unmetered`` does; empty where none does."""
    annotation: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for word in re.findall(r"`(\w+)`", field.description or ""):
        try:
            if adapter.validate_python(word) is None:
                return str(word)
        except ValidationError:
            continue
    return ""
