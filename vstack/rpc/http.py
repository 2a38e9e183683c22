"""The transport under every typed client: one session, error mapping, retries with backoff and failover.

Invariants: a call either returns a decoded answer of the expected type or raises a VStackError; only calls that are
safe to repeat are retried (idempotent by method, or by the protocol, as a commit is); every call has a deadline.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec

from vstack import errors

T = TypeVar("T")

RETRIES: Final = 3
BASE_DELAY_S: Final = 0.2
MAX_DELAY_S: Final = 5.0
CALL_TIMEOUT_S: Final = 10.0
CONNECTIONS_PER_HOST: Final = 64

_BY_STATUS: Final[dict[int, type[errors.VStackError]]] = {
    400: errors.InvalidRequestError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.TooLargeError,
    416: errors.PreconditionError,
    503: errors.UnavailableError,
    507: errors.StorageFullError,
}


def new_session(*, per_host: int = CONNECTIONS_PER_HOST) -> aiohttp.ClientSession:
    """A session for one service process: no overall connection limit, `per_host` to each host, quick connects."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=per_host, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
        auto_decompress=False,
    )


def backoff_s(attempt: int) -> float:
    """Full-jitter exponential backoff before retry `attempt` (from 0)."""
    return random.uniform(0, min(MAX_DELAY_S, BASE_DELAY_S * 2**attempt))  # noqa: S311 - not a secret


def error_of(status: int, body: bytes, url: str, headers: Mapping[str, str]) -> errors.VStackError:
    """The error that a peer's answer stands for, with its own sentence."""
    chosen: dict[str, object] | None = None
    detail = f"{url} answered {status}"
    try:
        decoded = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        decoded = {}
    if isinstance(decoded.get("detail"), str):
        detail = str(decoded["detail"])
        chosen = {key: value for key, value in decoded.items() if key not in ("detail", "code")} or None
    kind = _BY_STATUS.get(status, errors.RemoteError)
    if kind is errors.ConflictError:
        return errors.ConflictError(detail, chosen=chosen)
    if kind is errors.UnavailableError:
        after = headers.get("Retry-After", "1")
        return errors.UnavailableError(detail, retry_after_s=float(after) if after.isdigit() else 1.0)
    return kind(detail)


class JsonCaller:
    """Calls one logical service that may have several base URLs; sticks to the one that answered last."""

    def __init__(self, session: aiohttp.ClientSession, base_urls: Sequence[str]) -> None:
        if not base_urls:
            raise errors.SettingsError("a service client needs at least one URL")
        self._session = session
        self._urls = [url.rstrip("/") for url in base_urls]
        self._current = 0

    async def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        retry: bool = True,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T:
        """Send, decode, and map errors. With `retry`, unavailable peers are tried again, each URL in turn."""
        attempts = max(RETRIES, len(self._urls)) if retry else 1
        last: errors.VStackError | None = None
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(backoff_s(attempt - 1))
            try:
                data = await self._once(method, path, body, params, timeout_s)
                return self._decode(data, answer, path)
            except (errors.UnavailableError, errors.RemoteError) as error:
                last = error
                self._current = (self._current + 1) % len(self._urls)
        assert last is not None
        raise last

    async def _once(
        self, method: str, path: str, body: object, params: Mapping[str, str] | None, timeout_s: float
    ) -> bytes:
        url = self._urls[self._current] + path
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            async with self._session.request(
                method, url, data=data, params=params, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as response:
                content = await response.read()
                if response.status >= 400:
                    raise error_of(response.status, content, url, response.headers)
                return content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.RemoteError(f"{method} {url}: {describe(error)}") from error

    @staticmethod
    def _decode(data: bytes, answer: type[T], path: str) -> T:
        if answer is type(None):
            return None
        try:
            return msgspec.json.decode(data, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.RemoteError(f"{path} gave an answer that is not of the expected form: {error}") from error


def describe(error: BaseException) -> str:
    """A short cause: aiohttp's timeouts have empty messages."""
    return str(error) or type(error).__name__
