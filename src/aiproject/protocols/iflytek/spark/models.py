"""The limits of each Spark model (``domain``) and the URL paths that it belongs to.

Source: iFlytek, 《星火认知大模型 Web API 文档》, 《星火认知大模型服务说明》, 《星火X1 websocket 协议文档》.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "completion_limit",
    "context_limit",
    "domains_of_path",
    "known_domains",
    "max_temperature",
    "takes_system_role",
]


class _Model(NamedTuple):
    """The limits of one ``domain``, in tokens."""

    context: int = 8192
    completion: int = 4096
    takes_system_role: bool = True
    max_temperature: float = 1.0


# An unlisted domain is a newer model or a fine-tuned one; it gets the smallest limits in the documents.
_UNLISTED_MODEL: Final = _Model()
_MODELS: Final[Mapping[str, _Model]] = MappingProxyType(
    {
        "lite": _Model(takes_system_role=False),
        "general": _Model(takes_system_role=False),
        "generalv2": _Model(takes_system_role=False),
        "generalv3": _Model(completion=8192),
        "pro-128k": _Model(context=128 * 1024),
        "generalv3.5": _Model(completion=8192),
        "max-32k": _Model(context=32 * 1024, completion=8192),
        "4.0Ultra": _Model(completion=8192),
        "x1": _Model(context=32 * 1024, completion=32768, max_temperature=2.0),
        "spark-x": _Model(context=64 * 1024, completion=65535, max_temperature=2.0),
        "kjwx": _Model(takes_system_role=False),
        "multilang": _Model(takes_system_role=False),
    }
)

_DOMAINS_OF_PATH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "/v1.1/chat": ("lite", "general"),
        "/v2.1/chat": ("generalv2",),
        "/v3.1/chat": ("generalv3",),
        "/chat/pro-128k": ("pro-128k",),
        "/v3.5/chat": ("generalv3.5",),
        "/chat/max-32k": ("max-32k",),
        "/v4.0/chat": ("4.0Ultra",),
        "/v1/x1": ("x1", "spark-x"),
        "/x2": ("spark-x",),
        "/v1.1/chat_kjwx": ("kjwx",),
        "/v1.1/chat_multilang": ("multilang",),
    }
)


def known_domains(url: str) -> tuple[str, ...] | None:
    """Return the values of ``parameter.chat.domain`` that fit a Spark URL; ``None`` if the documents do not say.

    Only the path decides, so that another implementation of the platform on another host gets the same result. The one
    exception are the hosts of fine-tuned models (``maas-api…``): they share a path with Lite and take the value that
    the console prints for the model.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    return None if host.startswith("maas-api") else _DOMAINS_OF_PATH.get(parts.path)


def context_limit(domain: str) -> int:
    """Return the token limit of all messages together; above it the platform refuses with 10907. 8192 if unlisted."""
    return _MODELS.get(domain, _UNLISTED_MODEL).context


def completion_limit(domain: str) -> int:
    """Return the largest ``max_tokens`` of a model; 4096 for an unlisted domain."""
    return _MODELS.get(domain, _UNLISTED_MODEL).completion


def max_temperature(domain: str) -> float:
    """Return the largest ``temperature`` of a model, inclusive; it must exceed 0. Reasoning models accept up to 2."""
    return _MODELS.get(domain, _UNLISTED_MODEL).max_temperature


def domains_of_path(path: str) -> tuple[str, ...]:
    """Return the values of ``parameter.chat.domain`` for a URL's path; empty for an undocumented path."""
    return _DOMAINS_OF_PATH.get(path, ())


def takes_system_role(domain: str) -> bool:
    """Whether a model accepts a message of role ``system``; assumed for an unlisted domain."""
    return _MODELS.get(domain, _UNLISTED_MODEL).takes_system_role
