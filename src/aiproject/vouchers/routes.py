"""``/user/get_token``: the endpoint with which existing apps redeem a code."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.core.service import Accounts
from aiproject.accounts.routes.field_types import UUID_EXAMPLE, Uuid
from aiproject.adapters.http.asgi import client_group, note
from aiproject.adapters.http.attempts import AttemptLimit
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.event_limits import Rate
from aiproject.adapters.http.fields import document
from aiproject.adapters.http.operation import Answer, BodyOperation, succeed
from aiproject.adapters.http.rate_limiter import RateLimiter
from aiproject.codes import Code, Success
from aiproject.errors import AccountUnknown, AiProjectError, VoucherUnusable
from aiproject.vouchers.model import MAX_CODE_LENGTH
from aiproject.vouchers.service import Vouchers

__all__ = ["OPERATIONS", "REDEEM", "VoucherRoutes"]

FAILED_REDEMPTIONS_BY_ADDRESS = Rate("failed redemption of an address", "60/minute", guards_money=True)
"""Only unknown accounts and codes count, so that a class behind one address can redeem without limit."""

FAILED_REDEMPTIONS_BY_ACCOUNT = Rate("failed redemption of an account", "20/minute", guards_money=True)
"""From any address: far more than a user mistypes, and far less than guessing short codes needs."""


class Redemption(Struct, kw_only=True):
    """A voucher's code, and the account that redeems it."""

    token_id: Annotated[
        str,
        Meta(description="令牌的兑换码，不分大小写", examples=["7G3K-QX0N-M2RD-94VB"]),
        document(maxLength=MAX_CODE_LENGTH),
    ]
    user_id: Uuid
    user_academy: Annotated[
        str | None, Meta(description="用户的学院；仅在账户没有登记学院时采用", examples=["计算机学院"])
    ] = None


REDEEM = BodyOperation(
    name="redeem",
    method="POST",
    path="/user/get_token",
    summary="兑换令牌",
    tag="用户",
    request=Redemption,
    examples={
        "兑换": {"token_id": "7G3K-QX0N-M2RD-94VB", "user_id": UUID_EXAMPLE, "user_academy": "计算机学院"},
    },
    answers=(Answer(message=Success.VOUCHER_REDEEMED),),
    failures={200: (Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND, Code.TOKEN_ALREADY_GET, Code.USER_GET_TOKEN_ERROR)},
)

OPERATIONS = (REDEEM,)
"""The operations for the OpenAPI description, see `aiproject.web.openapi`."""


class VoucherRoutes:
    """The endpoint; `aiproject.web` mounts its method.

    Args:
        accounts: identifies the account.
        vouchers: redeems the code.
        rate_limiter: counts failed redemptions; ``None`` (``AIPROJECT_LIMITS=off``): they are not counted.
    """

    def __init__(self, accounts: Accounts, vouchers: Vouchers, rate_limiter: RateLimiter | None) -> None:
        self._accounts = accounts
        self._vouchers = vouchers
        self._by_address = AttemptLimit(rate_limiter, FAILED_REDEMPTIONS_BY_ADDRESS, (AccountUnknown, VoucherUnusable))
        self._by_account = AttemptLimit(rate_limiter, FAILED_REDEMPTIONS_BY_ACCOUNT, (VoucherUnusable,))

    async def redeem(self, request: Request) -> Response:
        """Redeem the code ``token_id`` for the account with the uuid ``user_id``.

        ``user_academy`` is the academy that the app states for its account; see `Voucher.is_for`. The app shows ``msg``
        and repeats the call on any status but 200, so every refusal is answered with 200.

        Source: the legacy clients, section 7.
        """
        try:
            shown = await REDEEM.read(request)
            await self._redeem(request, shown.user_id, shown.token_id, shown.user_academy or "")
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, outcome="ok")
        return succeed(request, Success.VOUCHER_REDEEMED)

    async def _redeem(self, request: Request, uuid: str, code: str, claimed_academy: str) -> None:
        address = client_group(request.scope)
        async with self._by_address.attempt(address) as of_address:
            account = await self._accounts.identify_by_uuid(uuid, address=address)
            note(request.scope, account=account.account_id)
            async with self._by_account.attempt(str(account.account_id)) as of_account:
                await self._vouchers.check(account, code, claimed_academy=claimed_academy)
                # The code is valid. Redeeming may wait for a lock on its row; meanwhile this attempt must not count
                # against others of the same address.
                of_account.give_back()
                of_address.give_back()
                await self._vouchers.redeem(account, code, claimed_academy=claimed_academy)
