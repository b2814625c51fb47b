"""All settings, as one frozen model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from aiproject.config.iflytek import IflytekCredentials, IflytekSettings
from aiproject.config.sources import GroupedSource, TomlSource, VariablesSource, config_path
from aiproject.config.types import (
    MAX_SIGNUP_UNITS,
    HttpUrl,
    Networks,
    Origins,
    RedisUrl,
    Seconds,
    Unit,
    Unlimited,
    Unmetered,
    ZoneName,
)
from aiproject.setting_names import PREFIX

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Everything an operator can set. Durations are seconds; sizes are bytes unless the name says otherwise.

    An empty variable counts as not set, as container files and shells produce them.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=256, description="Server processes that share the port.")
    data_dir: Path = Field(
        Path("./data"), description="Directory of the embedded database and of the secrets that the server generates."
    )
    database_url: SecretStr | None = Field(
        None,
        description="Address of the database, `sqlite:///…`, `mysql://…`, `mariadb://…` or "
        "`postgresql://…`; SQLite in the data directory if not set.",
    )

    iflytek: Annotated[IflytekSettings, NoDecode] = Field(
        IflytekSettings.model_validate({}), description="The iFlytek platform: its credentials and its three services."
    )

    signup_tokens: Annotated[int, Unit("tokens")] = Field(
        10_000, ge=0, le=MAX_SIGNUP_UNITS, description="Tokens that a new account starts with."
    )
    signup_pic_times: int = Field(
        10, ge=0, le=MAX_SIGNUP_UNITS, description="Picture recognitions that a new account starts with."
    )
    signup_voice_seconds: Annotated[int | None, Unmetered, Unit("seconds")] = Field(
        None,
        ge=0,
        le=MAX_SIGNUP_UNITS // 1000,
        description="Seconds of dictation that a new account starts with; `unmetered` counts them and refuses nobody.",
    )
    signups_per_address_per_day: Annotated[int | None, Unlimited] = Field(
        60,
        ge=0,
        le=1_000_000,
        description="Accounts per client address and day that start with the quota above, or `unlimited`; accounts "
        "beyond it are opened with none.",
    )
    password_min_length: Annotated[int, Unit("characters")] = Field(
        8,
        ge=6,
        le=64,
        description="Least number of characters of a new password; `aiproject doctor` reports values below 8.",
    )
    registration: Literal["open", "closed"] = Field(
        "open", description="Whether anybody may register; with `closed`, only `aiproject user add` opens accounts."
    )
    voice_anonymous: bool = Field(
        True,
        description="Whether dictation needs no account; such calls are limited by client address. `false` requires "
        "`uuid` and `username`, as the picture endpoint does.",
    )
    cors_origins: Origins = Field(
        ("*",), description="Origins that may call from a browser, separated by commas; `*` is any."
    )
    limits: Literal["on", "off"] = Field("on", description="Whether rate limits are in force; quotas always are.")
    address_requests_per_minute: int = Field(1200, ge=1, description="Requests per client address and minute.")
    address_concurrent_calls: int = Field(200, ge=1, description="Concurrent calls per client address.")
    address_concurrent_uploads: int = Field(
        100,
        ge=1,
        description="Concurrent request bodies over 64 KiB per client address, in one process; beyond it the slowest "
        "of that address is refused.",
    )
    address_connections: int = Field(
        1000,
        ge=1,
        description="Connections per client address, in one process, never more than three quarters of all; further "
        "ones are answered with 429. Does not apply to trusted proxies.",
    )
    account_requests_per_minute: int = Field(600, ge=1, description="Charged calls per account and minute.")
    account_concurrent_calls: int = Field(50, ge=1, description="Concurrent charged calls per account.")
    redis_url: RedisUrl = Field(
        None,
        description="Redis or Valkey in which all processes and nodes count rate limits together, `redis://…`, "
        "`rediss://…` or `unix://…`; without it each process counts in its own memory.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of the proxies whose forwarding headers are trusted, separated by commas.",
    )
    time_zone: ZoneName = Field("Asia/Shanghai", description="Time zone in which days begin, for daily caps.")

    session_idle: Annotated[int, Unit("seconds")] = Field(
        43_200, ge=60, description="Idle time after which a browser session ends."
    )
    session_lifetime: Annotated[int, Unit("seconds")] = Field(
        30 * 86_400, ge=60, le=366 * 86_400, description="Time after which a browser session ends in any case."
    )
    public_url: HttpUrl | None = Field(
        None, description="Address at which browsers reach this server; used in the links of e-mails."
    )
    smtp_url: SecretStr | None = Field(
        None,
        description="Mail server, `smtp://…` (with STARTTLS) or `smtps://…`, including user and password; without it "
        "no mail is sent.",
    )
    mail_from: str | None = Field(None, description="Sender address of e-mails.")
    admin_key_file: Path | None = Field(
        None,
        description="File with the key that signs administrators' tokens, the same on all nodes; generated in the "
        "data directory if not set.",
    )
    argon2_memory: Annotated[int, Unit("KiB")] = Field(
        65_536,
        ge=19_456,
        le=4_194_304,
        description="Memory for hashing one password; `aiproject doctor` measures the time and recommends a value.",
    )
    argon2_passes: int = Field(3, ge=1, le=100, description="Passes over that memory.")
    argon2_lanes: int = Field(4, ge=1, le=64, description="Lanes of that memory, computed in parallel.")

    body_timeout: Seconds = Field(
        30.0, description="Time without a byte of the request body after which the sender is disconnected."
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Client connections of one process; further ones are answered with 503. The limit of open files "
        "applies as well.",
    )
    receive_budget_bytes: Annotated[int | None, Unit("bytes")] = Field(
        None,
        ge=64 * 1024 * 1024,
        description="Memory for request bodies of all workers together, at least 64 MiB each, shared fairly among "
        "client addresses; a quarter of the machine's memory if not set.",
    )
    reader_timeout: Seconds = Field(
        60.0, description="Time after which a client that does not read its answer is disconnected."
    )

    upstream_timeout: Seconds = Field(120.0, description="Silence after which a call to the platform is given up.")
    upstream_connect_timeout: Seconds = Field(10.0, description="Limit for connection, TLS and handshake.")
    upstream_first_frame_timeout: Seconds | None = Field(
        None, description="Limit for the first frame; the value of `upstream_timeout` if not set."
    )
    upstream_call_timeout: Seconds = Field(600.0, description="Limit for one whole call.")
    upstream_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a call while nothing of it has reached the client."
    )

    client_gone_drain: Annotated[float, Field(ge=0, le=3600), Unit("seconds")] = Field(
        30.0,
        description="Time for which an answer is read on after its client has disconnected, to charge its real usage;"
        " 0 stops it at once and charges an estimate. A call with an `Idempotency-Key` is always read to "
        "its end.",
    )
    unpaid_tokens_per_day: Annotated[int, Unit("tokens")] = Field(
        20_000,
        ge=0,
        le=1_000_000_000_000,
        description="Tokens of failed and moderated chats that an account need not pay per day; beyond it the account"
        " pays for the prompt and for what was passed on.",
    )
    fault_point: str | None = Field(
        None, description="Named point at which the process kills itself; only for tests of crash recovery."
    )
    quota_wait: Annotated[float, Field(ge=0, le=3600), Unit("seconds")] = Field(
        10.0,
        description="Longest time that a call waits for quota which other running calls of its account hold; 0 refuses"
        " it at once.",
    )
    hold_lease: Seconds = Field(
        30.0,
        description="Time after which any process may release the hold of a dead process; running calls renew theirs.",
    )
    shutdown_grace: Annotated[float, Field(ge=0, le=3600), Unit("seconds")] = Field(
        20.0, description="Time that running calls get on SIGTERM before streams are ended with an error frame."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Logging threshold; commands other than `serve` and `sandbox` log from `warning` on unless it is "
        "set.",
    )
    log_format: Literal["json", "console"] | None = Field(
        None, description="Format of log lines; `console` on a terminal and `json` elsewhere if not set."
    )
    sandbox_speech_model: Path | None = Field(
        None,
        description="Directory of a sherpa-onnx model with which the sandbox recognizes speech, in place of "
        "PocketSphinx.",
    )

    @property
    def credentials(self) -> IflytekCredentials | None:
        """The iFlytek credentials, or ``None``: the sandbox serves."""
        return self.iflytek.credentials

    @property
    def effective_database_url(self) -> str:
        """The database's address; holds a password, so never log it."""
        if self.database_url is not None and self.database_url.get_secret_value():
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'aiproject.db'}"

    @property
    def first_frame_timeout(self) -> float:
        """Seconds to wait for upstream's first frame."""
        return self.upstream_first_frame_timeout or self.upstream_timeout

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over the TOML file."""
        sources: list[PydanticBaseSettingsSource] = [
            GroupedSource(settings_cls, init_settings),
            VariablesSource(settings_cls),
        ]
        if path := config_path():
            sources.append(GroupedSource(settings_cls, TomlSource(settings_cls, Path(path))))
        return tuple(sources)
