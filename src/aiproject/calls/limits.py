"""Limits on calls: of an account and of an API key in a minute and at once, of an address at once.

Requests of an address in a minute are counted for every route, in `aiproject.web.limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Scope, client_group
from aiproject.adapters.http.rate_limiter import Admission, LimitRequest, RateLimiter, admit

__all__ = ["CallLimits", "GlobalLimits", "RunningCall"]

KEY_TOKENS = "key-tokens"


@dataclass(frozen=True, slots=True)
class GlobalLimits:
    """What the operator allows everybody."""

    account_requests_per_minute: int
    account_concurrent_calls: int
    address_concurrent_calls: int


class CallLimits:
    """Lets calls in.

    Args:
        gate: ``None`` (``AIPROJECT_LIMITS=off``) lets every call in.
    """

    def __init__(self, rate_limiter: RateLimiter | None, global_limits: GlobalLimits) -> None:
        self._rate_limiter = rate_limiter
        self._global_limits = global_limits

    def enter(
        self, scope: Scope, principal: Principal | None, *, tokens: Callable[[], int] | None = None
    ) -> RunningCall:
        """Return what a call runs inside of: ``async with limits.enter(scope, principal): …``.

        Args:
            caller: ``None``: nobody in particular, who is limited by address alone.
            tokens: what the call may consume at most; asked only where a key's tokens are limited. More than the limit
                counts as all of it, so that a whole minute's tokens let any one call in. ``None``: it consumes none.

        Raises:
            TooManyRequests: on entering; the call was counted nowhere.
            Unavailable: on entering: a key's tokens cannot be counted now.
        """
        limit_requests = () if self._rate_limiter is None else tuple(self._limit_requests(scope, principal, tokens))
        return RunningCall(scope, self._rate_limiter, limit_requests)

    def _limit_requests(
        self, scope: Scope, principal: Principal | None, tokens: Callable[[], int] | None
    ) -> list[LimitRequest]:
        global_limits = self._global_limits
        limit_requests = [
            LimitRequest(
                "address-calls", client_group(scope), global_limits.address_concurrent_calls, is_concurrent=True
            )
        ]
        if principal is None:
            return limit_requests
        account = str(principal.account.account_id)
        limit_requests += (
            LimitRequest("account", account, global_limits.account_requests_per_minute),
            LimitRequest("account-calls", account, global_limits.account_concurrent_calls, is_concurrent=True),
        )
        key = principal.key
        if key is not None:
            name = str(key.key_id)
            if key.requests_per_minute is not None:
                limit_requests.append(LimitRequest("key", name, key.requests_per_minute))
            if key.concurrent_calls is not None:
                limit_requests.append(LimitRequest("key-calls", name, key.concurrent_calls, is_concurrent=True))
            if key.tokens_per_minute is not None and tokens is not None:
                limit_requests.append(
                    # The header fields' quota units know no tokens.
                    LimitRequest(
                        KEY_TOKENS, name, key.tokens_per_minute, tokens(), guards_money=True, is_reported=False
                    )
                )
        return limit_requests


class RunningCall:
    """A call that counts as running while inside.

    Attributes:
        consumed: asked at the end for the tokens that the call was charged.
    """

    __slots__ = ("_admission", "_limit_requests", "_rate_limiter", "_scope", "consumed")

    def __init__(
        self, scope: Scope, rate_limiter: RateLimiter | None, limit_requests: tuple[LimitRequest, ...]
    ) -> None:
        self._scope = scope
        self._rate_limiter = rate_limiter
        self._limit_requests = limit_requests
        self._admission: Admission | None = None
        self.consumed: Callable[[], int] = lambda: 0

    async def __aenter__(self) -> RunningCall:
        if self._rate_limiter is not None:
            self._admission = await admit(self._scope, self._rate_limiter, self._limit_requests)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._admission is not None:
            self._admission.leave()
            if any(limit_request.policy == KEY_TOKENS for limit_request in self._limit_requests):
                self._admission.correct(KEY_TOKENS, self.consumed())
