"""The settings: where they come from, what they refuse, and that no complaint tells a secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.loading import load_settings
from aiproject.config.settings import Settings
from aiproject.config.sources import setting_fields
from aiproject.errors import Misconfigured
from aiproject.messages.formatting import Language, format_error

SECRET = "hunter2-hunter2-hunter2"

Set = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"AIPROJECT_{name}", value)

    return set_variables


def complaints() -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    return format_error(caught.value, Language.EN).splitlines()


# The table of names that stay, with what each is worth where nobody says anything.
PUBLISHED: dict[str, Any] = {
    "HOST": "127.0.0.1",
    "PORT": 8080,
    "DATA_DIR": Path("./data"),
    "DATABASE_URL": None,
    "IFLYTEK_APP_ID": "",
    "IFLYTEK_API_KEY": "",
    "IFLYTEK_API_SECRET": "",
    "SPARK_URL": "wss://spark-api.xf-yun.com/v3.5/chat",
    "SPARK_DOMAIN": "generalv3.5",
    "DICTATION_URL": "wss://iat-api.xfyun.cn/v2/iat",
    "OCR_URL": "https://api.xf-yun.com/v1/private/hh_ocr_recognize_doc",
    "SIGNUP_TOKENS": 10_000,
    "SIGNUP_PIC_TIMES": 10,
    "SIGNUP_VOICE_SECONDS": None,
    "REGISTRATION": "open",
    "VOICE_ANONYMOUS": True,
    "CORS_ORIGINS": ("*",),
    "UPSTREAM_TIMEOUT": 120.0,
    "LIMITS": "on",
    "HOLD_LEASE": 30.0,
    "QUOTA_WAIT": 10.0,
    "LOG_LEVEL": "info",
    "LOG_FORMAT": None,
}


class TestDefaults:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_published_variable_and_its_default(self, name: str) -> None:
        settings = load_settings()
        path = next(path for flat, path, _ in setting_fields(Settings) if flat == name.lower())
        value = attrgetter(".".join(path))(settings)
        value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        assert value == PUBLISHED[name]
        assert type(value) is type(PUBLISHED[name])

    def test_every_setting_has_a_sentence(self) -> None:
        for name, _, field in setting_fields(Settings):
            assert field.description, name
            assert field.description.endswith("."), name

    def test_derived_values(self) -> None:
        settings = load_settings()
        assert settings.credentials is None
        assert settings.first_frame_timeout == 120.0
        assert settings.effective_database_url == f"sqlite:///{Path('data').resolve()}/aiproject.db"

    def test_the_stream_of_settings_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            load_settings().port = 1


class TestEnvironment:
    def test_values(self, environment: Set) -> None:
        environment(
            HOST="0.0.0.0",  # noqa: S104
            PORT="0",
            DATABASE_URL=f"mysql://root:{SECRET}@db/x",
            SIGNUP_VOICE_SECONDS="600",
            VOICE_ANONYMOUS="false",
            CORS_ORIGINS="https://a.example, https://b.example,",
            UPSTREAM_TIMEOUT="2.5",
            LOG_FORMAT="console",
        )
        settings = load_settings()
        assert (settings.host, settings.port, settings.voice_anonymous) == ("0.0.0.0", 0, False)  # noqa: S104
        assert settings.effective_database_url == f"mysql://root:{SECRET}@db/x"
        assert (settings.signup_voice_seconds, settings.upstream_timeout) == (600, 2.5)
        assert settings.cors_origins == ("https://a.example", "https://b.example")
        assert settings.first_frame_timeout == 2.5
        assert SECRET not in repr(settings)

    def test_empty_is_not_set(self, environment: Set) -> None:
        undisturbed = load_settings().model_dump()
        environment(**dict.fromkeys(PUBLISHED, ""))
        assert load_settings().model_dump() == undisturbed

    def test_unmetered(self, environment: Set) -> None:
        environment(SIGNUP_VOICE_SECONDS="unmetered")
        assert load_settings().signup_voice_seconds is None

    def test_signups_of_an_address(self, environment: Set) -> None:
        """A class behind one address gets its quota, a burst of 119 does not."""
        assert load_settings().signups_per_address_per_day == 60
        environment(SIGNUPS_PER_ADDRESS_PER_DAY="unlimited")
        assert load_settings().signups_per_address_per_day is None

    def test_overrides_win(self, environment: Set) -> None:
        environment(PORT="9000")
        assert load_settings(port=9001).port == 9001

    def test_the_case_of_a_name_does_not_matter(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "aiproject.toml").write_text("port = 9000\n")
        monkeypatch.setenv("aiproject_registration", "closed")
        monkeypatch.setenv("AiProject_Config", str(tmp_path / "aiproject.toml"))
        assert (load_settings().registration, load_settings().port) == ("closed", 9000)


class TestUnknownNames:
    """A misspelt setting must not leave the default in force."""

    def test_a_variable_stops_the_start(self, environment: Set) -> None:
        environment(REGISTRATON="closed")
        assert complaints() == ["AIPROJECT_REGISTRATON: is no setting; did you mean AIPROJECT_REGISTRATION?"]

    def test_they_are_told_with_all_other_complaints(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text(f'registraton = "{SECRET}"\nhost = 1\n[limits_of]\naddress_requests = "{SECRET}"\n')
        environment(CONFIG=str(path), LIMTS="on", PORT="x")
        lines = complaints()
        assert {line.partition(": ")[0] for line in lines} == {
            f"AIPROJECT_{name}" for name in ("LIMTS", "PORT", "HOST", "CONFIG")
        }
        assert f"AIPROJECT_CONFIG: {path}: registraton is no setting; did you mean registration?" in lines
        assert any(
            f"{path}: limits_of.address_requests is no setting; settings stand in no table of that name" in x
            for x in lines
        )
        assert len(lines) == 5
        assert SECRET not in "".join(lines)

    def test_they_are_told_beside_a_missing_or_broken_file(self, environment: Set, tmp_path: Path) -> None:
        environment(CONFIG=str(tmp_path / "none.toml"), LIMTS="on")
        assert len(complaints()) == 2
        (tmp_path / "none.toml").write_text("[")
        assert len(complaints()) == 2

    def test_a_services_address_for_a_port_is_explained(self, environment: Set) -> None:
        environment(PORT="tcp://10.96.3.7:8080", SERVICE_HOST="10.96.3.7", SERVICE_PORT="8080")
        (line,) = complaints()
        assert line.startswith("AIPROJECT_PORT: ")
        assert "Kubernetes" in line
        assert "enableServiceLinks: false" in line
        assert "10.96.3.7" not in line


class TestCredentials:
    def test_all_three(self, environment: Set) -> None:
        environment(IFLYTEK_APP_ID="abcd1234", IFLYTEK_API_KEY="key", IFLYTEK_API_SECRET=SECRET)
        credentials = load_settings().credentials
        assert credentials is not None
        assert (credentials.app_id, credentials.api_key, credentials.api_secret) == ("abcd1234", "key", SECRET)

    @pytest.mark.parametrize(
        "given",
        [("APP_ID",), ("API_KEY",), ("API_SECRET",), ("APP_ID", "API_KEY"), ("API_KEY", "API_SECRET")],
    )
    def test_some_of_them_are_a_complaint(self, environment: Set, given: tuple[str, ...]) -> None:
        environment(**{f"IFLYTEK_{name}": SECRET for name in given})
        (line,) = complaints()
        assert "give all three, or none" in line
        assert SECRET not in line

    def test_no_repr_tells_a_secret(self) -> None:
        told = repr(IflytekCredentials("appid", "the key", SECRET))
        assert "appid" in told
        assert "the key" not in told
        assert SECRET not in told


class TestComplaints:
    def test_all_at_once_a_line_each(self, environment: Set) -> None:
        environment(
            PORT="70000",
            REGISTRATION="maybe",
            SIGNUP_TOKENS="-1",
            SPARK_URL="https://spark.example/chat",
            IFLYTEK_APP_ID="only",
            UPSTREAM_TIMEOUT="0",
        )
        lines = complaints()
        for name in ("PORT", "REGISTRATION", "SIGNUP_TOKENS", "SPARK_URL", "UPSTREAM_TIMEOUT"):
            assert sum(line.startswith(f"AIPROJECT_{name}: ") for line in lines) == 1, name
        assert any("give all three" in line for line in lines)
        assert len(lines) == 6

    @pytest.mark.parametrize(
        "name", sorted({*PUBLISHED} - {"HOST", "DATA_DIR", "DATABASE_URL", "SPARK_DOMAIN", "CORS_ORIGINS"})
    )
    def test_no_complaint_quotes_a_value(self, environment: Set, name: str) -> None:
        """Somebody pastes the secret into the wrong variable."""
        environment(**{name: f"ws://user:{SECRET}@[::1/{SECRET}"})
        with pytest.raises(Misconfigured) as caught:
            load_settings()
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "url",
        [
            "wss://",
            "spark-api.xf-yun.com/v3.5/chat",
            "wss://user@host/chat",
            "wss://host:99999/chat",
            "wss://host:port/chat",
            "wss://host:0/chat",
            "wss://[::1/chat",
            "wss://host/chat#part",
            "http://host/chat",
        ],
    )
    def test_no_address(self, environment: Set, url: str) -> None:
        environment(SPARK_URL=url)
        (line,) = complaints()
        assert line.startswith("AIPROJECT_SPARK_URL: must ")

    @pytest.mark.parametrize(
        ("name", "value"), [("SPARK_URL", "ws://127.0.0.1:1/x"), ("OCR_URL", "http://[::1]:8/v1/private/sf8e6aca1")]
    )
    def test_any_host_and_port_may_stand_in(self, environment: Set, name: str, value: str) -> None:
        environment(**{name: value})
        assert attrgetter(f"iflytek.{name.lower().replace('_', '.')}")(load_settings()) == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("SIGNUP_VOICE_SECONDS", "metered"),
            ("SIGNUP_VOICE_SECONDS", "-1"),
            ("SIGNUP_VOICE_SECONDS", str(2**53)),
            ("SIGNUP_TOKENS", str(2**63 - 1)),
            ("SIGNUP_TOKENS", str(10**15 + 1)),
            ("SIGNUP_PIC_TIMES", str(2**63)),
            ("SIGNUPS_PER_ADDRESS_PER_DAY", "-1"),
            ("SIGNUPS_PER_ADDRESS_PER_DAY", "many"),
            ("PASSWORD_MIN_LENGTH", "5"),
            ("PASSWORD_MIN_LENGTH", "65"),
            ("VOICE_ANONYMOUS", "perhaps"),
            ("LIMITS", "true"),
            ("LOG_LEVEL", "loud"),
            ("DICTATION_FRAME_BYTES", "8001"),
            ("SPARK_TEMPERATURE", "0"),
            ("UPSTREAM_ATTEMPTS", "0"),
            ("UPSTREAM_TIMEOUT", "nan"),
            ("UPSTREAM_TIMEOUT", "inf"),
            ("TIME_ZONE", "Beijing"),
            ("TIME_ZONE", "../zone"),
            ("TIME_ZONE", "Asia"),
        ],
    )
    def test_out_of_range(self, environment: Set, name: str, value: str) -> None:
        environment(**{name: value})
        (line,) = complaints()
        assert line.startswith(f"AIPROJECT_{name}: ")


class TestFile:
    def test_environment_wins_over_the_file(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text(
            'port = 9000\nhost = "::1"\nsignup_voice_seconds = "unmetered"\nvoice_anonymous = false\n'
            'cors_origins = ["https://a.example"]\nregistration = "closed"\n'
        )
        environment(CONFIG=str(path), PORT="9001", REGISTRATION="")
        settings = load_settings()
        assert (settings.port, settings.host, settings.voice_anonymous) == (9001, "::1", False)
        assert (settings.cors_origins, settings.registration) == (("https://a.example",), "closed")

    def test_grouped_settings_stand_in_tables_or_under_their_flat_names(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text(
            'spark_domain = "x1"\ndictation_pace = 2\n[iflytek]\napp_id = "a"\napi_key = "k"\napi_secret = "s"\n'
            "[iflytek.spark]\nmax_tokens = 100\ntop_k = 2\n"
        )
        environment(CONFIG=str(path), SPARK_TOP_K="6", DICTATION_CORRECTION="true")
        settings = load_settings()
        spark, dictation = settings.iflytek.spark, settings.iflytek.dictation
        assert (spark.domain, spark.max_tokens, spark.top_k) == ("x1", 100, 6)
        assert (dictation.pace, dictation.correction) == (2.0, True)
        assert settings.credentials is not None
        assert settings.credentials.app_id == "a"

    def test_the_command_line_wins_over_a_group(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text('[iflytek.spark]\ndomain = "x1"\n')
        environment(CONFIG=str(path))
        assert load_settings(spark_domain="lite").iflytek.spark.domain == "lite"

    def test_one_setting_under_two_names_is_told(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text('spark_domain = "lite"\n[iflytek.spark]\ndomain = "x1"\n')
        environment(CONFIG=str(path))
        (line,) = complaints()
        assert line.endswith("spark_domain and iflytek.spark.domain are the same setting; remove one of the two")

    def test_complaints_about_a_group_name_the_variable(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text(f'[iflytek.spark]\ntop_k = 7\ndomian = "{SECRET}"\n[iflytek]\napp_id = "a"\n')
        environment(CONFIG=str(path), IFLYTEK=SECRET)
        lines = complaints()
        assert any(line.startswith("AIPROJECT_SPARK_TOP_K: ") for line in lines)
        assert any(line.startswith("AIPROJECT_IFLYTEK_API_SECRET: ") for line in lines)
        assert any(line.startswith("AIPROJECT_IFLYTEK: is no setting") for line in lines)
        assert any("iflytek.spark.domian is no setting; did you mean iflytek.spark.domain?" in line for line in lines)
        assert SECRET not in "".join(lines)

    def test_no_such_file(self, environment: Set, tmp_path: Path) -> None:
        environment(CONFIG=str(tmp_path / "missing.toml"))
        (line,) = complaints()
        assert line == f"AIPROJECT_CONFIG: there is no file {tmp_path / 'missing.toml'}"

    @pytest.mark.parametrize("content", [f'api_key = "{SECRET}'.encode(), b"\xff\xfe", b"[a"])
    def test_no_toml(self, environment: Set, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "broken.toml"
        path.write_bytes(content)
        environment(CONFIG=str(path))
        (line,) = complaints()
        assert line.startswith(f"AIPROJECT_CONFIG: {path} cannot be read")
        assert SECRET not in line

    def test_wrong_types_are_complaints_without_their_value(self, environment: Set, tmp_path: Path) -> None:
        path = tmp_path / "wrong.toml"
        path.write_text(f'port = "{SECRET}"\niflytek_api_key = ["{SECRET}"]\n')
        environment(CONFIG=str(path))
        lines = complaints()
        assert len(lines) >= 2
        assert SECRET not in "".join(lines)


def test_reading_settings_reads_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PORT": "1", "HOST": "elsewhere"})
    assert load_settings().port == 8080


class TestRedis:
    @pytest.mark.parametrize(
        "url", ["redis://h", "rediss://:p%40ss@h:6380/1", "valkey://h:6379", "valkeys://h", "unix:///run/redis.sock"]
    )
    def test_its_addresses(self, environment: Set, url: str) -> None:
        environment(REDIS_URL=url)
        found = load_settings().redis_url
        assert found is not None
        assert found.get_secret_value() == url

    @pytest.mark.parametrize("url", [f"http://{SECRET}@h", f"redis://:{SECRET}@", SECRET, "unix://", "redis://h:x"])
    def test_what_is_none_is_told_without_its_password(self, environment: Set, url: str) -> None:
        environment(REDIS_URL=url)
        (line,) = complaints()
        assert line.startswith("AIPROJECT_REDIS_URL: must be a redis://")
        assert SECRET not in line


class TestTrustedProxies:
    def test_addresses_and_networks(self, environment: Set) -> None:
        environment(TRUSTED_PROXIES="10.0.0.0/8, ::1,192.0.2.1")
        assert load_settings().trusted_proxies == ("10.0.0.0/8", "::1", "192.0.2.1")

    @pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", "*"])
    def test_names_and_stars_are_none(self, environment: Set, wrong: str) -> None:
        environment(TRUSTED_PROXIES=f"127.0.0.1,{wrong}")
        (line,) = complaints()
        assert line.startswith("AIPROJECT_TRUSTED_PROXIES: ")
        assert wrong in line
