"""Limits on calls: per account and API key by the minute and at once, per address at once.

`aiproject.web.limits` limits the requests of an address per minute, for every route.
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
    """The limits that the operator sets for everyone."""

    account_requests_per_minute: int
    account_concurrent_calls: int
    address_concurrent_calls: int


class CallLimits:
    """Admits calls.

    Args:
        rate_limiter: ``None`` (``AIPROJECT_LIMITS=off``) admits every call.
        global_limits: the operator's limits; an API key may have further ones of its own.
    """

    def __init__(self, rate_limiter: RateLimiter | None, global_limits: GlobalLimits) -> None:
        self._rate_limiter = rate_limiter
        self._global_limits = global_limits

    def enter(
        self, scope: Scope, principal: Principal | None, *, tokens: Callable[[], int] | None = None
    ) -> RunningCall:
        """Return the context manager that a call runs inside of: ``async with limits.enter(scope, principal): …``.

        Args:
            principal: ``None``: an anonymous caller, limited by address alone.
            tokens: the most that the call may consume; evaluated only if the key's tokens are limited. More than the
                limit counts as the whole limit, so that a full minute's tokens admit any single call. ``None``: the
                call consumes no tokens.

        Raises:
            TooManyRequests: on entering; the call was not counted anywhere.
            Unavailable: on entering: a key's tokens cannot be counted at the moment.
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
        # Counted for the account, so that several keys of an account do not multiply its limits.
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
                    # Not reported: the header fields have no quota unit for tokens.
                    LimitRequest(
                        KEY_TOKENS, name, key.tokens_per_minute, tokens(), guards_money=True, is_reported=False
                    )
                )
        return limit_requests


class RunningCall:
    """A call that counts as running while inside.

    Attributes:
        consumed: evaluated at the end; returns the tokens that the call was charged.
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
            # The admission counted the most that the call could consume; its actual consumption replaces that.
            if any(limit_request.policy == KEY_TOKENS for limit_request in self._limit_requests):
                self._admission.correct(KEY_TOKENS, self.consumed())
