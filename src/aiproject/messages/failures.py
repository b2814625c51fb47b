"""What failures say: the sentence of every code, and of every precise reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiproject.codes import Code, Detail
from aiproject.messages.text import Text

__all__ = ["CODES", "DETAILS"]

CODES: Final[Mapping[Code, Text]] = {
    Code.APP_NOT_FOUND_ERROR: Text("404错误 请求的地址不存在", "There is nothing at this address"),
    Code.APP_QUERY_METHOD_ERROR: Text("400错误 客户端请求方式错误", "The request is not well-formed"),
    Code.APP_INTERNAL_ERROR: Text("500错误 服务器内部错误", "Internal server error"),
    Code.REGISTER_ERROR: Text("用户注册失败", "The registration failed"),
    Code.USER_NAME_REPEAT: Text("用户名已存在", "This user name is taken"),
    Code.LOGIN_ERROR: Text("用户登录失败", "Unknown user name or wrong password"),
    Code.USER_NOT_FOUND: Text("找不到指定用户", "There is no such user"),
    Code.PERMISSION_NOT_ALLOW: Text("权限不足", "This is not permitted"),
    Code.TOKEN_NOT_ENOUGH: Text("用户token额度不足", "Not enough tokens left"),
    Code.MODEL_ERROR: Text("文本大模型接口错误", "The text model failed"),
    Code.AUDIO_TO_TEXT_ERROR: Text("语音识别请求失败", "The speech recognition failed"),
    Code.FILE_FORMAT_ILLEGAL: Text("文件格式不合法", "The file has an unsupported format"),
    Code.GET_FILE_FAIL: Text("获取文件失败", "No file was received"),
    Code.PIC_TIMES_NOT_ENOUGH: Text("用户文字识别可用额度不足", "Not enough pictures left"),
    Code.PICTURE_TO_TEXT_ERROR: Text("文字识别接口请求错误", "The text recognition failed"),
    Code.ADD_USER_ERROR: Text("添加用户失败", "The user could not be added"),
    Code.MODIFY_USER_ERROR: Text("修改用户消息错误", "The user could not be changed"),
    Code.DELETE_USER_ERROR: Text("目标用户删除失败", "The user could not be deleted"),
    Code.ADD_ADMIN_ERROR: Text("添加管理员失败", "The administrator could not be added"),
    Code.MODIFY_ADMIN_ERROR: Text("修改管理员信息错误", "The administrator could not be changed"),
    Code.DELETE_ADMIN_ERROR: Text("目标管理员删除失败", "The administrator could not be deleted"),
    Code.ADD_TOKEN_ERROR: Text("添加令牌失败", "The voucher could not be created"),
    Code.TOKEN_REPEAT: Text("令牌重名", "There is a voucher with this name or code already"),
    Code.TOKEN_NOT_FOUND: Text("找不到目标令牌", "There is no such voucher"),
    Code.MODIFY_TOKEN_ERROR: Text("修改令牌错误", "The voucher could not be changed"),
    Code.DELETE_TOKEN_ERROR: Text("删除令牌时出现错误", "The voucher could not be deleted"),
    Code.CONTROL_TOKEN_ERROR: Text("修改令牌状态信息失败", "The voucher could not be enabled or disabled"),
    Code.USER_GET_TOKEN_ERROR: Text("用户兑换令牌错误", "The voucher could not be redeemed"),
    Code.TOKEN_ALREADY_GET: Text("用户已兑换过该令牌", "This account has redeemed the voucher already"),
    Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND: Text(
        "找不到对应的令牌或找不到对应的用户", "There is no such voucher or no such user"
    ),
    Code.TOKEN_NOT_AVAILABLE: Text("令牌不可用", "The voucher is not available"),
    Code.TABLE_NOT_FOUND: Text("未查询到指定表", "There is no such table"),
    Code.QUERY_TABLE_ERROR: Text("查询时遇到错误", "The query failed"),
    Code.QUERY_TABLE_DATA_ERROR: Text("查询表中数据总数失败", "The rows could not be counted"),
    Code.METHOD_NOT_ALLOWED: Text(
        "405错误 该地址不支持这种请求方法", "This address does not support the request method"
    ),
    Code.REQUEST_TOO_LARGE: Text("413错误 请求体过大", "The request body is too large"),
    Code.REQUEST_TIMEOUT: Text("408错误 请求发送超时", "The request took too long to arrive"),
    Code.UNSUPPORTED_ENCODING: Text(
        "415错误 不接受压缩或编码过的请求体", "Compressed or otherwise encoded request bodies are not accepted"
    ),
    Code.TOO_MANY_REQUESTS: Text("请求过于频繁，{again}", "Too many requests, {again}"),
    Code.SERVICE_UNAVAILABLE: Text(
        "服务暂时不可用，请稍后再试", "The service is temporarily unavailable, please try again later"
    ),
    Code.QUOTA_NOT_ENOUGH: Text("用户可用额度不足", "Not enough quota left"),
    Code.VOICE_SECONDS_NOT_ENOUGH: Text("用户语音识别可用时长不足", "Not enough seconds of speech recognition left"),
    Code.REGISTRATION_CLOSED: Text("当前不开放注册", "Registration is closed"),
    Code.RECEIPT_NOT_FOUND: Text("找不到该次调用的记录", "There is no record of this call"),
    Code.MODEL_NOT_FOUND: Text("找不到指定的模型", "There is no such model"),
    Code.NOT_SIGNED_IN: Text("请先登录，或提供有效的密钥", "Please sign in, or provide a valid key"),
    Code.ITEM_NOT_FOUND: Text("找不到指定的对象", "There is no such item"),
    Code.KEY_LIMIT_REACHED: Text("该密钥的额度已用完", "The spending limit of this API key is reached"),
}

DETAILS: Final[Mapping[Detail, Text]] = {
    Detail.BODY_NOT_JSON_OBJECT: Text("400错误 客户端请求方式错误", "The body must be a JSON object"),
    Detail.FIELD_MISSING: Text("缺少 {field}", "{field} is missing"),
    Detail.FIELD_NOT_TEXT: Text("{field} 应为字符串", "{field} must be a string"),
    Detail.FIELD_NOT_BOOLEAN: Text("{field} 应为布尔值", "{field} must be true or false"),
    Detail.FIELD_NOT_INTEGER: Text("{field} 应为整数", "{field} must be an integer"),
    Detail.FIELD_NOT_TEXTS: Text(
        "{field} 应为字符串数组，最多 {limit} 项", "{field} must be an array of at most {limit} strings"
    ),
    Detail.FIELD_NOT_TIME: Text(
        "{field} 应为带时区的时间，例如 2026-12-31T23:59:59+08:00",
        "{field} must be a time with its zone, for example 2026-12-31T23:59:59+08:00",
    ),
    Detail.FIELD_NOT_OBJECT: Text(
        "{field} 应为对象，可含 {fields}", "{field} must be an object, which may have {fields}"
    ),
    Detail.FIELD_NOT_ONE_OF: Text("{field} 只能是 {values}", "{field} can only be {values}"),
    Detail.FIELD_MALFORMED: Text("{field} 的格式不正确", "{field} is malformed"),
    Detail.FIELD_OUT_OF_RANGE: Text(
        "{field} 应为 {least} 到 {most} 的整数", "{field} must be an integer from {least} to {most}"
    ),
    Detail.FIELD_UNKNOWN: Text("含有未知字段，可用的有 {fields}", "There is an unknown field; known are {fields}"),
    Detail.FIELD_EMPTY: Text("{field} 不能为空", "{field} must not be empty"),
    Detail.FIELD_NOT_SUPPORTED: Text("该模型不支持 {field}", "This model does not support {field}"),
    Detail.FIELD_NOT_DATA_URL: Text(
        "{field} 应为 Base64 编码图片的 data: 地址；服务器不会获取其他地址",
        "{field} must be a data: URL with a picture in Base64; the server fetches no other address",
    ),
    Detail.FIELD_OUT_OF_BOUNDS: Text("{field} 超出允许的范围", "{field} is out of its range"),
    Detail.MEMBER_UNKNOWN: Text("未知的字段 {field}", "Unknown field {field}"),
    Detail.BODY_NOT_JSON: Text("请求体不是合法的 JSON", "The body is not valid JSON"),
    Detail.MODEL_UNKNOWN: Text("找不到模型 {model}", "There is no model {model}"),
    Detail.FIELD_TOO_LONG: Text("{field}不能超过 {limit} 个字符", "{field} must not have more than {limit} characters"),
    Detail.FIELD_TOO_MANY_ITEMS: Text("{field} 过多", "{field} has too many items"),
    Detail.FIELD_HAS_CONTROLS: Text("{field}含有控制字符", "{field} has control characters"),
    Detail.TERM_EMPTY: Text("{field}不能为空", "{field} must not be empty"),
    Detail.ONE_FIELD_OF_TWO_MISSING: Text("缺少 {first} 或 {second}", "{first} or {second} is missing"),
    Detail.NOT_EXACTLY_ONE_FIELD_OF_TWO: Text(
        "请提供 {first} 或 {second} 其中之一", "Provide one of {first} and {second}"
    ),
    Detail.NOTHING_TO_CHANGE: Text("没有要修改的内容", "There is nothing to change"),
    Detail.QUOTA_BUSY: Text(
        "剩余额度正被本账号的其他请求占用，请稍后再试",
        "Other requests of this account hold what is left of its quota; try again later",
    ),
    Detail.TOO_MANY_AT_ONCE: Text("同时进行的请求过多，{again}", "Too many requests at once, {again}"),
    Detail.TOO_MANY_LOGINS: Text("登录请求过多，{again}", "Too many sign-ins, {again}"),
    Detail.TOO_MANY_FAILURES: Text("失败次数过多，{again}", "Too many failed attempts, {again}"),
    Detail.LOGIN_LOCKED: Text(
        "登录失败次数过多，已锁定；请重置密码或联系管理员",
        "Locked after too many failed sign-ins; reset the password or ask the administrator",
    ),
    Detail.TOO_MANY_VERIFICATION_MAILS: Text("验证邮件发送次数过多，{again}", "Too many verification e-mails, {again}"),
    Detail.TOO_MANY_REQUESTS_WITH_KEY: Text(
        "相同 Idempotency-Key 的请求仍在处理中，{again}",
        "A request with the same Idempotency-Key is still running, {again}",
    ),
    Detail.NAME_EXPANDS_TOO_LONG: Text(
        "用户名展开后过长", "The user name is too long once its characters are expanded"
    ),
    Detail.NAME_REORDERS_TEXT: Text(
        "用户名含有改变书写方向的字符", "The user name has characters that change the direction of writing"
    ),
    Detail.NAME_HIDES_CHARACTERS: Text(
        "用户名含有看不见的字符或连续的空格", "The user name has invisible characters or several spaces in a row"
    ),
    Detail.NAME_MIXES_SCRIPTS: Text(
        "用户名混用了容易混淆的文字", "The user name mixes scripts that are easily confused"
    ),
    Detail.PASSWORD_TOO_SHORT: Text(
        "密码至少需要 {limit} 个字符", "The password must have at least {limit} characters"
    ),
    Detail.PASSWORD_IS_NAME: Text("密码不能与用户名相同", "The password must not be the user name"),
    Detail.PASSWORD_COMMON: Text("密码过于常见，请换一个", "The password is too common, please choose another"),
    Detail.PASSWORD_UNUSABLE: Text(
        "密码含有无法使用的字符或过长", "The password is too long or has characters that cannot be used"
    ),
    Detail.EMAIL_MALFORMED: Text("邮箱地址格式不正确", "The e-mail address is malformed"),
    Detail.EMAIL_NOT_DELIVERABLE: Text(
        "请先填写能收信的邮箱地址", "Please set an e-mail address that can receive mail first"
    ),
    Detail.MAIL_NOT_CONFIGURED: Text(
        "本服务未开启邮件功能，请联系管理员", "This server sends no e-mail; please ask the administrator"
    ),
    Detail.MAIL_TOKEN_INVALID: Text(
        "验证码无效或已过期，请重新申请", "The code is invalid or has expired, please request another"
    ),
    Detail.PASSWORD_WRONG: Text("密码不正确", "The password is wrong"),
    Detail.CURRENT_PASSWORD_WRONG: Text("当前密码不正确", "The current password is wrong"),
    Detail.PASSWORD_NEEDED: Text(
        "此操作需要在 {field} 字段中提供账号密码", "This needs the account's password in the field {field}"
    ),
    Detail.API_KEY_CANNOT_MANAGE: Text("API 密钥不能管理账号", "An API key cannot manage the account"),
    Detail.API_KEY_NOT_FOR_THIS: Text(
        "该密钥不能用于此接口或模型", "This key is not allowed to use this endpoint or model"
    ),
    Detail.API_KEY_NOT_FROM_HERE: Text(
        "该密钥不能从此地址使用", "This key is not allowed to be used from this address"
    ),
    Detail.SESSION_CANNOT_DO_THIS: Text("会话不能进行此操作", "A session cannot do this"),
    Detail.BROWSER_SESSION_NEEDED: Text("此操作需要浏览器会话", "This needs a browser session"),
    Detail.FOREIGN_SITE: Text("请求来自其他网站，已拒绝", "Refused: the request comes from another site"),
    Detail.CSRF_TOKEN_WRONG: Text(
        "缺少 {header} 请求头，或其值不属于当前会话",
        "The header {header} is missing, or its value does not belong to this session",
    ),
    Detail.ADDRESS_MALFORMED: Text("第 {number} 项不是 IP 地址或网段", "Item {number} is not an IP address or network"),
    Detail.KEY_NAME_LENGTH: Text(
        "密钥名称应为 1 到 {limit} 个字符", "The key's name must have 1 to {limit} characters"
    ),
    Detail.EXPIRY_NOT_IN_FUTURE: Text(
        "过期时间应为将来的时间，并带有时区", "The expiry must be a time in the future, with its zone"
    ),
    Detail.MODELS_MALFORMED: Text(
        "models 应为模型名称，且不能为空", "models must be names of models, and must not be empty"
    ),
    Detail.SPEND_LIMIT_OUT_OF_RANGE: Text(
        "{meter} 的限额应为 0 到 {limit} 的整数", "The limit of {meter} must be an integer from 0 to {limit}"
    ),
    Detail.TOO_MANY_KEYS: Text("每个账号最多 {limit} 个密钥", "An account has at most {limit} keys"),
    Detail.IDEMPOTENCY_KEY_REUSED: Text(
        "该 Idempotency-Key 已用于另一个请求", "This Idempotency-Key was used for another request"
    ),
    Detail.IDEMPOTENCY_KEY_MALFORMED: Text(
        "Idempotency-Key 应为 1 到 {limit} 个字符，且只有一个",
        "Idempotency-Key must have 1 to {limit} characters, and there must be only one",
    ),
    Detail.DIALOG_NOT_JSON: Text("请求体不是合法的 JSON", "The body is not valid JSON"),
    Detail.DIALOG_EMPTY: Text("请求参数错误：dialog 不能为空", "dialog must not be empty"),
    Detail.DIALOG_TOO_LONG: Text(
        "请求参数错误：dialog 不能超过 {limit} 条消息", "dialog must not have more than {limit} messages"
    ),
    Detail.DIALOG_HAS_SURROGATES: Text("请求参数错误：content 含有不成对的代理字符", "content has unpaired surrogates"),
    Detail.DIALOG_FIELD_MISSING: Text("请求参数错误：缺少 {field}", "{field} is missing"),
    Detail.DIALOG_FIELD_MALFORMED: Text("请求参数错误：{field} 格式不正确", "{field} is malformed"),
    Detail.DIALOG_NOT_OBJECT: Text(
        "请求参数错误：应为包含 uuid、username 和 dialog 的对象",
        "The body must be an object with uuid, username and dialog",
    ),
    Detail.DIALOG_WITHOUT_QUESTION: Text("对话中没有用户的提问", "The dialog holds no question of the user"),
    Detail.DIALOG_ENDS_WITHOUT_QUESTION: Text(
        "对话的最后一条须是用户的提问", "The dialog must end with a question of the user"
    ),
    Detail.DIALOG_NOT_ENCODABLE: Text("对话中含有无法编码的字符", "The dialog has characters that cannot be encoded"),
    Detail.TEMPERATURE_NOT_NUMBER: Text("temperature 须是数字", "temperature must be a number"),
    Detail.OCR_PICTURE_EMPTY: Text("图片是空的", "The picture is empty"),
    Detail.OCR_PICTURE_TOO_LARGE: Text(
        "图片超过上限（{megabytes} MB）", "The picture is over the limit of {megabytes} MB"
    ),
    Detail.RATE_INVALID: Text("rate 只能是 8000 或 16000", "rate must be 8000 or 16000"),
    Detail.SAMPLE_RATE_INVALID: Text("采样率 rate 只能是 16000 或 8000", "The sample rate must be 16000 or 8000"),
    Detail.BODY_OVER_LIMIT: Text(
        "请求体超过上限（{megabytes:g} MB）", "The request body is over the limit of {megabytes:g} MB"
    ),
    Detail.UPLOAD_EMPTY: Text("请求体为空，没有收到文件", "The body is empty, no file was received"),
    Detail.FORM_FILE_EMPTY: Text("表单字段 file 为空", "The form's field file is empty"),
    Detail.FORM_WITHOUT_BOUNDARY: Text("multipart 表单缺少 boundary", "The multipart form has no boundary"),
    Detail.FORM_MALFORMED: Text("multipart 表单格式有误", "The multipart form is malformed"),
    Detail.FORM_INCOMPLETE: Text("multipart 表单不完整", "The multipart form is incomplete"),
    Detail.FORM_WITHOUT_FILE: Text("表单中没有 file 字段", "The form has no field file"),
    Detail.FORM_TOO_MANY_PARTS: Text("multipart 表单字段过多", "The multipart form has too many fields"),
    Detail.FORM_PART_HEADER_TOO_LONG: Text(
        "multipart 表单的字段头过长", "A field header of the multipart form is too long"
    ),
    Detail.PICTURE_EMPTY: Text("没有收到图片数据", "No picture was received"),
    Detail.PICTURE_WANTED: Text("请上传 JPG、PNG 或 BMP 图片", "Please upload a JPG, PNG or BMP picture"),
    Detail.PICTURE_OF_OTHER_KIND: Text(
        "上传的是{kind}，请上传 JPG、PNG 或 BMP 图片", "The upload is {kind}; please upload a JPG, PNG or BMP picture"
    ),
    Detail.PICTURE_DAMAGED: Text(
        "图片已损坏或不完整，无法读取", "The picture is damaged or incomplete and cannot be read"
    ),
    Detail.PICTURE_TOO_MANY_PIXELS: Text(
        "图片有 {width}×{height} 像素，超过 {limit} 万像素的上限",
        "The picture has {width}×{height} pixels, over the limit of {limit} × 10,000",
    ),
    Detail.AUDIO_OF_OTHER_KIND: Text(
        "上传的是{kind}，请上传 16 kHz、16 位、单声道的 PCM 或 WAV 文件",
        "The upload is {kind}; please upload a PCM or WAV file of 16 kHz, 16 bits, one channel",
    ),
    Detail.AUDIO_ODD_LENGTH: Text(
        "PCM 数据的字节数为奇数，不是 16 位采样；请上传 16 kHz、16 位、单声道的 PCM 或 WAV 文件",
        "The PCM data has an odd number of bytes, so its samples are not of 16 bits; "
        "please upload a PCM or WAV file of 16 kHz, 16 bits, one channel",
    ),
    Detail.AUDIO_TOO_LONG: Text(
        "音频长 {seconds:.3f} 秒，超过 {limit} 秒的上限",
        "The recording is {seconds:.3f} s long, over the limit of {limit} s",
    ),
    Detail.WAV_DAMAGED: Text("WAV 文件已损坏，无法读取", "The WAV file is damaged and cannot be read"),
    Detail.WAV_INCOMPLETE: Text("WAV 文件不完整，请重新上传", "The WAV file is incomplete, please upload it again"),
    Detail.WAV_CODEC_UNSUPPORTED: Text(
        "不支持的 WAV 编码（{codec}）；请上传 16 kHz、16 位、单声道的 PCM 或 WAV 文件",
        "The WAV file's codec ({codec}) is not supported; "
        "please upload a PCM or WAV file of 16 kHz, 16 bits, one channel",
    ),
    Detail.WAV_SAMPLE_SIZE_UNSUPPORTED: Text(
        "不支持的 WAV 采样位数（{bits} 位）；请上传 16 kHz、16 位、单声道的 PCM 或 WAV 文件",
        "The WAV file's samples of {bits} bits are not supported; "
        "please upload a PCM or WAV file of 16 kHz, 16 bits, one channel",
    ),
    Detail.WAV_LAYOUT_UNSUPPORTED: Text(
        "不支持的 WAV 参数（{channels} 声道，{rate} Hz）；请上传 16 kHz、16 位、单声道的 PCM 或 WAV 文件",
        "The WAV file's parameters ({channels} channels, {rate} Hz) are not supported; "
        "please upload a PCM or WAV file of 16 kHz, 16 bits, one channel",
    ),
    Detail.WAV_WITHOUT_SOUND: Text("WAV 文件中没有声音数据", "The WAV file holds no sound"),
    Detail.BALANCE_TOO_LARGE: Text("余额不能超过 {limit}", "a balance cannot exceed {limit}"),
    Detail.REFUND_ATTEMPT_AMBIGUOUS: Text(
        "该调用有多次尝试被扣费，请指明是哪一次", "several tries of this call were charged: say which attempt"
    ),
    Detail.REFUND_REPEATED: Text("该调用的扣费已经退还过", "what this call was charged has been given back already"),
    Detail.REFUND_NOT_METERED: Text("该调用不计量，没有扣费", "this call was not metered: nothing was taken for it"),
    Detail.REFUND_NOTHING_CHARGED: Text(
        "该账号没有因这样的调用被扣费", "this account was charged nothing for such a call"
    ),
    Detail.CHECKPOINT_NOT_ONE: Text("这不是账本的检查点", "this is not a checkpoint of the ledger"),
    Detail.CHECKPOINT_HASH_DIFFERS: Text(
        "检查点不完整：SHA-256 不一致", "this is not a whole checkpoint: its SHA-256 is another"
    ),
    Detail.CHECKPOINT_COUNT_DIFFERS: Text(
        "检查点不完整：账号数目不一致", "this is not a whole checkpoint: it has another number of accounts"
    ),
    Detail.CHECKPOINT_SIGNATURE_WRONG: Text("检查点不是用该密钥签名的", "the checkpoint is not signed with this key"),
    Detail.CHECKPOINT_CUT_SHORT: Text(
        "检查点不完整：有一行没有结束", "this is not a whole checkpoint: a line has no end"
    ),
    Detail.VOUCHER_NAME_HAS_CONTROLS: Text("令牌名称不能含有控制字符", "a voucher's name has no control characters"),
    Detail.VOUCHER_NAME_LENGTH: Text(
        "令牌名称应为 1 到 {limit} 个字符", "a voucher's name has 1 to {limit} characters"
    ),
    Detail.VOUCHER_CODE_MALFORMED: Text(
        "令牌代码应为 1 到 {limit} 个字母、数字、连字符、点或下划线",
        "a code has 1 to {limit} letters, digits, hyphens, dots or underscores",
    ),
    Detail.VOUCHER_AMOUNT_OUT_OF_RANGE: Text(
        "token 数和图片次数应为 0 到 {limit}", "tokens and picture times are 0 to {limit}"
    ),
    Detail.VOUCHER_WORTH_NOTHING: Text(
        "令牌必须有面值：请给出 token 数或图片次数", "a voucher must be worth something: give tokens or picture times"
    ),
    Detail.VOUCHER_AUDIENCE_MALFORMED: Text(
        "令牌的适用对象最多 {limit} 个字符，且不含控制字符",
        "an audience has at most {limit} characters and no control characters",
    ),
    Detail.VOUCHER_ALREADY_EXPIRED: Text("令牌的过期时间已经过去", "the voucher would have expired already"),
    Detail.VOUCHER_WITHOUT_USES: Text("令牌至少应能使用一次", "a voucher must be good for at least one use"),
    Detail.VOUCHER_COUNT_OUT_OF_RANGE: Text(
        "一次可创建 1 到 {limit} 个令牌", "1 to {limit} vouchers can be made at once"
    ),
    Detail.VOUCHER_CODE_FOR_ONE: Text("自定代码只能用于单个令牌", "a code of your own is for a single voucher"),
    Detail.VOUCHER_CODE_TAKEN: Text("已有使用该代码的令牌", "there is a voucher with this code already"),
    Detail.VOUCHER_NAME_TAKEN: Text("已有使用该名称的令牌", "there is a voucher with this name already"),
    Detail.ADMIN_LOGIN_FAILED: Text("管理员登录错误", "The administrator could not sign in"),
    Detail.ADMIN_CREDENTIALS_WRONG: Text("登录失败", "Unknown administrator or wrong password"),
    Detail.FIRST_ADMIN_NOT_CREATED: Text("创建首位管理员失败", "The first administrator could not be created"),
    Detail.SETUP_CODE_WRONG: Text("初始化代码无效", "The set-up code is not valid"),
    Detail.TRIAL_FAILED: Text("回复失败", "The model could not be tried"),
    Detail.TARGET_USER_UNKNOWN: Text("找不到目标用户", "There is no such user"),
    Detail.TARGET_USER_ABSENT: Text("目标用户不存在", "There is no such user"),
    Detail.ADMIN_NAME_TAKEN: Text("管理员用户名已存在", "This administrator's name is taken"),
    Detail.TARGET_ADMIN_NOT_REMOVABLE: Text(
        "目标用户不存在或权限不足", "There is no such administrator, or removing it is not permitted"
    ),
    Detail.TARGET_VOUCHER_NOT_REMOVABLE: Text(
        "目标令牌不存在或权限不足", "There is no such voucher, or removing it is not permitted"
    ),
    Detail.ROW_QUERY_FAILED: Text("查询时遇到错误", "The query failed"),
    Detail.LAST_OWNER: Text("这是最后一位所有者，请先设立另一位", "this is the last owner: make another one first"),
    Detail.JWT_MISSING_HEADER: Text("Missing Authorization Header", "Missing Authorization Header"),
    Detail.JWT_MISSING_BEARER: Text(
        "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'",
        "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'",
    ),
    Detail.JWT_BAD_HEADER: Text(
        "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'",
        "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'",
    ),
    Detail.JWT_NOT_ENOUGH_SEGMENTS: Text("Not enough segments", "Not enough segments"),
    Detail.JWT_INVALID: Text("Invalid token", "Invalid token"),
    Detail.JWT_SIGNATURE_WRONG: Text("Signature verification failed", "Signature verification failed"),
    Detail.JWT_ALGORITHM_WRONG: Text(
        "The specified alg value is not allowed", "The specified alg value is not allowed"
    ),
    Detail.JWT_EXPIRED: Text("Token has expired", "Token has expired"),
    Detail.JWT_REVOKED: Text("Token has been revoked", "Token has been revoked"),
    Detail.JWT_IS_REFRESH: Text("Only non-refresh tokens are allowed", "Only non-refresh tokens are allowed"),
    Detail.JWT_NOT_REFRESH: Text("Only refresh tokens are allowed", "Only refresh tokens are allowed"),
    Detail.UPSTREAM_TIMED_OUT: Text("模型响应超时，请稍后再试", "The model took too long, please try again later"),
    Detail.UPSTREAM_CUT_OFF: Text("模型的回答中断，请稍后再试", "The model's answer broke off, please try again later"),
    Detail.UPSTREAM_NOT_REACHED: Text(
        "暂时无法连接模型服务，请稍后再试", "The model service cannot be reached at the moment, please try again later"
    ),
    Detail.UPSTREAM_NOT_UNDERSTOOD: Text(
        "模型服务返回了无法识别的数据，请稍后再试",
        "The model service returned data that cannot be understood, please try again later",
    ),
}
