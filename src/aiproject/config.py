"""One frozen `Settings`, read once from the environment and a TOML file; the environment wins.

Every field is one documented setting: its variable is ``AIPROJECT_`` and the field's name in capitals, its key in the
file (named by ``AIPROJECT_CONFIG``) is the field's name. `load_settings` reports all complaints at once, names that are
no setting included (`aiproject.setting_names`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from aiproject.errors import Misconfigured
from aiproject.protocols.addresses import parse_network
from aiproject.setting_names import PREFIX, SERVICE_LINK_IN_PORT, is_service_address, unknown_keys, unknown_variables

__all__ = ["IflytekCredentials", "Settings", "Unit", "config_path", "load_settings"]


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            is_usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:  # its text may quote the address
            is_usable = False
        if not is_usable:
            raise ValueError(f"must be a {' or '.join(s + '://' for s in schemes)} address with a host")
        if parts.username or parts.password or parts.fragment:
            raise ValueError("must not hold a user, a password or a fragment")
        return value

    return AfterValidator(check)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # not found; no name of a zone; a folder of zones
        raise ValueError("is no time zone; it is named like Asia/Shanghai or UTC") from None
    return value


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    try:
        parts = urlsplit(value.get_secret_value())
        is_usable = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote the password
        is_usable = False
    if not is_usable or parts.scheme not in ("redis", "rediss", "valkey", "valkeys", "unix"):
        raise ValueError("must be a redis://, rediss://, valkey://, valkeys:// or unix:// address")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        try:
            parse_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _unlimited(value: object) -> object:
    return None if value == "unlimited" else value


def _unmetered(value: object) -> object:
    return None if value == "unmetered" else value


MAX_SIGNUP_UNITS = 10**15
"""What one grant may add as well. A balance ends at 2^53 - 1, which leaves room for eight more grants of that size."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a setting's number, as the generated reference shows it."""

    name: str


Seconds = Annotated[float, Field(gt=0, le=86_400), Unit("seconds")]
WebSocketUrl = Annotated[str, _url("ws", "wss")]
HttpUrl = Annotated[str, _url("http", "https")]


