"""What operators are told: settings and files that they have to fix, and what commands refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiproject.codes import Detail
from aiproject.messages.text import Text

__all__ = ["OPERATOR_DETAILS"]

OPERATOR_DETAILS: Final[Mapping[Detail, Text]] = {
    Detail.SETTINGS_REFUSED: Text("{complaints}", "{complaints}"),
    Detail.SMTP_INCOMPLETE: Text(
        "AIPROJECT_SMTP_URL 和 AIPROJECT_MAIL_FROM 须同时给出；都不给则不发邮件",
        "AIPROJECT_SMTP_URL and AIPROJECT_MAIL_FROM: give both, or none for no mail",
    ),
    Detail.SMTP_NOT_URL: Text(
        "AIPROJECT_SMTP_URL 不是 URL，应形如 smtp://user:password@mail.example.com",
        "AIPROJECT_SMTP_URL is not a URL, such as smtp://user:password@mail.example.com",
    ),
    Detail.SMTP_SCHEME_WRONG: Text(
        "AIPROJECT_SMTP_URL 应为带主机的 smtp:// 或 smtps:// 地址",
        "AIPROJECT_SMTP_URL must be a smtp:// or smtps:// address with a host",
    ),
    Detail.SMTP_OPTION_UNKNOWN: Text(
        "AIPROJECT_SMTP_URL：主机和端口之后只能有 ?ca_file=…",
        "AIPROJECT_SMTP_URL: only ?ca_file=… may follow the host and port",
    ),
    Detail.SMTP_CA_FILE_UNREADABLE: Text(
        "AIPROJECT_SMTP_URL：无法读取 ca_file",
        "AIPROJECT_SMTP_URL: ca_file cannot be read",
    ),
    Detail.MAIL_FROM_NOT_ADDRESS: Text(
        "AIPROJECT_MAIL_FROM 不是邮箱地址，应形如 noreply@example.com",
        "AIPROJECT_MAIL_FROM is not an address, such as noreply@example.com",
    ),
    Detail.REDIS_URL_MALFORMED: Text(
        "无法读取 AIPROJECT_REDIS_URL：redis://[:password@]host[:port][/number]",
        "AIPROJECT_REDIS_URL cannot be read: redis://[:password@]host[:port][/number]",
    ),
    Detail.SERVER_VERSION_UNSUPPORTED: Text(
        "已安装的是 uvicorn {version}，而本版本用 uvicorn{range} 测试：pip install 'uvicorn{range}'",
        "uvicorn {version} is installed, and this release is tested with uvicorn{range}: pip install 'uvicorn{range}'",
    ),
    Detail.FAULT_POINT_UNKNOWN: Text(
        "AIPROJECT_FAULT_POINT：没有名为 {name} 的故障点；可用的有：{names}",
        "AIPROJECT_FAULT_POINT: there is no point {name}; there are: {names}",
    ),
    Detail.FAULT_PROBABILITY_MALFORMED: Text(
        "AIPROJECT_FAULT_POINT：{probability} 不是概率",
        "AIPROJECT_FAULT_POINT: {probability} is no probability",
    ),
    Detail.ADMIN_KEY_UNREADABLE: Text(
        "管理员令牌的密钥 {path} 无法读取或创建：{reason}",
        "the key of administrators' tokens, {path}, cannot be read or made: {reason}",
    ),
    Detail.ADMIN_KEY_LENGTH: Text(
        "管理员令牌的密钥 {path} 应为 {least} 到 {most} 字节；例如：openssl rand -hex 32",
        "the key of administrators' tokens, {path}, must have {least} to {most} bytes; for example: openssl "
        "rand -hex 32",
    ),
    Detail.CHECKPOINT_KEY_UNREADABLE: Text(
        "检查点的密钥 {path} 无法读取或创建：{reason}",
        "the key of checkpoints, {path}, cannot be read or made: {reason}",
    ),
    Detail.CHECKPOINT_KEY_NOT_PRIVATE: Text(
        "检查点的密钥 {path} 不是 PEM 格式的 Ed25519 私钥",
        "the key of checkpoints, {path}, is not an Ed25519 private key in PEM",
    ),
    Detail.CHECKPOINT_KEYS_NO_PAIR: Text(
        "{path} 与其旁边的 {public} 不是一对，签名将无人能验证：请放入正确的一对，或将两者删除以重新生成",
        "{path} and {public} beside it are no pair, so that nobody could check what is signed: put the right "
        "ones there, or remove both to have a new pair made",
    ),
    Detail.CHECKPOINT_PUBLIC_KEY_UNREADABLE: Text(
        "检查点的公钥 {path} 无法读取：{reason}",
        "the public key of checkpoints, {path}, cannot be read: {reason}",
    ),
    Detail.CHECKPOINT_KEY_NOT_PUBLIC: Text(
        "{path} 不是 PEM 格式的 Ed25519 公钥",
        "{path} is not an Ed25519 public key in PEM",
    ),
    Detail.CHECKPOINT_NOT_WRITTEN: Text("检查点无法写入：{reason}", "the checkpoint cannot be written: {reason}"),
    Detail.PORT_UNUSABLE: Text(
        "无法监听 {host} 的端口 {port}：{reason}",
        "cannot listen on {host} port {port}: {reason}",
    ),
    Detail.DICTATION_SILENCE_OUT_OF_RANGE: Text(
        "语音听写：{dialect} 协议中结束一句话的静音时长应为 {least} 到 {most} 毫秒，而不是 {milliseconds}",
        "dictation: the silence that ends an utterance must be {least} to {most} ms for the {dialect} "
        "protocol, not {milliseconds}",
    ),
    Detail.DICTATION_LANGUAGE_MISSING: Text(
        "语音听写：需要给出语种，例如 zh_cn",
        "dictation: a language is needed, for example zh_cn",
    ),
    Detail.DICTATION_URL_MALFORMED: Text("语音听写：无法解析 URL", "dictation: the URL cannot be parsed"),
    Detail.OCR_URL_MALFORMED: Text("文字识别：无法解析 URL", "ocr: the URL cannot be parsed"),
    Detail.OCR_SERVICE_UNKNOWN: Text(
        "文字识别：没有名为 {name} 的服务；URL 应以下列之一结尾：{names}",
        "ocr: no service named {name}; the URL must end in one of {names}",
    ),
    Detail.DATABASE_URL_NOT_URL: Text(
        "AIPROJECT_DATABASE_URL 不是 URL；应形如 mysql://name:password@host:3306/database",
        "AIPROJECT_DATABASE_URL is not a URL; it looks like mysql://name:password@host:3306/database",
    ),
    Detail.DATABASE_KIND_UNKNOWN: Text(
        "AIPROJECT_DATABASE_URL：AiProject 不支持数据库 {scheme}；支持 sqlite、mysql、mariadb 和 postgresql",
        "AIPROJECT_DATABASE_URL: {scheme} is no database that AiProject knows; sqlite, mysql, mariadb and "
        "postgresql are",
    ),
    Detail.DATABASE_URL_MALFORMED: Text(
        "无法读取 AIPROJECT_DATABASE_URL；用户名或密码中的 @ : / # 等字符须用百分号编码",
        "AIPROJECT_DATABASE_URL cannot be read; characters like @ : / # in name or password must be percent-encoded",
    ),
    Detail.DATABASE_OPTION_UNKNOWN: Text(
        "AIPROJECT_DATABASE_URL：未知选项 {options}",
        "AIPROJECT_DATABASE_URL: unknown option {options}",
    ),
    Detail.DATABASE_OPTION_REPEATED: Text(
        "AIPROJECT_DATABASE_URL：有选项给出了两次",
        "AIPROJECT_DATABASE_URL: an option is given twice",
    ),
    Detail.SQLITE_URL_MALFORMED: Text(
        "AIPROJECT_DATABASE_URL：SQLite 的写法是 sqlite:///相对路径 或 sqlite:////绝对路径",
        "AIPROJECT_DATABASE_URL: SQLite's form is sqlite:///relative or sqlite:////absolute",
    ),
    Detail.SQLITE_NEEDS_FILE: Text(
        "AIPROJECT_DATABASE_URL：SQLite 需要一个文件；内存中的账本会在结束时丢失",
        "AIPROJECT_DATABASE_URL: SQLite needs a file; books in memory are lost at the end",
    ),
    Detail.DATABASE_NAME_MISSING: Text(
        "AIPROJECT_DATABASE_URL：主机之后缺少数据库名",
        "AIPROJECT_DATABASE_URL: the name of the database is missing behind the host",
    ),
    Detail.SSLMODE_UNKNOWN: Text(
        "AIPROJECT_DATABASE_URL：sslmode 可为 {modes}",
        "AIPROJECT_DATABASE_URL: sslmode is one of {modes}",
    ),
    Detail.DATABASE_REFUSES: Text(
        "数据库拒绝了我们：{reason}（错误 {number}）",
        "the database refuses us: {reason} (error {number})",
    ),
    Detail.DATABASE_FILE_DAMAGED: Text(
        "数据库文件已损坏，或不是数据库：{reason}",
        "the database file is damaged or none: {reason}",
    ),
    Detail.SQLITE_FILE_UNUSABLE: Text(
        "数据库文件 {path} 无法创建或打开：{reason}",
        "the database file {path} cannot be made or opened: {reason}",
    ),
    Detail.SQLITE_FILE_NOT_DATABASE: Text(
        "{path} 不是 SQLite 数据库：{reason}",
        "{path} is no SQLite database: {reason}",
    ),
    Detail.SQLITE_WITHOUT_WAL: Text(
        "SQLite 无法在 {path} 旁保存预写日志；是否在网络驱动器上？",
        "SQLite cannot keep a write-ahead log beside {path}; is it on a network drive?",
    ),
    Detail.SCHEMA_NEWER: Text(
        "数据库的表结构 {found} 属于更新的版本；本版本只认识 {known}",
        "the database has schema {found}, of a later release; this release knows {known}",
    ),
    Detail.SCHEMA_FOREIGN: Text(
        "数据库中是原项目的账号；请用 aiproject db upgrade 接管",
        "the database holds the original project's accounts; adopt them with: aiproject db upgrade",
    ),
    Detail.SCHEMA_OLDER: Text(
        "数据库处于修订 {found}，本版本需要 {needed}：请运行 aiproject db upgrade",
        "the database is at revision {found}, this release needs {needed}: run aiproject db upgrade",
    ),
    Detail.SCHEMA_OTHER: Text(
        "数据库的表不属于本版本：请运行 aiproject db upgrade",
        "the database's tables are not this release's: run aiproject db upgrade",
    ),
    Detail.UPGRADE_BREAKS_REFERENCES: Text(
        "升级会破坏其他表对 user 表的引用",
        "the upgrade would break references of other tables to the table user",
    ),
    Detail.USER_TABLE_FOREIGN: Text(
        "该数据库中的 user 表不是 AiProject 的：它没有 {columns}。未作任何更改。请给 AiProject 单独的数据库",
        "the table user in this database is not AiProject's: it has no {columns}. Nothing was changed. Give "
        "AiProject a database of its own",
    ),
    Detail.USER_TABLE_BLOCKED: Text(
        "user 表无法照原样接管，未作任何更改：{complaints}",
        "the table user cannot be adopted as it is, and nothing was changed: {complaints}",
    ),
    Detail.SPEECH_PACKAGE_MISSING: Text(
        "设置了 AIPROJECT_SANDBOX_SPEECH_MODEL，但没有安装软件包 sherpa-onnx",
        "AIPROJECT_SANDBOX_SPEECH_MODEL is set but the package sherpa-onnx is not installed",
    ),
    Detail.SPEECH_FOLDER_MISSING: Text(
        "AIPROJECT_SANDBOX_SPEECH_MODEL：没有目录 {path}",
        "AIPROJECT_SANDBOX_SPEECH_MODEL: there is no folder {path}",
    ),
    Detail.SPEECH_MODEL_UNKNOWN: Text(
        "AIPROJECT_SANDBOX_SPEECH_MODEL：{path} 中没有已知布局的 sherpa-onnx 模型（transducer、sense-voice、"
        "paraformer 或 whisper，连同其 tokens.txt）",
        "AIPROJECT_SANDBOX_SPEECH_MODEL: {path} holds no sherpa-onnx model of a known layout (transducer, "
        "sense-voice, paraformer or whisper, with its tokens.txt)",
    ),
    Detail.SANDBOX_PORT_TAKEN: Text("沙盒的端口 {port} 已被占用", "the sandbox's port {port} is taken"),
    Detail.SANDBOX_PORT_UNUSABLE: Text(
        "沙盒的端口 {port} 无法使用：{reason}",
        "the sandbox's port {port} cannot be used: {reason}",
    ),
    Detail.NOTHING_TO_GRANT: Text(
        "没有要授予的额度：请给出 --tokens、--pic-times 或 --voice-seconds",
        "nothing to grant: give --tokens, --pic-times or --voice-seconds",
    ),
    Detail.NO_SUCH_VOUCHER: Text("没有这个名称或代码的令牌", "there is no voucher with this name or code"),
    Detail.EXPIRES_MALFORMED: Text(
        "--expires 应为日期或时间，例如 2026-12-31 或 2026-12-31T18:00",
        "--expires takes a day or a moment, for example 2026-12-31 or 2026-12-31T18:00",
    ),
    Detail.FILE_UNREADABLE: Text("无法读取 {path}：{reason}", "{path} cannot be read: {reason}"),
    Detail.LOSS_REASON_UNKNOWN: Text("--reason 可为：{names}", "--reason is one of: {names}"),
    Detail.NO_SUCH_ACCOUNT: Text("没有这个名称的账号", "there is no account of this name"),
    Detail.NO_SUCH_ADMINISTRATOR: Text("没有这个名称的管理员", "there is no administrator of this name"),
    Detail.NO_SUCH_THING: Text("没有这样的对象", "there is no such thing"),
    Detail.NAME_IS_TAKEN: Text("该名称已被使用", "this name is taken"),
}
