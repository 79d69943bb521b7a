"""What the client knows between commands: servers and their tokens, in one file that only its owner can read."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from berth.errors import InvalidInput, NotLoggedIn
from berth.tokens import TokenPair

DEFAULT_URL = "http://127.0.0.1:8080"


def config_dir() -> Path:
    """``$XDG_CONFIG_HOME/berth``, by default ``~/.config/berth``."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "berth"


def clean_url(text: str) -> str:
    """A server's URL in the form that the server itself uses: with scheme, without a trailing slash."""
    url = text.strip().rstrip("/")
    if "://" not in url:
        url = f"https://{url}"
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest or any(ch.isspace() or not ch.isprintable() for ch in url):
        raise InvalidInput(f"'{text}' is not a server's URL", "write for example https://berth.example.org")
    return url


@dataclass(frozen=True, slots=True)
class Login:
    """A user's login to one server."""

    url: str
    user: str
    tokens: TokenPair


@dataclass(frozen=True, slots=True)
class Config:
    """All logins by URL, and which server is meant when none is named."""

    current: str | None = None
    logins: Mapping[str, Login] = field(default_factory=dict)


class ConfigFile:
    """The file itself. Writers hold a lock, and replace the file in one step."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or config_dir()
        self.path = self.folder / "config.json"

    def read(self) -> Config:
        """What is stored; an empty configuration when there is no file. InvalidInput when it cannot be read."""
        try:
            content = json.loads(self.path.read_text("utf-8"))
            logins = {
                url: Login(url, entry["user"], TokenPair(**entry["tokens"])) for url, entry in content["logins"].items()
            }
            return Config(content.get("current"), logins)
        except FileNotFoundError:
            return Config()
        except PermissionError as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidInput(f"{self.path} is damaged", "remove it and log in again: berth login") from None

    def change(self, change: Callable[[Config], Config]) -> Config:
        """Apply ``change`` to the newest content, under the lock."""
        with self._locked():
            config = change(self.read())
            self._write(config)
            return config

    def remember(self, login: Login) -> None:
        """Store a login and make its server the current one."""
        self.change(lambda config: Config(login.url, {**config.logins, login.url: login}))

    def forget(self, url: str) -> Login | None:
        """Drop the login to ``url``; what was dropped."""
        gone: list[Login] = []

        def without(config: Config) -> Config:
            gone.extend(login for key, login in config.logins.items() if key == url)
            return replace(config, logins={key: login for key, login in config.logins.items() if key != url})

        self.change(without)
        return gone[0] if gone else None

    def renew(self, url: str, stale: TokenPair, fetch: Callable[[str], TokenPair]) -> TokenPair | None:
        """New tokens for ``url`` in place of ``stale``. Of commands that run at once only one asks the server, since
        a refresh token holds once; the others find its answer here. None when there is nothing to renew with."""
        with self._locked():
            config = self.read()
            login = config.logins.get(url)
            if login is None or (login.tokens == stale and not stale.refresh):
                return None
            if login.tokens != stale:
                return login.tokens
            renewed = replace(login, tokens=fetch(stale.refresh or ""))
            self._write(replace(config, logins={**config.logins, url: renewed}))
            return renewed.tokens

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, config: Config) -> None:
        content: dict[str, Any] = {
            "version": 1,
            "current": config.current,
            "logins": {
                url: {"user": login.user, "tokens": asdict(login.tokens)} for url, login in config.logins.items()
            },
        }
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".config-")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


class StoredTokens:
    """The tokens of one server as they stand in the configuration file."""

    def __init__(self, file: ConfigFile, url: str) -> None:
        self._file, self._url = file, url

    def current(self) -> TokenPair:
        login = self._file.read().logins.get(self._url)
        if login is None:
            raise NotLoggedIn(f"not logged in to {self._url}", f"berth login {self._url} --user NAME")
        return login.tokens

    def renew(self, stale: TokenPair, fetch: Callable[[str], TokenPair]) -> TokenPair | None:
        return self._file.renew(self._url, stale, fetch)