class IflytekCredentials:
    """The console's three credentials of one application; the two secrets never show in a ``repr``.

    Attributes:
        app_id: at most 8 characters; travels in requests.
        api_key: names the key; travels in signed URLs.
        api_secret: the HMAC key; never leaves the process.
    """

    __slots__ = ("api_key", "api_secret", "app_id")

    def __init__(self, app_id: str, api_key: str, api_secret: str) -> None:
        self.app_id = app_id
        self.api_key = api_key
        self.api_secret = api_secret

    def __repr__(self) -> str:
        return f"IflytekCredentials(app_id={self.app_id!r}, api_key='***', api_secret='***')"


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

    iflytek_app_id: str = Field(
        "",
        max_length=64,
        description="APPID from the iFlytek console. Set all three credentials, or none to use the sandbox.",
    )
    iflytek_api_key: SecretStr = Field(SecretStr(""), description="APIKey from the iFlytek console.")
    iflytek_api_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="APISecret from the iFlytek console."
    )
    spark_url: WebSocketUrl = Field("wss://spark-api.xf-yun.com/v3.5/chat", description="Address of the text model.")
    spark_domain: str = Field("generalv3.5", description="The text model's `domain`; must fit the address.")
    dictation_url: WebSocketUrl = Field(
        "wss://iat-api.xfyun.cn/v2/iat", description="Address of the dictation service; it decides the protocol."
    )
    ocr_url: HttpUrl = Field(
        "https://api.xf-yun.com/v1/private/hh_ocr_recognize_doc",
        description="Address of the service that reads text in pictures; the last element of the path is the "
        "service's name.",
    )

    signup_tokens: Annotated[int, Unit("tokens")] = Field(
        10_000, ge=0, le=MAX_SIGNUP_UNITS, description="Tokens that a new account starts with."
    )
    signup_pic_times: int = Field(
        10, ge=0, le=MAX_SIGNUP_UNITS, description="Picture recognitions that a new account starts with."
    )
    signup_voice_seconds: Annotated[int | None, BeforeValidator(_unmetered), Unit("seconds")] = Field(
        None,
        ge=0,
        le=MAX_SIGNUP_UNITS // 1000,
        description="Seconds of dictation that a new account starts with; `unmetered` counts them and refuses nobody.",
    )
    signups_per_address_per_day: Annotated[int | None, BeforeValidator(_unlimited)] = Field(
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
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)] = Field(
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
    redis_url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        None,
        description="Redis or Valkey in which all processes and nodes count rate limits together, `redis://…`, "
        "`rediss://…` or `unix://…`; without it each process counts in its own memory.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list), AfterValidator(_networks)] = (
        Field(
            (),
            description="Addresses or networks of the proxies whose forwarding headers are trusted, separated "
            "by commas.",
        )
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "Asia/Shanghai", description="Time zone in which days begin, for daily caps."
    )

    session_idle: Annotated[int, Unit("seconds")] = Field(
        43_200, ge=60, description="Idle time after which a browser session ends."
    )
    session_lifetime: Annotated[int, Unit("seconds")] = Field(
        30 * 86_400, ge=60, le=366 * 86_400, description="Time after which a browser session ends in any case."
    )
    public_url: Annotated[str, _url("http", "https")] | None = Field(
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
        ge=32 * 1024 * 1024,
        description="Memory for request bodies of all workers together, at least 32 MiB each, shared fairly among "
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
    spark_max_tokens: Annotated[int, Unit("tokens")] = Field(
        4096, ge=1, le=65_535, description="Completion limit sent to the model; a small balance lowers it."
    )
    spark_temperature: float = Field(0.5, gt=0, le=1, description="Temperature sent to the model.")
    spark_top_k: int = Field(4, ge=1, le=6, description="`top_k` sent to the model.")
    spark_warm_connections: int = Field(
        16,
        ge=0,
        le=1000,
        description="Connections to the model kept open for the next questions, at most; their number follows recent "
        "load, and 0 keeps none.",
    )
    spark_concurrency: int | None = Field(
        None,
        ge=1,
        description="Concurrent connections that the platform allows this application; no limit is assumed if not set.",
    )
    dictation_pace: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Rate at which audio is sent, as a multiple of real time; 0 is as fast as the platform accepts it.",
    )
    dictation_frame_bytes: Annotated[int, Unit("bytes")] = Field(
        8000, ge=320, le=9750, multiple_of=2, description="Audio bytes in one dictation frame."
    )
    dictation_language: str = Field(
        "zh_cn", description="Language requested of the dictation service; the sandbox always recognizes English."
    )
    dictation_accent: str = Field("mandarin", description="Accent requested of the dictation service.")
    dictation_correction: bool = Field(
        False,
        description="Whether dynamic correction (wpgs) is requested; it must be enabled in the platform's console.",
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

    @field_validator("iflytek_api_secret")
    @classmethod
    def _credentials_are_whole(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        # At the last of the three and not over the whole, which is looked at only where every field is fine: all
        # complaints are to come at once.
        key = info.data.get("iflytek_api_key")
        given = [
            bool(info.data.get("iflytek_app_id")),
            key is not None and bool(key.get_secret_value()),
            bool(value.get_secret_value()),
        ]
        if any(given) and not all(given):
            raise ValueError(
                "AIPROJECT_IFLYTEK_APP_ID, AIPROJECT_IFLYTEK_API_KEY and AIPROJECT_IFLYTEK_API_SECRET: "
                "give all three, or none for the sandbox"
            )
        return value

    @property
    def credentials(self) -> IflytekCredentials | None:
        """The iFlytek credentials, or ``None``: the sandbox serves."""
        if not self.iflytek_app_id:
            return None
        return IflytekCredentials(
            self.iflytek_app_id,
            self.iflytek_api_key.get_secret_value(),
            self.iflytek_api_secret.get_secret_value(),
        )

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
        path = config_path()
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        return (*sources, TomlConfigSettingsSource(settings_cls, Path(path))) if path else sources


def config_path() -> str:
    """Return what ``AIPROJECT_CONFIG`` names, in whatever case it is written, as with all variables; empty: no file."""
    return next((value for name, value in os.environ.items() if name.upper() == f"{PREFIX}CONFIG" and value), "")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (from the command line) win over everything else.

    Raises:
        Misconfigured: with every complaint, a line each, and no value in any (a value may be a secret).
    """
    path = config_path()
    complaints = list(unknown_variables(os.environ, Settings.model_fields))
    if path and not Path(path).is_file():
        raise Misconfigured("\n".join([*complaints, f"AIPROJECT_CONFIG: there is no file {path}"]))
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        complaints += [told for fault in error.errors(include_url=False) for told in _told(fault, path)]
        raise Misconfigured("\n".join(complaints)) from None
    except ValueError as error:  # a TOML file that is no TOML
        complaints.append(f"AIPROJECT_CONFIG: {path} cannot be read: {error}")
        raise Misconfigured("\n".join(complaints)) from None
    if complaints:
        raise Misconfigured("\n".join(complaints))
    return settings


def _told(fault: ErrorDetails, path: str) -> Iterator[str]:
    """Yield the complaints about one fault, without its value."""
    field = str(fault["loc"][0]) if fault["loc"] else ""
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        for complaint in unknown_keys(field, fault["input"], Settings.model_fields):
            yield f"AIPROJECT_CONFIG: {path}: {complaint}"
    elif field == "port" and is_service_address(str(fault["input"])):
        yield SERVICE_LINK_IN_PORT
    else:
        yield f"{PREFIX}{field.upper()}: {message}" if field else message
