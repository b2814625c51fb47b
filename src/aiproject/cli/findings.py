"""What a set-up shows to strangers and to neighbours: the weak spots that ``aiproject doctor`` complains of."""

from __future__ import annotations

import ipaddress
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH
from aiproject.config.settings import Settings
from aiproject.config.sources import config_path, setting_fields

__all__ = ["Finding", "examine_configuration_file", "examine_exposure", "examine_files", "examine_password_length"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``level`` is ``ok``, ``note`` or ``mend``."""

    level: str
    subject: str
    text: str


def examine_exposure(settings: Settings) -> list[Finding]:
    """Look at what strangers reach: nothing, while the server listens on this machine only."""
    if is_loopback(settings.host):
        if settings.limits == "off":
            return [Finding("note", "limits", "rate limits are off")]
        return [Finding("ok", "address", f"listens on {settings.host}: only this machine reaches it")]
    findings = [_tls(settings)]
    if settings.limits == "off":
        findings.append(Finding("mend", "limits", "rate limits are off for everybody; AIPROJECT_LIMITS=on"))
    if settings.voice_anonymous:
        findings.append(
            Finding("mend", "voice", "callers need no account; AIPROJECT_VOICE_ANONYMOUS=false demands one")
        )
    if settings.credentials is None:
        findings.append(Finding("note", "sandbox", "strangers are answered by the sandbox, not by a model"))
    if settings.registration == "open":
        findings.append(
            Finding("note", "registration", "anybody may register and gets a quota; AIPROJECT_REGISTRATION=closed")
        )
    if "*" in settings.cors_origins:
        findings.append(
            Finding("note", "origins", "pages of any origin may call (never with cookies); AIPROJECT_CORS_ORIGINS")
        )
    return findings


def _tls(settings: Settings) -> Finding:
    if not settings.trusted_proxies:
        return Finding(
            "mend",
            "address",
            f"listens on {settings.host} without a proxy: passwords and uuids travel in the clear; put a proxy with "
            "TLS in front and name it in AIPROJECT_TRUSTED_PROXIES, or listen on 127.0.0.1",
        )
    if any(_is_everybody(network) for network in settings.trusted_proxies):
        return Finding(
            "mend", "address", "AIPROJECT_TRUSTED_PROXIES believes everybody: callers choose the address they have"
        )
    if settings.public_url is not None and urlsplit(settings.public_url).scheme != "https":
        return Finding("mend", "address", "AIPROJECT_PUBLIC_URL is not encrypted; use https://")
    return Finding("ok", "address", f"listens on {settings.host} behind {', '.join(settings.trusted_proxies)}")


def _is_everybody(network: str) -> bool:
    try:
        return ipaddress.ip_network(network, strict=False).prefixlen == 0
    except ValueError:
        return network == "*"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name that is no address is believed to be reached by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def examine_files(settings: Settings) -> list[Finding]:
    """Look at the permissions of the data directory and of every secret that lies elsewhere."""
    folder = settings.data_dir
    key = settings.admin_key_file
    if not folder.exists():
        findings = [Finding("ok", "data", f"{folder} will be made at the first start")]
    else:
        loose = sorted(str(path.relative_to(folder.parent)) for path in (folder, *folder.rglob("*")) if _is_open(path))
        findings = [
            Finding("mend", "data", f"other users of this machine may read {', '.join(loose)}; chmod go= them")
            if loose
            else Finding("ok", "data", f"{folder} is readable by its owner only")
        ]
    if key is None and settings.redis_url is not None:
        findings.append(
            Finding(
                "note",
                "admin key",
                "Redis is for several nodes, which need one key for administrators' tokens: AIPROJECT_ADMIN_KEY_FILE",
            )
        )
    if key is not None and key.exists() and _is_open(key):
        findings.append(Finding("mend", "admin key", f"other users of this machine may read {key}; chmod go= it"))
    return findings


def examine_password_length(settings: Settings) -> Finding:
    """Compare the shortest password that may be chosen with the least that ASVS 5.0, 6.2.1, asks for."""
    shortest = settings.password_min_length
    if shortest < MIN_PASSWORD_LENGTH:
        return Finding(
            "note",
            "password length",
            f"passwords of {shortest} characters may be chosen, which are guessed much sooner than those of "
            f"{MIN_PASSWORD_LENGTH}; AIPROJECT_PASSWORD_MIN_LENGTH={MIN_PASSWORD_LENGTH}",
        )
    return Finding("ok", "password length", f"at least {shortest} characters")


def examine_configuration_file() -> list[Finding]:
    """Look whether the configuration file is as secret as what stands in it."""
    name = config_path()
    if not name:
        return []
    path = Path(name)
    secrets = _secrets_in(path)
    if secrets and _is_open(path):
        return [
            Finding(
                "mend",
                "configuration",
                f"other users of this machine may read {path}, which holds {', '.join(secrets)}; chmod go= it",
            )
        ]
    return [Finding("ok", "configuration", f"{path}, {'readable by its owner only' if secrets else 'without secrets'}")]


def _secrets_in(path: Path) -> list[str]:
    """The settings in the file that are secrets and not empty."""
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
    """Whether group or others may do anything with it; links say nothing, what they point to does."""
    return not path.is_symlink() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
