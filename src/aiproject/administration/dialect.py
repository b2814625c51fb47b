"""The dialect of ``/admin/…``: as the original's console reads it.

HTTP 200 with a code for what is refused, by the tables of `aiproject.administration.refusals`; 401 and 422 with ``msg``
alone where the original's JWT layer refuses. Faults of HTTP, refusals of limits and faults of the server are as on the
other legacy addresses. Source: the original's clients, section 8.
"""

from __future__ import annotations

from aiproject.administration.model import JwtRefused
from aiproject.administration.refusals import REFUSALS
from aiproject.errors import AiProjectError
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.dialects import ErrorAnswer, FailedRequest
from aiproject.protocols.legacy import Failure, failure_of, json_bytes

__all__ = ["AdministrationDialect"]


class AdministrationDialect:
    """The console's answers to errors. Implements `Dialect`."""

    prefix = "/admin/"

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Implements `Dialect.render`."""
        if isinstance(error, JwtRefused):
            # RFC 9110, section 15.5.2, asks for the challenge with 401, the original sends it with 422 as well.
            headers = ((b"www-authenticate", b"Bearer"),) if error.status != 401 else ()
            body = json_bytes({"msg": format_error(error, Language.ZH)})
            return ErrorAnswer(error.status, body, "jwt refused", headers=headers)
        failure = self._failure(error, request.path)
        return ErrorAnswer(failure.status, json_bytes(failure.body()), str(failure.code))

    def _failure(self, error: BaseException, path: str) -> Failure:
        refusals = REFUSALS.get(path)
        if refusals is None or not isinstance(error, AiProjectError) or refusals.are_beside(error):
            return failure_of(error, path=path)
        code, msg = refusals.of(error)
        return Failure(200, code, msg)
