"""The table from the error tree to the seed's answers: complete, and what existing apps can live with."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from aiproject import errors
from aiproject.codes import Code, Detail
from aiproject.errors import AiProjectError
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.iflytek.error_codes import TABLES, Service, advise, refusal
from aiproject.protocols.iflytek.spark.frames import error_frame
from aiproject.protocols.legacy import LIMITS_WITH_STATUS_200, error_number, failure_of, json_bytes, success


class Fate(NamedTuple):
    """How an error is told where the endpoint's own code is ``MODEL_ERROR``."""

    error: AiProjectError
    status: int
    code: Code
    number: int
    retry_after: int | None = None


# One row for each class of the tree, branches included; a new class makes `test_every_error_has_a_fate` fail.
FATES = [
    Fate(AiProjectError("x"), 500, Code.APP_INTERNAL_ERROR, 20000),
    Fate(errors.Refused(), 200, Code.MODEL_ERROR, 20000),
    Fate(errors.InvalidInput(), 200, Code.MODEL_ERROR, 20000),
    Fate(errors.NameTaken(), 200, Code.USER_NAME_REPEAT, 20000),
    Fate(errors.LoginFailed(), 200, Code.LOGIN_ERROR, 20000),
    Fate(errors.AccountUnknown(), 200, Code.USER_NOT_FOUND, 20000),
    Fate(errors.RegistrationClosed(), 200, Code.REGISTRATION_CLOSED, 20000),
    Fate(errors.NotSignedIn(), 401, Code.NOT_SIGNED_IN, 20000),
    Fate(errors.NotAllowed(), 403, Code.PERMISSION_NOT_ALLOW, 20000),
    Fate(errors.NotFound(), 404, Code.ITEM_NOT_FOUND, 20000),
    Fate(errors.SpendLimitReached("tokens", retry_after=60), 429, Code.KEY_LIMIT_REACHED, 20005, 60),
    Fate(errors.QuotaExhausted("tokens"), 200, Code.TOKEN_NOT_ENOUGH, 20005),
    Fate(errors.QuotaBusy("tokens"), 200, Code.TOKEN_NOT_ENOUGH, 20005),
    Fate(errors.FileMissing(), 200, Code.GET_FILE_FAIL, 20000),
    Fate(errors.UnusableFile(), 200, Code.FILE_FORMAT_ILLEGAL, 20000),
    Fate(errors.BodyTooLarge(2048), 413, Code.REQUEST_TOO_LARGE, 20000),
    Fate(errors.BodyTooSlow(), 408, Code.REQUEST_TIMEOUT, 20000),
    Fate(errors.BodyEncoded(), 415, Code.UNSUPPORTED_ENCODING, 20000),
    Fate(errors.VoucherUnusable(), 200, Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND, 20000),
    Fate(errors.VoucherRedeemed(), 200, Code.TOKEN_ALREADY_GET, 20000),
    Fate(errors.ReceiptUnknown(), 404, Code.RECEIPT_NOT_FOUND, 20000),
    Fate(errors.ModelUnknown("x"), 404, Code.MODEL_NOT_FOUND, 20000),
    Fate(errors.TooManyRequests(7), 429, Code.TOO_MANY_REQUESTS, 20000, 7),
    Fate(errors.HttpFault(405), 405, Code.METHOD_NOT_ALLOWED, 20000),
    Fate(errors.UpstreamFailed(), 200, Code.MODEL_ERROR, 20000),
    Fate(errors.UpstreamUnreachable(), 200, Code.MODEL_ERROR, 20002),
    Fate(errors.UpstreamRefused(code=10013), 200, Code.MODEL_ERROR, 10013),
    Fate(errors.UpstreamTimeout("gap", 1), 200, Code.MODEL_ERROR, 20001),
    Fate(errors.UpstreamTruncated(), 200, Code.MODEL_ERROR, 20002),
    Fate(errors.UpstreamProtocolViolation(), 200, Code.MODEL_ERROR, 20003),
    Fate(errors.Unavailable("x", retry_after=9), 503, Code.SERVICE_UNAVAILABLE, 20004, 9),
    Fate(errors.Misconfigured(), 500, Code.APP_INTERNAL_ERROR, 20000),
]
EACH = pytest.mark.parametrize("fate", FATES, ids=lambda fate: type(fate.error).__name__)


