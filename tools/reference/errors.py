"""The page of errors: what each answers, the codes with their sentences, and the platform's error codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aiproject import errors
from aiproject.cli.common import EXIT_STATUSES
from aiproject.codes import Code, Detail
from aiproject.messages.table import TABLE
from aiproject.protocols.iflytek.error_codes import REASONS, TABLES, Service
from aiproject.protocols.legacy import ENDPOINT_CODES, INTERNAL_ERROR_NUMBER, error_number, failure_of
from tools.reference.catalogue import Translate, paragraphs

__all__ = ["EXAMPLES", "errors_page"]

EXAMPLES: Final[tuple[errors.AiProjectError, ...]] = (
    errors.InvalidInput(),
    errors.NameTaken(),
    errors.LoginFailed(),
    errors.AccountUnknown(),
    errors.RegistrationClosed(),
    errors.NotSignedIn(),
    errors.NotAllowed(),
    errors.NotFound(),
    errors.SpendLimitReached("tokens"),
    errors.QuotaExhausted("tokens"),
    errors.QuotaExhausted("pic_times"),
    errors.QuotaExhausted("voice_seconds"),
    errors.QuotaBusy("tokens"),
    errors.FileMissing(),
    errors.UnusableFile(),
    errors.BodyTooLarge(1),
    errors.BodyTooSlow(),
    errors.BodyEncoded(),
    errors.VoucherUnusable(),
    errors.VoucherRedeemed(),
    errors.ModelUnknown("gpt-0"),
    errors.ReceiptUnknown(),
    errors.TooManyRequests(1),
    errors.HttpFault(400),
    errors.HttpFault(404),
    errors.HttpFault(405),
    errors.HttpFault(431),
    errors.UpstreamUnreachable(),
    errors.UpstreamRefused(),
    errors.UpstreamTimeout("gap", 1),
    errors.UpstreamTruncated(),
    errors.UpstreamProtocolViolation(),
    errors.Unavailable(""),
    errors.Misconfigured(),
)
"""An instance of every error that callers can meet; a test compares them with the hierarchy."""

OWN_CODE: Final = Code.REGISTER_ERROR
"""Stands for the endpoint's own code: no error has it by itself."""

EXIT_OTHERWISE: Final = 70

INTRODUCTION: Final = """\
A failed call of the legacy API and of `/v1` is answered with a JSON object `{"code": "NAME", "msg": "…"}`; `code` is
the number 0 only for success. `msg` is a sentence for the user: Chinese on the legacy addresses, and by
`Accept-Language` under `/v1` (Chinese if the header names neither language).

OpenAI's addresses (`/v1/chat/completions`, `/v1/models`) succeed and fail in OpenAI's form instead.

Refusals that belong to the legacy contract, and failures of the platform, have HTTP status 200, because the existing
apps read `code` only then. Faults of HTTP itself keep their status.
"""

ANSWERS: Final = """\
An error inside a stream, after the first frame, is a frame with the number in `header.code`. The exit status is that
of a command that meets the error.
"""

OWN_CODES: Final = """\
The endpoint's own code depends on the address. A refusal by a rate limit has HTTP status 200 on some legacy addresses,
see [Limits](../explanation/limits.md).
"""

REASONS_TEXT: Final = """\
Where an error has a precise reason, `msg` is the sentence of that reason instead of the sentence of the code. Names
in braces are filled in.
"""

VENDOR: Final = """\
The platform reports its failures as numbers, whose meaning depends on the service. A failed attempt is repeated only
where the table says so, and only while nothing has reached the client.
"""


def errors_page(t: Translate) -> str:
    """Return the page."""
    parts = [f"# {t('Errors and codes')}", *_prose(INTRODUCTION, t)]
    parts += [f"## {t('Answers by error')}", *_prose(ANSWERS, t), _answers(t), *_prose(OWN_CODES, t), _own_codes(t)]
    parts += [f"## {t('Codes')}", _sentences(t, Code)]
    parts += [f"## {t('Precise reasons')}", *_prose(REASONS_TEXT, t), _sentences(t, Detail)]
    parts += [f"## {t('Error codes of the platform')}", *_prose(VENDOR, t)]
    for service, title in (
        (Service.SPARK, "Spark chat"),
        (Service.DICTATION, "Dictation"),
        (Service.OCR, "Picture text"),
    ):
        parts += [f"### {t(title)}", _vendor_codes(service, t)]
    return "\n\n".join(parts) + "\n"


def _prose(text: str, t: Translate) -> Iterator[str]:
    yield from (t(paragraph) for paragraph in paragraphs(text))


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], t: Translate) -> str:
    head = [f"| {' | '.join(t(column) for column in columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _answers(t: Translate) -> str:
    rows = []
    for error in EXAMPLES:
        failure = failure_of(error, code=OWN_CODE)
        code = t("the endpoint's own") if failure.code is OWN_CODE else f"`{failure.code}`"
        number = t("the platform's code") if isinstance(error, errors.UpstreamRefused) else _number_in_streams(error)
        exit_status = next((status for kind, status in EXIT_STATUSES if isinstance(error, kind)), EXIT_OTHERWISE)
        rows.append((f"`{type(error).__name__}`", str(failure.status), code, number, str(exit_status)))
    return _table(("Error", "HTTP status", "`code`", "`header.code`", "Exit status"), rows, t)


def _own_codes(t: Translate) -> str:
    rows = [(f"`{path}`", f"`{code}`") for path, code in ENDPOINT_CODES.items()]
    rows.append((t("any other"), f"`{failure_of(errors.InvalidInput(), path='/').code}`"))
    return _table(("Address", "`code`"), rows, t)


def _number_in_streams(error: errors.AiProjectError) -> str:
    """The number in a frame; a dash for what is always answered before a stream begins."""
    number = error_number(error)
    return "–" if number == INTERNAL_ERROR_NUMBER else str(number)


def _sentences(t: Translate, kind: type[Code] | type[Detail]) -> str:
    rows = [(f"`{code.value}`", _cell(TABLE[code].zh), _cell(TABLE[code].en)) for code in kind]
    return _table(("Name", "Chinese", "English"), rows, t)


def _vendor_codes(service: Service, t: Translate) -> str:
    rows = []
    for number, advice in sorted(TABLES[service].items()):
        text = TABLE[advice.detail]
        rows.append(
            (
                str(number),
                f"`{REASONS[advice.problem]}`",
                t("yes") if advice.retry else t("no"),
                _cell(text.zh),
                _cell(text.en),
                _cell(advice.en),
            )
        )
    return _table(("Number", "Reason", "Repeated", "Chinese", "English", "For the operator"), rows, t)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
