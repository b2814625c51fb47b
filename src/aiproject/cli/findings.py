"""What an installation exposes to the network and to other users of the machine, for ``aiproject doctor``."""

from __future__ import annotations

import ipaddress
import stat
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH
from aiproject.codes import Param
from aiproject.config.settings import Settings
from aiproject.config.sources import config_path, setting_fields
from aiproject.messages.commands import Line
from aiproject.messages.formatting import Language, format_message

__all__ = ["Finding", "examine_configuration_file", "examine_exposure", "examine_files", "examine_password_length"]


class Finding:
    """One line of the report.

    Args:
        level: ``ok``, ``note`` or ``fix``.
        subject: the subject's name, the same in every language.
        line: the message.
        params: values for the placeholders of ``line``.
    """

    __slots__ = ("_line", "_params", "level", "subject")

    def __init__(self, level: str, subject: str, line: Line, /, **params: Param) -> None:
        self.level = level
        self.subject = subject
        self._line = line
        self._params = params

    def text(self, language: Language) -> str:
        """Return the message in a language."""
        return format_message(self._line, language, **self._params)


def examine_exposure(settings: Settings) -> list[Finding]:
    """Examine what is reachable from the network: nothing, while the server listens only on this machine."""
    if is_loopback(settings.host):
        if settings.limits == "off":
            return [Finding("note", "limits", Line.LIMITS_OFF)]
        return [Finding("ok", "address", Line.LISTENS_HERE, host=settings.host)]
    findings = [_tls(settings)]
    if settings.limits == "off":
        findings.append(Finding("fix", "limits", Line.LIMITS_OFF_FOR_ALL))
    if settings.voice_anonymous:
        findings.append(Finding("fix", "voice", Line.VOICE_ANONYMOUS))
    if settings.credentials is None:
        findings.append(Finding("note", "sandbox", Line.SANDBOX_FOR_STRANGERS))
    if settings.registration == "open":
        findings.append(Finding("note", "registration", Line.REGISTRATION_OPEN))
    if "*" in settings.cors_origins:
        findings.append(Finding("note", "origins", Line.ORIGINS_ANY))
    return findings


def _tls(settings: Settings) -> Finding:
    if not settings.trusted_proxies:
        return Finding(
            "fix",
            "address",
            Line.LISTENS_WITHOUT_PROXY,
            host=settings.host,
        )
    if any(_is_everybody(network) for network in settings.trusted_proxies):
        return Finding("fix", "address", Line.PROXIES_EVERYBODY)
    if settings.public_url is not None and urlsplit(settings.public_url).scheme != "https":
        return Finding("fix", "address", Line.PUBLIC_URL_PLAIN)
    return Finding("ok", "address", Line.LISTENS_BEHIND, host=settings.host, proxies=settings.trusted_proxies)


def _is_everybody(network: str) -> bool:
    try:
        return ipaddress.ip_network(network, strict=False).prefixlen == 0
    except ValueError:
        return network == "*"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``; a host name counts as reachable by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def examine_files(settings: Settings) -> list[Finding]:
    """Examine the permissions of the data directory and of every secret file outside of it."""
    folder = settings.data_dir
    key = settings.admin_key_file
    if not folder.exists():
        findings = [Finding("ok", "data", Line.DATA_NOT_THERE, path=str(folder))]
    else:
        loose = sorted(str(path.relative_to(folder.parent)) for path in (folder, *folder.rglob("*")) if _is_open(path))
        findings = [
            Finding("fix", "data", Line.DATA_OPEN, paths=loose)
            if loose
            else Finding("ok", "data", Line.DATA_PRIVATE, path=str(folder))
        ]
    if key is None and settings.redis_url is not None:
        findings.append(
            Finding(
                "note",
                "admin key",
                Line.ADMIN_KEY_NOT_SHARED,
            )
        )
    if key is not None and key.exists() and _is_open(key):
        findings.append(Finding("fix", "admin key", Line.ADMIN_KEY_OPEN, path=str(key)))
    return findings


def examine_password_length(settings: Settings) -> Finding:
    """Compare the minimum password length with that of ASVS 5.0, section 6.2.1."""
    shortest = settings.password_min_length
    if shortest < MIN_PASSWORD_LENGTH:
        return Finding(
            "note",
            "password length",
            Line.PASSWORDS_SHORT,
            shortest=shortest,
            wanted=MIN_PASSWORD_LENGTH,
        )
    return Finding("ok", "password length", Line.PASSWORDS_LONG, shortest=shortest)


def examine_configuration_file() -> list[Finding]:
    """Check that a configuration file with secrets is not accessible to other users."""
    name = config_path()
    if not name:
        return []
    path = Path(name)
    secrets = _secrets_in(path)
    if secrets and _is_open(path):
        return [
            Finding(
                "fix",
                "configuration",
                Line.CONFIGURATION_OPEN,
                path=str(path),
                secrets=secrets,
            )
        ]
    line = Line.CONFIGURATION_PRIVATE if secrets else Line.CONFIGURATION_WITHOUT_SECRETS
    return [Finding("ok", "configuration", line, path=str(path))]


def _secrets_in(path: Path) -> list[str]:
    """Return the settings in the file that are secrets and not empty."""
    values = tomllib.loads(path.read_text("utf-8"))
    return sorted(
        setting.key
        for setting in setting_fields(Settings)
        if "SecretStr" in str(setting.field.annotation)
        and (values.get(setting.name) or _value_at(values, setting.path))
    )


def _value_at(values: Any, path: tuple[str, ...]) -> object:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _is_open(path: Path) -> bool:
    """Return whether group or others have any permission; a link's own permissions are ignored."""
    return not path.is_symlink() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
