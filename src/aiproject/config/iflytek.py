"""The settings of iFlytek's platform, in groups."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from aiproject.config.types import HttpUrl, Unit, WebSocketUrl

__all__ = ["DictationSettings", "IflytekCredentials", "IflytekSettings", "OcrSettings", "SettingGroup", "SparkSettings"]


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


class SettingGroup(BaseModel):
    """Settings of one subject: a table of the settings file.

    Attributes:
        variable_prefix: what the names of its variables begin with, in lower case and after ``AIPROJECT_``; the same
            names are keys of the file's top level, so that files from before there were groups keep working.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    variable_prefix: ClassVar[str]


class SparkSettings(SettingGroup):
    """The text model."""

    variable_prefix = "spark_"

    url: WebSocketUrl = Field("wss://spark-api.xf-yun.com/v3.5/chat", description="Address of the text model.")
    domain: str = Field("generalv3.5", description="The text model's `domain`; must fit the address.")
    max_tokens: Annotated[int, Unit("tokens")] = Field(
        4096, ge=1, le=65_535, description="Completion limit sent to the model; a small balance lowers it."
    )
    temperature: float = Field(0.5, gt=0, le=1, description="Temperature sent to the model.")
    top_k: int = Field(4, ge=1, le=6, description="`top_k` sent to the model.")
    warm_connections: int = Field(
        16,
        ge=0,
        le=1000,
        description="Connections to the model kept open for the next questions, at most; their number follows recent "
        "load, and 0 keeps none.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        description="Concurrent connections that the platform allows this application; no limit is assumed if not set.",
    )


class DictationSettings(SettingGroup):
    """Speech to text."""

    variable_prefix = "dictation_"

    url: WebSocketUrl = Field(
        "wss://iat-api.xfyun.cn/v2/iat", description="Address of the dictation service; it decides the protocol."
    )
    pace: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Rate at which audio is sent, as a multiple of real time; 0 is as fast as the platform accepts it.",
    )
    frame_bytes: Annotated[int, Unit("bytes")] = Field(
        8000, ge=320, le=9750, multiple_of=2, description="Audio bytes in one dictation frame."
    )
    language: str = Field(
        "zh_cn", description="Language requested of the dictation service; the sandbox always recognizes English."
    )
    accent: str = Field("mandarin", description="Accent requested of the dictation service.")
    correction: bool = Field(
        False,
        description="Whether dynamic correction (wpgs) is requested; it must be enabled in the platform's console.",
    )


class OcrSettings(SettingGroup):
    """Text in pictures."""

    variable_prefix = "ocr_"

    url: HttpUrl = Field(
        "https://api.xf-yun.com/v1/private/hh_ocr_recognize_doc",
        description="Address of the service that reads text in pictures; the last element of the path is the "
        "service's name.",
    )


class IflytekSettings(SettingGroup):
    """The application on the platform, and its three services."""

    variable_prefix = "iflytek_"

    app_id: str = Field(
        "",
        max_length=64,
        description="APPID from the iFlytek console. Set all three credentials, or none to use the sandbox.",
    )
    api_key: SecretStr = Field(SecretStr(""), description="APIKey from the iFlytek console.")
    api_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="APISecret from the iFlytek console."
    )
    spark: SparkSettings = SparkSettings.model_validate({})
    dictation: DictationSettings = DictationSettings.model_validate({})
    ocr: OcrSettings = OcrSettings.model_validate({})

    @field_validator("api_secret")
    @classmethod
    def _credentials_are_whole(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        # At the last of the three and not over the whole, which is looked at only where every field is fine: all
        # complaints are to come at once.
        key = info.data.get("api_key")
        given = [
            bool(info.data.get("app_id")),
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
        if not self.app_id:
            return None
        return IflytekCredentials(
            self.app_id,
            self.api_key.get_secret_value(),
            self.api_secret.get_secret_value(),
        )
