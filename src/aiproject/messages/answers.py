"""What successes say, and the terms that fill the placeholders of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiproject.codes import Success, Term
from aiproject.messages.text import Text

__all__ = ["SUCCESSES", "TERMS"]

SUCCESSES: Final[Mapping[Success, Text]] = {
    Success.OK: Text("ok", "ok"),
    Success.DONE: Text("请求成功", "Done"),
    Success.FOUND: Text("查询成功", "Found"),
    Success.ROWS_FOUND: Text("查询{count}条信息成功", "Found {count} entries"),
    Success.ROW_FOUND: Text("查询{name}成功", "Found {name}"),
    Success.CHAT_ANSWERED: Text("文本大模型回复成功", "The text model has answered"),
    Success.TRIAL_ANSWERED: Text("文本模型回复成功", "The text model has answered"),
    Success.REGISTERED: Text("用户注册成功", "The account is open"),
    Success.REGISTERED_WITHOUT_QUOTA: Text(
        "用户注册成功；该网络地址今日的注册赠送额度已用完，账号暂无额度，可兑换令牌或联系管理员",
        "The account is open; the sign-up quota of this network address is used up for today, so it has no quota yet: "
        "redeem a voucher or ask the administrator",
    ),
    Success.LOGGED_IN: Text("用户登录成功", "Signed in"),
    Success.VOUCHER_REDEEMED: Text("兑换令牌成功", "The voucher is redeemed"),
    Success.SIGNED_IN: Text("登录成功", "Signed in"),
    Success.SIGNED_OUT: Text("已退出登录", "Signed out"),
    Success.SESSION_ENDED: Text("会话已结束", "The session has ended"),
    Success.SESSIONS_ENDED: Text("所有会话已结束", "All sessions have ended"),
    Success.ACCOUNT_CHANGED: Text("账号信息已修改", "The account is changed"),
    Success.ACCOUNT_CLOSED: Text("账号已注销", "The account is deleted"),
    Success.PASSWORD_CHANGED: Text("密码已修改", "The password is changed"),
    Success.PASSWORD_RESET: Text("密码已重置，请重新登录", "The password is reset; please sign in again"),
    Success.UUID_CHANGED: Text("uuid 已更换", "The uuid is replaced"),
    Success.EMAIL_VERIFIED_BEFORE: Text("邮箱已经过验证", "The e-mail address has been verified already"),
    Success.EMAIL_VERIFIED: Text("邮箱验证成功", "The e-mail address is verified"),
    Success.VERIFICATION_SENT: Text(
        "验证邮件已发送，请查收", "An e-mail with a verification link is on its way; please check your inbox"
    ),
    Success.RESET_REQUESTED: Text(
        "如果该账号存在且邮箱已验证，重置邮件将很快送达",
        "If the account exists and its e-mail address is verified, an e-mail with a reset link will arrive soon",
    ),
    Success.KEY_CREATED: Text("密钥已创建，仅显示这一次", "The key is created; it is shown only this once"),
    Success.KEY_CHANGED: Text("密钥已修改", "The key is changed"),
    Success.KEY_REVOKED: Text("密钥已吊销", "The key is revoked"),
    Success.ADMIN_LOGGED_IN: Text("管理员登录成功", "Signed in as an administrator"),
    Success.ADMIN_LOGGED_OUT: Text("管理员已退出登录", "Signed out"),
    Success.ADMIN_TOKEN_RENEWED: Text("刷新令牌成功", "The token is renewed"),
    Success.FIRST_ADMIN_CREATED: Text("首位管理员创建成功", "The first administrator is created"),
    Success.ADMIN_ADDED: Text("添加管理员成功", "The administrator is added"),
    Success.USER_ADDED: Text("添加用户成功", "The user is added"),
    Success.USER_CHANGED: Text("修改用户信息成功", "The user is changed"),
    Success.DELETED: Text("{name} 删除成功", "{name} is deleted"),
    Success.VOUCHER_CREATED: Text("创建令牌成功", "The voucher is created"),
    Success.VOUCHER_CHANGED: Text("令牌修改成功", "The voucher is changed"),
    Success.VOUCHER_ENABLED: Text("令牌启用成功", "The voucher is enabled"),
    Success.VOUCHER_DISABLED: Text("令牌禁用成功", "The voucher is disabled"),
}

TERMS: Final[Mapping[Term, Text]] = {
    Term.USERNAME: Text("用户名", "The user name"),
    Term.PASSWORD: Text("密码", "The password"),
    Term.EMAIL: Text("邮箱", "The e-mail address"),
    Term.ACADEMY: Text("学院", "The academy"),
    Term.KEY_NAME: Text("密钥名称", "The key's name"),
    Term.OF_ACCOUNT: Text("账号", "account"),
    Term.OF_ADMINISTRATOR: Text("管理员", "administrator"),
    Term.AGAIN_LATER: Text("请稍后再试", "please try again later"),
    Term.AGAIN_IN_SECONDS: Text("请在 {seconds} 秒后再试", "please try again in {seconds} s"),
    Term.JPEG_PICTURE: Text("JPEG 图片", "a JPEG picture"),
    Term.PNG_PICTURE: Text("PNG 图片", "a PNG picture"),
    Term.GIF_PICTURE: Text("GIF 图片", "a GIF picture"),
    Term.TIFF_PICTURE: Text("TIFF 图片", "a TIFF picture"),
    Term.BMP_PICTURE: Text("BMP 图片", "a BMP picture"),
    Term.WEBP_PICTURE: Text("WebP 图片", "a WebP picture"),
    Term.HEIC_PICTURE: Text("HEIC/AVIF 图片", "a HEIC or AVIF picture"),
    Term.SVG_PICTURE: Text("SVG 图片", "an SVG picture"),
    Term.PDF_DOCUMENT: Text("PDF 文档", "a PDF document"),
    Term.XML_DOCUMENT: Text("XML 文档", "an XML document"),
    Term.HTML_PAGE: Text("HTML 网页", "an HTML page"),
    Term.OLD_OFFICE_DOCUMENT: Text("旧版 Office 文档", "a document of an old Office version"),
    Term.ZIP_OR_OFFICE: Text("ZIP 压缩包（也可能是 Office 文档）", "a ZIP archive, or an Office document"),
    Term.ZIP_ARCHIVE: Text("ZIP 压缩包", "a ZIP archive"),
    Term.GZIP_ARCHIVE: Text("GZIP 压缩包", "a GZIP archive"),
    Term.RAR_ARCHIVE: Text("RAR 压缩包", "a RAR archive"),
    Term.SEVEN_ZIP_ARCHIVE: Text("7z 压缩包", "a 7z archive"),
    Term.OGG_AUDIO: Text("OGG 音频", "OGG audio"),
    Term.FLAC_AUDIO: Text("FLAC 音频", "FLAC audio"),
    Term.AMR_AUDIO: Text("AMR 音频", "AMR audio"),
    Term.SILK_AUDIO: Text("SILK 音频", "SILK audio"),
    Term.WMA_AUDIO: Text("WMA 音频", "WMA audio"),
    Term.AU_AUDIO: Text("AU 音频", "AU audio"),
    Term.CAF_AUDIO: Text("CAF 音频", "CAF audio"),
    Term.RF64_AUDIO: Text("RF64 音频", "RF64 audio"),
    Term.RIFX_AUDIO: Text("RIFX 音频", "RIFX audio"),
    Term.WAV_AUDIO: Text("WAV 音频", "WAV audio"),
    Term.AIFF_AUDIO: Text("AIFF 音频", "AIFF audio"),
    Term.MP3_AUDIO: Text("MP3 音频", "MP3 audio"),
    Term.AAC_AUDIO: Text("AAC 音频", "AAC audio"),
    Term.M4A_AUDIO: Text("M4A/MP4 音视频", "M4A or MP4 audio or video"),
    Term.WEBM_VIDEO: Text("WebM/Matroska 音视频", "WebM or Matroska audio or video"),
    Term.AVI_VIDEO: Text("AVI 视频", "an AVI video"),
    Term.RIFF_FILE: Text("RIFF 文件", "a RIFF file"),
    Term.JSON_TEXT: Text("JSON 文本", "JSON text"),
    Term.TEXT_FILE: Text("文本文件", "a text file"),
}
