"""What callers are told of failures that iFlytek reports by a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiproject.codes import Detail
from aiproject.messages.text import Text

__all__ = ["VENDOR_DETAILS"]

VENDOR_DETAILS: Final[Mapping[Detail, Text]] = {
    Detail.VENDOR_BUSY: Text("服务繁忙，请稍后再试", "The service is busy, please try again later"),
    Detail.VENDOR_CONNECTION_FAILED: Text(
        "与讯飞平台的连接出现问题，请稍后再试", "The connection to the iFlytek platform failed, please try again later"
    ),
    Detail.VENDOR_FAILED: Text(
        "讯飞平台内部出错，请稍后再试", "The iFlytek platform failed internally, please try again later"
    ),
    Detail.VENDOR_REJECTED_REQUEST: Text(
        "讯飞平台没有接受这次请求，请联系管理员",
        "The iFlytek platform did not accept the request, please ask the administrator",
    ),
    Detail.VENDOR_SESSION_TIMED_OUT: Text(
        "与讯飞平台的会话已超时，请重试", "The session on the iFlytek platform timed out, please try again"
    ),
    Detail.VENDOR_DAILY_LIMIT_REACHED: Text(
        "今日的平台调用次数已用完，请明天再试或联系管理员",
        "The platform's calls for today are used up, please try again tomorrow or ask the administrator",
    ),
    Detail.VENDOR_APP_ID_WRONG: Text(
        "服务的应用标识配置有误，请联系管理员",
        "The application id of this service is misconfigured, please ask the administrator",
    ),
    Detail.VENDOR_FORMAT_REJECTED: Text(
        "平台不接受请求的格式，可能是模型与接口地址不匹配，请联系管理员",
        "The platform does not accept the request's format, the model may not belong to the address; please "
        "ask the administrator",
    ),
    Detail.VENDOR_USER_CONNECTED_ELSEWHERE: Text(
        "同一用户正在其他连接中提问，请稍后再试",
        "The same user is asking over another connection, please try again later",
    ),
    Detail.VENDOR_STILL_ANSWERING: Text(
        "上一个问题还在回答中，请稍后再试", "The previous question is still being answered, please try again later"
    ),
    Detail.VENDOR_QUESTION_REFUSED: Text(
        "提问内容未通过平台的安全审核，请修改后再问",
        "The question did not pass the platform's content review, please rephrase it",
    ),
    Detail.VENDOR_ANSWER_WITHHELD: Text(
        "回答内容涉及敏感信息，平台已停止输出",
        "The answer touches on sensitive content and was stopped by the platform",
    ),
    Detail.VENDOR_APP_BLOCKED: Text(
        "服务的应用已被平台停用，请联系管理员",
        "The platform has blocked this service's application, please ask the administrator",
    ),
    Detail.VENDOR_MODEL_NOT_GRANTED: Text(
        "服务的应用没有使用该模型的授权，请联系管理员",
        "This service's application is not authorised to use the model, please ask the administrator",
    ),
    Detail.VENDOR_DIALOG_WARNED: Text(
        "对话内容有违规倾向，请换一个话题",
        "The conversation tends toward a violation of the platform's rules, please change the subject",
    ),
    Detail.VENDOR_QUESTION_SENSITIVE: Text(
        "提问内容涉及敏感信息，请修改后再问", "The question touches on sensitive content, please rephrase it"
    ),
    Detail.VENDOR_PICTURE_REFUSED: Text(
        "图片内容未通过平台的安全审核，请换一张图片",
        "The picture did not pass the platform's content review, please choose another",
    ),
    Detail.VENDOR_PICTURE_SIDE_TOO_LONG: Text(
        "图片的边长超过 12800 像素，请缩小后再试",
        "A side of the picture is longer than 12800 pixels, please make it smaller",
    ),
    Detail.VENDOR_PICTURE_RESOLUTION: Text(
        "图片的分辨率超出平台的范围，请换一张图片",
        "The picture's resolution is outside the platform's range, please choose another",
    ),
    Detail.VENDOR_MODEL_UNKNOWN: Text(
        "平台上没有所配置的模型，请联系管理员",
        "The platform does not have the configured model, please ask the administrator",
    ),
    Detail.VENDOR_DIALOG_TOO_LONG: Text(
        "对话内容过长，请缩短提问或清空历史后再试",
        "The conversation is too long, please shorten the question or clear the history",
    ),
    Detail.VENDOR_FEATURE_NOT_GRANTED: Text(
        "平台未授权该功能或总额度已用完，请联系管理员",
        "The platform has not granted this feature, or its total quota is used up; please ask the administrator",
    ),
    Detail.VENDOR_TOO_MANY_REQUESTS: Text("请求过于频繁，请稍后再试", "Too many requests, please try again later"),
    Detail.VENDOR_TOO_MANY_QUESTIONS: Text(
        "同时提问的人过多，请稍后再试", "Too many questions at once, please try again later"
    ),
    Detail.VENDOR_CREDITS_EXHAUSTED: Text(
        "平台账户的点数不足，请联系管理员", "The platform account has not enough credits, please ask the administrator"
    ),
    Detail.VENDOR_SPEECH_LICENCE_REFUSED: Text(
        "语音服务的授权检查未通过，请联系管理员",
        "The licence check of the speech service failed, please ask the administrator",
    ),
    Detail.VENDOR_SPEECH_UNRECOGNISABLE: Text(
        "语音数据无法识别，请重新录音", "The speech data cannot be recognised, please record it again"
    ),
    Detail.VENDOR_AUDIO_NOT_DECODED: Text(
        "音频解码失败，请检查录音的格式", "The audio could not be decoded, please check the recording's format"
    ),
    Detail.VENDOR_AUDIO_NOT_RESAMPLED: Text(
        "音频重采样失败，请检查录音的采样率",
        "The audio could not be resampled, please check the recording's sample rate",
    ),
    Detail.VENDOR_SPEECH_OVER: Text(
        "语音识别已经结束，请重新录音", "The speech recognition is over already, please record again"
    ),
    Detail.VENDOR_SPEECH_INVALID: Text(
        "语音数据不合法，请重新录音", "The speech data is invalid, please record it again"
    ),
    Detail.VENDOR_SPEECH_TOO_LONG: Text(
        "语音超过 60 秒，请分段录音", "The speech is longer than 60 s, please record it in parts"
    ),
    Detail.VENDOR_SPEECH_VERSION_WRONG: Text(
        "语音服务的接口版本有误，请联系管理员",
        "The interface version of the speech service is wrong, please ask the administrator",
    ),
    Detail.VENDOR_LANGUAGE_UNKNOWN: Text(
        "平台上没有所配置的语种或领域，请联系管理员",
        "The platform does not have the configured language or domain, please ask the administrator",
    ),
    Detail.VENDOR_SPEECH_NOT_GRANTED: Text(
        "语音服务没有开通所配置的功能、语种或领域，请联系管理员",
        "The configured function, language or domain of the speech service is not enabled, please ask the "
        "administrator",
    ),
    Detail.VENDOR_SPEECH_LICENCE_EXPIRED: Text(
        "语音服务的授权已过期，请联系管理员",
        "The licence of the speech service has expired, please ask the administrator",
    ),
    Detail.VENDOR_PICTURE_UNRECOGNISABLE: Text(
        "图片无法识别，请检查文件是否完好", "The picture cannot be recognised, please check that the file is intact"
    ),
    Detail.VENDOR_OCR_LICENCES_USED_UP: Text(
        "文字识别的平台授权数已用完，请联系管理员",
        "The platform's licences for text recognition are used up, please ask the administrator",
    ),
    Detail.VENDOR_FILE_NOT_DECODED: Text(
        "文件内容无法解码，请换一个文件", "The file's content cannot be decoded, please choose another file"
    ),
    Detail.VENDOR_OCR_OVER: Text("识别会话已经结束，请重试", "The recognition is over already, please try again"),
    Detail.VENDOR_KEY_WRONG: Text(
        "服务的平台密钥有误，请联系管理员", "The platform key of this service is wrong, please ask the administrator"
    ),
    Detail.VENDOR_PICTURE_CHECK_FAILED: Text(
        "图片未通过平台的检查，可能为空或过大",
        "The picture did not pass the platform's check; it may be empty or too large",
    ),
    Detail.VENDOR_OCR_UNKNOWN: Text(
        "平台上没有所配置的文字识别服务，请联系管理员",
        "The platform does not have the configured text recognition service, please ask the administrator",
    ),
    Detail.VENDOR_OCR_VERSION_WRONG: Text(
        "文字识别服务的接口版本有误，请联系管理员",
        "The interface version of the text recognition service is wrong, please ask the administrator",
    ),
    Detail.VENDOR_OCR_NOT_GRANTED: Text(
        "文字识别服务未开通、已过期或总额度已用完，请联系管理员",
        "The text recognition service is not enabled, has expired, or its total quota is used up; please ask "
        "the administrator",
    ),
    Detail.VENDOR_TOO_MANY_PICTURES: Text(
        "同时识别的图片过多，请稍后再试", "Too many pictures at once, please try again later"
    ),
    Detail.VENDOR_CODE_UNKNOWN: Text(
        "讯飞平台返回了未知的错误，请稍后再试", "The iFlytek platform returned an unknown error, please try again later"
    ),
}