def tree(kind: type[AiProjectError]) -> set[type[AiProjectError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return {kind}.union(*map(tree, children))


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


class TestTable:
    def test_every_error_has_a_fate(self) -> None:
        assert {type(fate.error) for fate in FATES} == tree(AiProjectError)

    @EACH
    def test_fate(self, fate: Fate) -> None:
        failure = failure_of(fate.error, code=Code.MODEL_ERROR)
        assert (failure.status, failure.code) == (fate.status, fate.code)
        assert getattr(fate.error, "retry_after", None) == fate.retry_after
        assert error_number(fate.error) == fate.number

    @EACH
    def test_a_person_can_read_it(self, fate: Fate) -> None:
        body = failure_of(fate.error, code=Code.MODEL_ERROR).body()
        assert list(body) == ["code", "msg"]
        assert is_chinese(body["msg"])
        assert body["code"] == str(fate.code)
        assert isinstance(body["code"], str)

    @EACH
    def test_it_can_be_told_inside_a_stream(self, fate: Fate) -> None:
        failure = failure_of(fate.error, code=Code.MODEL_ERROR)
        frame = json.loads(error_frame(code=error_number(fate.error), message=failure.msg, sid=None))
        assert frame["header"]["code"] == fate.number != 0

    @pytest.mark.parametrize(("path", "code"), sorted(LIMITS_WITH_STATUS_200.items()))
    def test_where_apps_read_a_limit_only_with_200(self, path: str, code: Code) -> None:
        plain = failure_of(errors.TooManyRequests(7), code=Code.MODEL_ERROR, path=path)
        assert plain == (200, code, "请求过于频繁，请在 7 秒后再试")
        lock = failure_of(errors.TooManyRequests(86_400, Detail.LOGIN_LOCKED), code=Code.MODEL_ERROR, path=path)
        assert lock == (200, code, "登录失败次数过多，已锁定；请重置密码或联系管理员")
        spent = failure_of(errors.SpendLimitReached("pic_times"), code=Code.MODEL_ERROR, path=path)
        assert spent.status == 429, "only programs with an API key meet it, which the apps have not"

    @pytest.mark.parametrize("path", ["/auth/register", "/textModel/chat", "/textModel/stream", "/v1/usage", ""])
    def test_where_a_limit_keeps_its_status(self, path: str) -> None:
        failure = failure_of(errors.TooManyRequests(7), code=Code.MODEL_ERROR, path=path)
        assert failure == (429, Code.TOO_MANY_REQUESTS, "请求过于频繁，请稍后再试")

    def test_only_faults_of_http_keep_their_status(self) -> None:
        """Existing apps look at ``code`` only under HTTP 200, and repeat the call under any other."""
        for fate in FATES:
            is_refusal = isinstance(fate.error, (errors.Refused, errors.UpstreamFailed))
            # A receipt has an address of its own, which no existing app asks for: there, 404 says it as HTTP does. Nor
            # has any of them an API key or a session.
            is_http = isinstance(
                fate.error,
                (
                    errors.BodyEncoded,
                    errors.BodyTooLarge,
                    errors.BodyTooSlow,
                    errors.HttpFault,
                    errors.NotAllowed,
                    errors.NotFound,
                    errors.NotSignedIn,
                    errors.ReceiptUnknown,
                    errors.ModelUnknown,
                    errors.SpendLimitReached,
                    errors.TooManyRequests,
                ),
            )
            assert (fate.status == 200) == (is_refusal and not is_http)

    def test_a_bug_tells_nothing_of_itself(self) -> None:
        failure = failure_of(RuntimeError("uuid=secret"), code=Code.MODEL_ERROR)
        assert failure == (500, Code.APP_INTERNAL_ERROR, format_message(Code.APP_INTERNAL_ERROR, Language.ZH))
        assert error_number(RuntimeError()) == 20000

    @pytest.mark.parametrize("kind", [errors.Unavailable, errors.Misconfigured])
    def test_our_own_faults_tell_no_detail(self, kind: type[AiProjectError]) -> None:
        assert "password" not in failure_of(kind("mysql: password"), code=Code.MODEL_ERROR).msg


class TestRefusals:
    @pytest.mark.parametrize(
        ("error", "msg"),
        [
            (errors.InvalidInput(Detail.FIELD_MISSING, field="uuid"), "缺少 uuid"),
            (errors.UnusableFile(Detail.PICTURE_WANTED), "请上传 JPG、PNG 或 BMP 图片"),
            (errors.TooManyRequests(1, Detail.TOO_MANY_AT_ONCE), "同时进行的请求过多，请稍后再试"),
        ],
    )
    def test_the_detail_is_what_is_said(self, error: errors.Refused, msg: str) -> None:
        assert failure_of(error, code=Code.REGISTER_ERROR).msg == msg

    @pytest.mark.parametrize(
        ("capability", "code"),
        [
            ("tokens", "TOKEN_NOT_ENOUGH"),
            ("pic_times", "PIC_TIMES_NOT_ENOUGH"),
            ("voice_seconds", "VOICE_SECONDS_NOT_ENOUGH"),
        ],
    )
    def test_quota(self, capability: str, code: str) -> None:
        failure = failure_of(errors.QuotaExhausted(capability), code=Code.MODEL_ERROR)
        assert failure.body() == {"code": code, "msg": format_message(Code(code), Language.ZH)}


def vendor_refusal(service: Service, code: int, message: str = "") -> errors.UpstreamRefused:
    return refusal(service, code, message, "sid")


def advice(service: Service, code: int) -> str:
    return format_message(advise(service, code).detail, Language.ZH)


class TestUpstream:
    @pytest.mark.parametrize("service", list(Service))
    def test_every_vendor_code_has_a_chinese_sentence_and_its_number(self, service: Service) -> None:
        for code in TABLES[service]:
            error = vendor_refusal(service, code)
            assert failure_of(error, code=Code.MODEL_ERROR).msg == advice(service, code)
            assert is_chinese(advice(service, code))
            assert error_number(error) == code

    def test_one_number_means_different_things_in_different_services(self) -> None:
        spark = failure_of(vendor_refusal(Service.SPARK, 10019), code=Code.MODEL_ERROR)
        dictation = failure_of(vendor_refusal(Service.DICTATION, 10019), code=Code.MODEL_ERROR)
        assert spark.msg != dictation.msg

    def test_the_vendors_own_words_come_first(self) -> None:
        error = vendor_refusal(Service.SPARK, 10013, "换个问题吧")
        assert failure_of(error, code=Code.MODEL_ERROR).msg == "换个问题吧"

    def test_words_in_another_language_follow_ours(self) -> None:
        error = vendor_refusal(Service.SPARK, 10013, "please ask something else")
        told = failure_of(error, code=Code.MODEL_ERROR).msg
        assert told == f"{advice(Service.SPARK, 10013)}（please ask something else）"

    def test_without_a_code_the_kind_of_failure_is_told(self) -> None:
        kinds = [
            errors.UpstreamTimeout("gap", 1),
            errors.UpstreamTruncated("sid"),
            errors.UpstreamUnreachable("10.0.0.1"),
            errors.UpstreamProtocolViolation("<html>"),
        ]
        told = [failure_of(error, code=Code.AUDIO_TO_TEXT_ERROR).msg for error in kinds]
        assert len(set(told)) == len(told)
        assert not any("html" in text or "10.0" in text for text in told)
        plain = failure_of(errors.UpstreamFailed("x"), code=Code.AUDIO_TO_TEXT_ERROR)
        assert plain.msg == format_message(Code.AUDIO_TO_TEXT_ERROR, Language.ZH)

    def test_zero_is_never_a_number(self) -> None:
        assert error_number(errors.UpstreamRefused(code=0)) == 20000
        assert error_number(errors.UpstreamTimeout("gap", 1)) == 20001


class TestShapes:
    def test_every_code_has_a_chinese_message(self) -> None:
        assert all(is_chinese(format_message(code, Language.ZH)) for code in Code)
        assert all(code.name == code.value for code in Code)

    def test_success_is_the_integer_zero(self) -> None:
        body = success("请求成功", content="好")
        assert body == {"code": 0, "msg": "请求成功", "content": "好"}
        assert type(body["code"]) is int

    def test_answers_are_ascii(self) -> None:
        assert json_bytes({"content": "好😀\ud800"}) == b'{"content":"\\u597d\\ud83d\\ude00\\ud800"}'
