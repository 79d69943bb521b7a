"""HTTP to one server: the envelope, tokens, and which failures are worth another try."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

import berth
from berth.errors import ApiError, BerthError, Unreachable, api_error
from berth.tokens import HeldTokens, NoTokens, TokenPair, Tokens

CONNECT_S = 10.0
RENEW_BEFORE_S = 60.0
_PASSING = frozenset({429, 502, 503, 504})
"""Statuses that say "not now"."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a safe request is tried, how long the pauses between are (doubling), and after what time no more."""

    tries: int = 4
    pause_s: float = 0.2
    longest_pause_s: float = 5.0
    give_up_after_s: float = 60.0

    def pauses_s(self) -> Iterator[float]:
        """The pause before each further try, spread so that many clients do not come back together."""
        for turn in range(self.tries - 1):
            yield min(self.longest_pause_s, self.pause_s * 2**turn) * random.uniform(0.7, 1.3)  # noqa: S311 - not a secret


PATIENT = Patience()


def segment(text: str) -> str:
    """``text`` as one segment of a path, whatever is in it."""
    if text in ("", ".", ".."):
        raise BerthError(f"'{text}' is not a name")
    return quote(text, safe="")


class Session:
    """One server as one user. Safe to share between threads.

    A request is tried again when that cannot do harm: GETs, and POSTs that carry an Idempotency-Key.
    ``sleep`` and ``now`` (Unix seconds) are replaced in tests.
    """

    def __init__(
        self,
        url: str,
        tokens: Tokens | None = None,
        *,
        timeout_s: float = 30.0,
        patience: Patience = PATIENT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.tokens = url, tokens or NoTokens()
        self.patience, self.sleep, self.now = patience, sleep, now
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            headers={"User-Agent": f"berth-client/{berth.__version__}"},
            transport=transport,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- requests ------------------------------------------------------------------------------------------------

    def get(self, path: str, **params: Any) -> Any:
        """``result`` of a GET."""
        return self.call("GET", path, params=params)["result"]

    def post(self, path: str, body: Any = None, *, timeout_s: float | None = None) -> Any:
        """``result`` of a POST that changes what exists; it is sent once. timeout_s: None takes the session's."""
        return self.call("POST", path, body=body, timeout_s=timeout_s)["result"]

    def create(
        self,
        path: str,
        body: Any,
        *,
        key: str | None = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """``result`` of a POST that creates, under an Idempotency-Key: trying again cannot create twice."""
        key = key or str(uuid.uuid4())
        return self.call("POST", path, params=params, body=body, key=key, timeout_s=timeout_s)["result"]

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
        public: bool = False,
        timeout_s: float | None = None,
    ) -> Mapping[str, Any]:
        """The whole envelope of an answer; the matching BerthError when it is an error.

        public: send no token. key: the Idempotency-Key. timeout_s: None takes the session's.
        """
        headers = {"Idempotency-Key": key} if key else {}
        request = {"params": _given(params), "json": body, "timeout": self._timeout(timeout_s)}
        return _envelope(self._sent(method, path, headers, public=public, **request))

    def upload(
        self,
        path: str,
        pieces: Callable[[], Iterator[bytes]],
        size_bytes: int,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """``result`` of a PUT of bytes, which come anew from ``pieces`` when the token was renewed meanwhile.

        timeout_s: how long the server may take to answer once it has them; None takes the session's.
        """
        for again in (False, True):
            pair = self._token()
            headers = {
                "X-Tapis-Token": pair.access,
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size_bytes),
            }
            request = {"params": _given(params), "content": pieces(), "timeout": self._timeout(timeout_s)}
            with self._network():
                response = self._http.put(path, headers=headers, **request)
            if again or response.status_code != 401 or self._renewed(pair) is None:
                break
        return _envelope(response)["result"]

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None, **params: Any
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read piece by piece. It is not tried again: the caller knows where to go on.

        timeout_s: how long to wait for the next piece; None takes the session's.
        """
        timeout = self._timeout(timeout_s)
        for again in (False, True):
            pair = self._token()
            request_headers = {**(headers or {}), "X-Tapis-Token": pair.access}
            with (
                self._network(),
                self._http.stream(
                    "GET", path, params=_given(params), headers=request_headers, timeout=timeout
                ) as response,
            ):
                if response.status_code == 401 and not again and self._renewed(pair):
                    continue
                if response.is_error:
                    response.read()
                    _envelope(response)
                yield response
            return

    def date(self) -> str | None:
        """The ``Date`` header of the server's answer to a public route."""
        response = self._sent("GET", "/v3/tenants", {}, public=True)
        _envelope(response)
        date: str | None = response.headers.get("Date")
        return date

    # -- how -----------------------------------------------------------------------------------------------------

    def _sent(
        self, method: str, path: str, headers: Mapping[str, str], *, public: bool, **request: Any
    ) -> httpx.Response:
        """The answer to a request, after renewing the token once where that helps."""
        if public:
            return self._tried(method, path, headers, **request)
        pair = self._token()
        response = self._tried(method, path, {**headers, "X-Tapis-Token": pair.access}, **request)
        if response.status_code == 401 and (fresh := self._renewed(pair)) is not None:
            response = self._tried(method, path, {**headers, "X-Tapis-Token": fresh.access}, **request)
        return response

    def _tried(self, method: str, path: str, headers: Mapping[str, str], **request: Any) -> httpx.Response:
        repeatable = method == "GET" or "Idempotency-Key" in headers
        begun_s = self.now()
        for pause_s in self.patience.pauses_s():
            try:
                with self._network():
                    response = self._http.request(method, path, headers=dict(headers), **request)
            except Unreachable as error:
                never_left = isinstance(error.__cause__, httpx.ConnectError)
                if not (repeatable or never_left) or self.now() - begun_s > self.patience.give_up_after_s:
                    raise
            else:
                if not repeatable or response.status_code not in _PASSING:
                    return response
                pause_s = max(pause_s, min(_retry_after_s(response), self.patience.longest_pause_s))
            self.sleep(pause_s)
        with self._network():
            return self._http.request(method, path, headers=dict(headers), **request)

    def _timeout(self, timeout_s: float | None) -> httpx.Timeout:
        return self._http.timeout if timeout_s is None else httpx.Timeout(timeout_s, connect=CONNECT_S)

    @contextmanager
    def _network(self) -> Iterator[None]:
        """What goes wrong on the way, as Unreachable."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"{self.url} did not answer in time", "see whether the server runs: berth doctor"
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(
                f"cannot reach {self.url}: {reason}", "see whether the server runs: berth doctor"
            ) from error

    # -- tokens --------------------------------------------------------------------------------------------------

    def login(self, user: str, password: str) -> TokenPair:
        """Trade user name and password for tokens, and use them from now on."""
        pair = self._granted(grant_type="password", username=user, password=password)
        self.tokens = HeldTokens(pair)
        return pair

    def _granted(self, **grant: str) -> TokenPair:
        answer = self.call("POST", "/v3/oauth2/tokens", body=grant, public=True)
        try:
            return TokenPair.of(answer["result"])
        except (KeyError, TypeError):
            raise Unreachable(
                f"{self.url} answered a login without a token", "see whether this is a Berth server"
            ) from None

    def _token(self) -> TokenPair:
        pair = self.tokens.current()
        ends_at_s = pair.expires_at_s
        if ends_at_s is not None and ends_at_s - self.now() < RENEW_BEFORE_S:
            return self._renewed(pair) or pair
        return pair

    def _renewed(self, stale: TokenPair) -> TokenPair | None:
        """Newer tokens, or None when the server no longer accepts the refresh token: then its 401 speaks."""
        try:
            return self.tokens.renew(
                stale, lambda refresh: self._granted(grant_type="refresh_token", refresh_token=refresh)
            )
        except ApiError as error:
            if error.status >= 500:
                raise
            return None


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _envelope(response: httpx.Response) -> Mapping[str, Any]:
    """The envelope of an answer. Anything else did not come from a Berth server, and is said so."""
    try:
        envelope = response.json()
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict) or "result" not in envelope:
        if response.is_error:
            text = envelope.get("message") if isinstance(envelope, dict) else response.text
            raise api_error(response.status_code, str(text or response.reason_phrase)[:300])
        raise Unreachable(
            f"{response.request.url.copy_with(path='/', query=None)} answered with something that is no Tapis envelope",
            "see whether the URL is that of a Berth server",
        )
    if response.is_error or envelope.get("status") == "error":
        metadata = envelope.get("metadata")
        problem = metadata.get("problem") if isinstance(metadata, dict) else None
        message = envelope.get("message")
        raise api_error(
            response.status_code,
            str(message or response.reason_phrase or f"HTTP {response.status_code}"),
            problem if isinstance(problem, dict) else None,
        )
    return envelope
