"""Makes sentences out of codes and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from aiproject.codes import Code, Detail, Param, Term
from aiproject.errors import AiProjectError, Misconfigured, Refused, TooManyRequests, UpstreamFailed
from aiproject.messages.table import TABLE, MessageCode

__all__ = ["Language", "Message", "format_error", "format_message"]

AGAIN: Final = "again"
"""The placeholder for when to come back, which is filled here: errors carry seconds."""

_CJK: Final = re.compile(r"[\u4e00-\u9fff]")


class Language(StrEnum):
    """A language that every message exists in, as its RFC 5646 primary subtag."""

    ZH = "zh"
    EN = "en"


def format_message(code: MessageCode, language: Language, /, **params: Param) -> str:
    """Return the message of a code.

    Args:
        params: fill the placeholders by name; a `Term` is put in by its own words, a sequence as an enumeration.

    Raises:
        KeyError: a parameter that the message needs is missing.
    """
    text = TABLE[code]
    template = text.zh if language is Language.ZH else text.en
    if "{" not in template:
        return template
    words = {name: _words(value, language) for name, value in params.items()}
    words.setdefault(AGAIN, format_message(Term.AGAIN_LATER, language) if f"{{{AGAIN}}}" in template else "")
    return template.format(**words)


class Message(NamedTuple):
    """A message that somebody else formats, who knows the reader's language.

    Attributes:
        code: of the message.
        params: fill its placeholders; an error by its own message.
    """

    code: MessageCode
    params: Mapping[str, Param | AiProjectError] = MappingProxyType({})

    def text(self, language: Language) -> str:
        """Return the message."""
        words = {
            name: format_error(value, language) if isinstance(value, AiProjectError) else value
            for name, value in self.params.items()
        }
        return format_message(self.code, language, **words)


def format_error(
    error: AiProjectError, language: Language, *, code: Code = Code.APP_INTERNAL_ERROR, in_seconds: bool = False
) -> str:
    """Return what an error says to a person.

    Args:
        code: what the place where it happened calls an error without a code of its own.
        in_seconds: of a rate limit, whether to say after how many seconds the next call may succeed, rather than
            "later". For readers who do not see the header ``Retry-After``.
    """
    if isinstance(error, UpstreamFailed):
        return _format_upstream(error, language, code)
    reason: Code | Detail = error.answer_code or code
    params = dict(error.params)
    if isinstance(error, Refused | Misconfigured) and error.detail is not None:
        reason = error.detail
    if in_seconds and isinstance(error, TooManyRequests):
        params[AGAIN] = format_message(Term.AGAIN_IN_SECONDS, language, seconds=error.retry_after)
    return format_message(reason, language, **params)


def _format_upstream(error: UpstreamFailed, language: Language, code: Code) -> str:
    ours = format_message(error.advice, language) if error.advice is not None else ""
    if not error.hint:
        return ours or format_message(code, language)
    # The reader's language first: a hint that is in it says more than our sentence for the vendor's code.
    if not ours or bool(_CJK.search(error.hint)) == (language is Language.ZH):
        return error.hint
    return f"{ours}（{error.hint}）" if language is Language.ZH else f"{ours} ({error.hint})"


def _words(value: Param, language: Language) -> str | int | float:
    if isinstance(value, Term):
        return format_message(value, language)
    if isinstance(value, str | int | float):
        return value
    words = [str(_words(each, language)) if isinstance(each, str) else each.text(language) for each in value]
    # Sentences may have commas of their own.
    has_sentences = any(not isinstance(each, str) for each in value)
    comma, semicolon = ("、", "；") if language is Language.ZH else (", ", "; ")
    return (semicolon if has_sentences else comma).join(words)
