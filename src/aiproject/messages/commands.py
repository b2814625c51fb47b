"""What commands print: the findings of ``doctor``, confirmations, and what an upgrade or an import did."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from aiproject.messages.text import Text

__all__ = ["LINES", "Line"]


class Line(StrEnum):
    """A line that a command prints. No error: those are `aiproject.codes.Detail`."""

    # Findings of `doctor`.
    LIMITS_OFF = "LIMITS_OFF"
    LIMITS_OFF_FOR_ALL = "LIMITS_OFF_FOR_ALL"
    LISTENS_HERE = "LISTENS_HERE"
    LISTENS_WITHOUT_PROXY = "LISTENS_WITHOUT_PROXY"
    LISTENS_BEHIND = "LISTENS_BEHIND"
    PROXIES_EVERYBODY = "PROXIES_EVERYBODY"
    PROXIES_WIDE = "PROXIES_WIDE"
    PROXIES_BELIEVED = "PROXIES_BELIEVED"
    PUBLIC_URL_PLAIN = "PUBLIC_URL_PLAIN"
    VOICE_ANONYMOUS = "VOICE_ANONYMOUS"
    SANDBOX_FOR_STRANGERS = "SANDBOX_FOR_STRANGERS"
    REGISTRATION_OPEN = "REGISTRATION_OPEN"
    ORIGINS_ANY = "ORIGINS_ANY"
    DATA_NOT_THERE = "DATA_NOT_THERE"
    DATA_OPEN = "DATA_OPEN"
    DATA_PRIVATE = "DATA_PRIVATE"
    ADMIN_KEY_NOT_SHARED = "ADMIN_KEY_NOT_SHARED"
    ADMIN_KEY_OPEN = "ADMIN_KEY_OPEN"
    PASSWORDS_SHORT = "PASSWORDS_SHORT"
    PASSWORDS_LONG = "PASSWORDS_LONG"
    CONFIGURATION_OPEN = "CONFIGURATION_OPEN"
    CONFIGURATION_PRIVATE = "CONFIGURATION_PRIVATE"
    CONFIGURATION_WITHOUT_SECRETS = "CONFIGURATION_WITHOUT_SECRETS"
    NAMES_OF_ADMINISTRATORS = "NAMES_OF_ADMINISTRATORS"
    NAMES_OF_ACCOUNTS = "NAMES_OF_ACCOUNTS"
    NAMES_OF_MORE_ADMINISTRATORS = "NAMES_OF_MORE_ADMINISTRATORS"
    NAMES_OF_MORE_ACCOUNTS = "NAMES_OF_MORE_ACCOUNTS"
    NAMES_FINE = "NAMES_FINE"
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    CREDENTIALS_GIVEN = "CREDENTIALS_GIVEN"
    MODEL_ADDRESS_UNKNOWN = "MODEL_ADDRESS_UNKNOWN"
    DOMAIN_MISFITS = "DOMAIN_MISFITS"
    SERVICE_AT = "SERVICE_AT"
    PLACE = "PLACE"
    ADDRESS_PLAIN = "ADDRESS_PLAIN"
    LIMITS_BY_WORKER = "LIMITS_BY_WORKER"
    LIMITS_IN_PROCESS = "LIMITS_IN_PROCESS"
    LIMITS_IN_REDIS = "LIMITS_IN_REDIS"
    REDIS_SILENT = "REDIS_SILENT"
    HASHING = "HASHING"
    HASHING_WEAK = "HASHING_WEAK"
    HASHING_AT_LEAST = "HASHING_AT_LEAST"
    HASHING_ADVISED = "HASHING_ADVISED"
    DATABASE_CURRENT = "DATABASE_CURRENT"
    DATABASE_EMPTY = "DATABASE_EMPTY"
    DATABASE_NEWER = "DATABASE_NEWER"
    DATABASE_BEHIND = "DATABASE_BEHIND"
    UPSTREAM_ANSWERS = "UPSTREAM_ANSWERS"
    UPSTREAM_REFUSES = "UPSTREAM_REFUSES"
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    CLOCK_OFF = "CLOCK_OFF"
    CLOCK_FINE = "CLOCK_FINE"
    ERROR = "ERROR"

    # Confirmations.
    ADDED = "ADDED"
    ADDED_AS = "ADDED_AS"
    REMOVED = "REMOVED"
    REVOKED = "REVOKED"
    PASSWORD_CHANGED_OF = "PASSWORD_CHANGED_OF"  # noqa: S105 - a code
    UUID_CHANGED_OF = "UUID_CHANGED_OF"
    ROLE_OF = "ROLE_OF"
    LEFT = "LEFT"
    LEFT_ADMINISTRATOR_UNNAMED = "LEFT_ADMINISTRATOR_UNNAMED"
    LEFT_ADMINISTRATOR_WITHOUT_PASSWORD = "LEFT_ADMINISTRATOR_WITHOUT_PASSWORD"  # noqa: S105 - a code
    LEFT_ADMINISTRATOR_THERE = "LEFT_ADMINISTRATOR_THERE"
    LEFT_VOUCHER_REFUSED = "LEFT_VOUCHER_REFUSED"
    LEFT_VOUCHER_THERE = "LEFT_VOUCHER_THERE"
    LEFT_REDEMPTIONS_TABLE = "LEFT_REDEMPTIONS_TABLE"
    LEFT_REDEMPTIONS = "LEFT_REDEMPTIONS"
    NOTE_TABLE_CREATED = "NOTE_TABLE_CREATED"
    NOTE_ACCOUNTS_ADOPTED = "NOTE_ACCOUNTS_ADOPTED"
    NOTE_BALANCES_NEGATIVE = "NOTE_BALANCES_NEGATIVE"
    NOTE_BALANCES_UNSET = "NOTE_BALANCES_UNSET"
    NOTE_VALUES_EMPTY = "NOTE_VALUES_EMPTY"
    NOTE_BOOKS_OPENED = "NOTE_BOOKS_OPENED"
    NOTE_NAMES_RENEWED = "NOTE_NAMES_RENEWED"
    NOTE_NAMES_KEPT = "NOTE_NAMES_KEPT"
    SCHEMA_MOVED = "SCHEMA_MOVED"
    SCHEMA_MOVED_FROM_NOTHING = "SCHEMA_MOVED_FROM_NOTHING"
    BLOCKED_BY_PRIMARY_KEY = "BLOCKED_BY_PRIMARY_KEY"
    BLOCKED_BY_COLUMN = "BLOCKED_BY_COLUMN"
    BLOCKED_BY_LENGTH = "BLOCKED_BY_LENGTH"
    BLOCKED_BY_NAMELESS = "BLOCKED_BY_NAMELESS"
    BLOCKED_BY_LONG_NAMES = "BLOCKED_BY_LONG_NAMES"
    BLOCKED_BY_COLLISIONS = "BLOCKED_BY_COLLISIONS"
    BLOCKED_BY_MORE_COLLISIONS = "BLOCKED_BY_MORE_COLLISIONS"
    VOUCHER_STATE = "VOUCHER_STATE"
    KEY_SHOWN_ONCE = "KEY_SHOWN_ONCE"
    CHECKPOINT_OF = "CHECKPOINT_OF"
    SCHEMA_ALREADY_AT = "SCHEMA_ALREADY_AT"
    SCHEMA_UP_TO_DATE = "SCHEMA_UP_TO_DATE"
    SCHEMA_IS_EMPTY = "SCHEMA_IS_EMPTY"
    SCHEMA_IS_FOREIGN = "SCHEMA_IS_FOREIGN"
    SCHEMA_IS_NEWER = "SCHEMA_IS_NEWER"
    SCHEMA_IS_BEHIND = "SCHEMA_IS_BEHIND"
    PASSWORD_PROMPT = "PASSWORD_PROMPT"  # noqa: S105 - a code
    UNLOCKED = "UNLOCKED"
    NOT_LOCKED = "NOT_LOCKED"
    REFUNDED = "REFUNDED"
    BANNER_TITLE = "BANNER_TITLE"
    BANNER_SANDBOX = "BANNER_SANDBOX"
    BANNER_DATABASE_SERVER = "BANNER_DATABASE_SERVER"
    BANNER_FIRST_ADMINISTRATOR = "BANNER_FIRST_ADMINISTRATOR"


LINES: Final[Mapping[Line, Text]] = {
    Line.LIMITS_OFF: Text("没有启用速率限制", "rate limits are off"),
    Line.LIMITS_OFF_FOR_ALL: Text(
        "对所有人都没有启用速率限制；请设置 AIPROJECT_LIMITS=on",
        "rate limits are off for everybody; AIPROJECT_LIMITS=on",
    ),
    Line.LISTENS_HERE: Text("监听 {host}：只有本机可以访问", "listens on {host}: only this machine reaches it"),
    Line.LISTENS_WITHOUT_PROXY: Text(
        "监听 {host} 且没有代理：密码和 uuid 以明文传输；请在前面放置启用 TLS 的代理并写入 "
        "AIPROJECT_TRUSTED_PROXIES，或监听 127.0.0.1",
        "listens on {host} without a proxy: passwords and uuids travel in the clear; put a proxy with TLS in "
        "front and name it in AIPROJECT_TRUSTED_PROXIES, or listen on 127.0.0.1",
    ),
    Line.LISTENS_BEHIND: Text("在 {proxies} 之后监听 {host}", "listens on {host} behind {proxies}"),
    Line.PROXIES_EVERYBODY: Text(
        "AIPROJECT_TRUSTED_PROXIES 相信所有人：调用方可以自选地址",
        "AIPROJECT_TRUSTED_PROXIES believes everybody: callers choose the address they have",
    ),
    Line.PROXIES_WIDE: Text(
        "AIPROJECT_TRUSTED_PROXIES 包含整个互联网（{networks}）：任何人都可以冒充任何人；请写明您的代理",
        "AIPROJECT_TRUSTED_PROXIES names the whole internet ({networks}): anybody can say to be anybody; "
        "name your proxies",
    ),
    Line.PROXIES_BELIEVED: Text("相信其所报的客户端：{proxies}", "believed about their clients: {proxies}"),
    Line.PUBLIC_URL_PLAIN: Text(
        "AIPROJECT_PUBLIC_URL 没有加密；请使用 https://",
        "AIPROJECT_PUBLIC_URL is not encrypted; use https://",
    ),
    Line.VOICE_ANONYMOUS: Text(
        "调用方不需要账号；AIPROJECT_VOICE_ANONYMOUS=false 则需要",
        "callers need no account; AIPROJECT_VOICE_ANONYMOUS=false demands one",
    ),
    Line.SANDBOX_FOR_STRANGERS: Text(
        "外部用户得到的是沙箱的回答，而不是模型的",
        "strangers are answered by the sandbox, not by a model",
    ),
    Line.REGISTRATION_OPEN: Text(
        "任何人都可以注册并得到额度；AIPROJECT_REGISTRATION=closed",
        "anybody may register and gets a quota; AIPROJECT_REGISTRATION=closed",
    ),
    Line.ORIGINS_ANY: Text(
        "任何来源的网页都可以调用（但不带 Cookie）；AIPROJECT_CORS_ORIGINS",
        "pages of any origin may call (never with cookies); AIPROJECT_CORS_ORIGINS",
    ),
    Line.DATA_NOT_THERE: Text("{path} 将在首次启动时创建", "{path} will be made at the first start"),
    Line.DATA_OPEN: Text(
        "本机的其他用户可以读取 {paths}；chmod go= 这些文件",
        "other users of this machine may read {paths}; chmod go= them",
    ),
    Line.DATA_PRIVATE: Text("{path} 仅其所有者可读", "{path} is readable by its owner only"),
    Line.ADMIN_KEY_NOT_SHARED: Text(
        "Redis 用于多个节点，它们需要同一个管理员令牌密钥：AIPROJECT_ADMIN_KEY_FILE",
        "Redis is for several nodes, which need one key for administrators' tokens: AIPROJECT_ADMIN_KEY_FILE",
    ),
    Line.ADMIN_KEY_OPEN: Text(
        "本机的其他用户可以读取 {path}；chmod go= 该文件",
        "other users of this machine may read {path}; chmod go= it",
    ),
    Line.PASSWORDS_SHORT: Text(
        "允许选择 {shortest} 个字符的密码，比 {wanted} 个字符的更快被猜出；AIPROJECT_PASSWORD_MIN_LENGTH={wanted}",
        "passwords of {shortest} characters may be chosen, which are guessed much sooner than those of "
        "{wanted}; AIPROJECT_PASSWORD_MIN_LENGTH={wanted}",
    ),
    Line.PASSWORDS_LONG: Text("至少 {shortest} 个字符", "at least {shortest} characters"),
    Line.CONFIGURATION_OPEN: Text(
        "本机的其他用户可以读取 {path}，其中有 {secrets}；chmod go= 该文件",
        "other users of this machine may read {path}, which holds {secrets}; chmod go= it",
    ),
    Line.CONFIGURATION_PRIVATE: Text("{path}，仅其所有者可读", "{path}, readable by its owner only"),
    Line.CONFIGURATION_WITHOUT_SECRETS: Text("{path}，不含机密", "{path}, without secrets"),
    Line.NAMES_OF_ADMINISTRATORS: Text("名称易混淆的管理员：{names}", "administrators with misleading names: {names}"),
    Line.NAMES_OF_ACCOUNTS: Text("名称易混淆的账号：{names}", "accounts with misleading names: {names}"),
    Line.NAMES_OF_MORE_ADMINISTRATORS: Text(
        "名称易混淆的管理员：{names}，另有 {count} 个",
        "administrators with misleading names: {names} and {count} more",
    ),
    Line.NAMES_OF_MORE_ACCOUNTS: Text(
        "名称易混淆的账号：{names}，另有 {count} 个",
        "accounts with misleading names: {names} and {count} more",
    ),
    Line.NAMES_FINE: Text("没有彼此易混的名称", "none looks like another one"),
    Line.CREDENTIALS_MISSING: Text(
        "未给出：由沙箱回答；请设置 AIPROJECT_IFLYTEK_APP_ID、_API_KEY、_API_SECRET",
        "none given: the sandbox answers; set AIPROJECT_IFLYTEK_APP_ID, _API_KEY, _API_SECRET",
    ),
    Line.CREDENTIALS_GIVEN: Text("已给出", "given"),
    Line.MODEL_ADDRESS_UNKNOWN: Text("{place} 不是我们认识的模型地址", "{place} is no model address we know"),
    Line.DOMAIN_MISFITS: Text(
        "AIPROJECT_SPARK_DOMAIN {domain} 与 {place} 不符；该地址使用 {domains}",
        "AIPROJECT_SPARK_DOMAIN {domain} does not fit {place}; it takes {domains}",
    ),
    Line.SERVICE_AT: Text("{name}，位于 {place}", "{name} at {place}"),
    Line.PLACE: Text("{place}", "{place}"),
    Line.ADDRESS_PLAIN: Text("没有加密；请使用 wss:// 或 https://", "is not encrypted; use wss:// or https://"),
    Line.LIMITS_BY_WORKER: Text(
        "{workers} 个工作进程各自计数，因此调用方的次数可能达到限额的 {workers} 倍；AIPROJECT_REDIS_URL 让它们一起计数",
        "each of the {workers} workers counts for itself, so that callers may come up to {workers} times as "
        "often; AIPROJECT_REDIS_URL lets them count together",
    ),
    Line.LIMITS_IN_PROCESS: Text("在这一个进程中计数", "counted in this one process"),
    Line.LIMITS_IN_REDIS: Text(
        "在 Redis 中计数，其应答用了 {milliseconds:.0f} 毫秒",
        "counted in Redis, which answered in {milliseconds:.0f} ms",
    ),
    Line.REDIS_SILENT: Text(
        "Redis 在 {seconds:g} 秒内没有应答：各进程各自计数，涉及费用的请求会被拒绝；见 AIPROJECT_REDIS_URL",
        "Redis does not answer within {seconds:g} s: each process counts for itself, and what guards money "
        "is refused; see AIPROJECT_REDIS_URL",
    ),
    Line.HASHING: Text(
        "argon2id 使用 {memory} KiB、{passes} 遍、{lanes} 路，在本机耗时 {seconds:.2f} 秒",
        "argon2id with {memory} KiB, {passes} passes and {lanes} lanes takes {seconds:.2f} s here",
    ),
    Line.HASHING_WEAK: Text(
        "argon2id 使用 {memory} KiB、{passes} 遍、{lanes} 路，在本机耗时 {seconds:.2f} 秒；内存少于 46 MiB 时"
        "请设置 AIPROJECT_ARGON2_PASSES=2 或更大",
        "argon2id with {memory} KiB, {passes} passes and {lanes} lanes takes {seconds:.2f} s here; with less "
        "than 46 MiB set AIPROJECT_ARGON2_PASSES=2 or more",
    ),
    Line.HASHING_AT_LEAST: Text(
        "argon2id 使用 {memory} KiB、{passes} 遍、{lanes} 路，在本机耗时 {seconds:.2f} 秒；再少就太少了",
        "argon2id with {memory} KiB, {passes} passes and {lanes} lanes takes {seconds:.2f} s here; less "
        "would be too little",
    ),
    Line.HASHING_ADVISED: Text(
        "argon2id 使用 {memory} KiB、{passes} 遍、{lanes} 路，在本机耗时 {seconds:.2f} 秒；以 {fastest:g} 到 "
        "{slowest:g} 秒为宜：{advice}",
        "argon2id with {memory} KiB, {passes} passes and {lanes} lanes takes {seconds:.2f} s here; "
        "{fastest:g} to {slowest:g} s are a good measure: {advice}",
    ),
    Line.DATABASE_CURRENT: Text("{dialect}，表结构 {revision}", "{dialect}, schema {revision}"),
    Line.DATABASE_EMPTY: Text("{dialect}，空；首次启动时建表", "{dialect}, empty; filled at the first start"),
    Line.DATABASE_NEWER: Text(
        "表结构 {revision} 属于更新的版本：请安装该版本",
        "schema {revision} is of a later release: install that one",
    ),
    Line.DATABASE_BEHIND: Text(
        "其表结构不属于本版本：请运行 aiproject db upgrade",
        "its schema is not this release's: run aiproject db upgrade",
    ),
    Line.UPSTREAM_ANSWERS: Text("文本模型有应答", "the text model answers"),
    Line.UPSTREAM_REFUSES: Text("文本模型拒绝：{detail}", "the text model refuses: {detail}"),
    Line.UPSTREAM_UNREACHABLE: Text("{detail}；请检查凭证和网络", "{detail}; check the credentials and the network"),
    Line.CLOCK_OFF: Text(
        "本机的时钟偏差 {seconds:.0f} 秒；请启用 NTP",
        "this machine's clock is off by {seconds:.0f} s; switch NTP on",
    ),
    Line.CLOCK_FINE: Text("平台接受", "accepted by the platform"),
    Line.ERROR: Text("{text}", "{text}"),
    Line.ADDED: Text("已添加 {name}", "added {name}"),
    Line.ADDED_AS: Text("已添加 {name}，{role}", "added {name}, {role}"),
    Line.REMOVED: Text("已移除 {name}", "removed {name}"),
    Line.REVOKED: Text("已吊销 {name}", "revoked {name}"),
    Line.PASSWORD_CHANGED_OF: Text("已修改 {name} 的密码", "changed the password of {name}"),
    Line.UUID_CHANGED_OF: Text("已更换 {name} 的 uuid", "changed the uuid of {name}"),
    Line.ROLE_OF: Text("{name} 的角色是 {role}", "{name} is {role}"),
    Line.LEFT: Text("未接管：{line}", "left: {line}"),
    Line.LEFT_ADMINISTRATOR_UNNAMED: Text("一位名称不可用的管理员", "an administrator whose name cannot be used"),
    Line.LEFT_ADMINISTRATOR_WITHOUT_PASSWORD: Text(
        "管理员 {name}：没有可用的密码", "administrator {name}: without a usable password"
    ),
    Line.LEFT_ADMINISTRATOR_THERE: Text(
        "管理员 {name}：已有同名管理员", "administrator {name}: there is one of this name"
    ),
    Line.LEFT_VOUCHER_REFUSED: Text("令牌 {name}：{reason}", "voucher {name}: {reason}"),
    Line.LEFT_VOUCHER_THERE: Text(
        "令牌 {name}：已有相同代码或名称的令牌", "voucher {name}: there is one with its code or its name"
    ),
    Line.LEFT_REDEMPTIONS_TABLE: Text(
        "表 {table}：没有指明用户和令牌的列", "the table {table}: no columns that name a user and a token"
    ),
    Line.LEFT_REDEMPTIONS: Text(
        "{count} 条兑换记录：其账号或令牌不在此处", "{count} redemptions: their account or their voucher is not here"
    ),
    Line.NOTE_TABLE_CREATED: Text("已创建 user 表", "table user created"),
    Line.NOTE_ACCOUNTS_ADOPTED: Text("已接管的账号：{count}", "accounts adopted: {count}"),
    Line.NOTE_BALANCES_NEGATIVE: Text(
        "为负而设为 0 的 {name} 余额：{count}（合计 {total}）",
        "{name} balances set to 0 that were negative: {count} (in all {total})",
    ),
    Line.NOTE_BALANCES_UNSET: Text(
        "未设置而设为 0 的 {name} 余额：{count}",
        "{name} balances set to 0 that were not set: {count}",
    ),
    Line.NOTE_VALUES_EMPTY: Text(
        "没有 {name} 而填入空值的行：{count}",
        "rows without {name} that got an empty one: {count}",
    ),
    Line.NOTE_BOOKS_OPENED: Text("已为有余额的账号开账：{count}", "books opened for accounts with a balance: {count}"),
    Line.NOTE_NAMES_RENEWED: Text(
        "{count} 个{whose}名称在比较时不计入不显示的字符",
        "{count} {whose} names are compared without the characters that are not displayed",
    ),
    Line.NOTE_NAMES_KEPT: Text(
        "{count} 个{whose}名称看起来与另一个相同，仍可使用；aiproject doctor 会列出它们",
        "{count} {whose} names look like another one and go on; aiproject doctor lists them",
    ),
    Line.SCHEMA_MOVED: Text("{before} -> {after}", "{before} -> {after}"),
    Line.SCHEMA_MOVED_FROM_NOTHING: Text("无修订 -> {after}", "no revision -> {after}"),
    Line.BLOCKED_BY_PRIMARY_KEY: Text("Id 不是它的主键", "Id is not its primary key"),
    Line.BLOCKED_BY_COLUMN: Text(
        "它的列 {name} 不是 AiProject 的，且要求每个新行给出值；请为其设置默认值",
        "its column {name} is not AiProject's and demands a value in each new row; give it a default",
    ),
    Line.BLOCKED_BY_LENGTH: Text(
        "{name} 在 {count} 行中超过 {limit} 个字符；请缩短",
        "{name} is longer than {limit} characters in {count} rows; shorten it",
    ),
    Line.BLOCKED_BY_NAMELESS: Text(
        "{count} 行没有 UserName；请补上或删除这些行",
        "{count} rows have no UserName; give them one or delete them",
    ),
    Line.BLOCKED_BY_LONG_NAMES: Text(
        "{count} 个名称的兼容形式过长；请改名",
        "{count} names are too long in their compatibility form; rename them",
    ),
    Line.BLOCKED_BY_COLLISIONS: Text(
        "{count} 个名称属于不止一个账号（共 {rows} 行），因为名称不区分大小写、全半角和两端的空格：{names}。"
        "请在 UserName 列中只保留每组中的一个，将其余改名或删除，然后重新运行升级",
        "{count} names are borne by more than one account ({rows} rows), since names are unique without "
        "regard to case, width and blanks around them: {names}. In the column UserName, rename all but one "
        "of each or delete those rows, then run the upgrade again",
    ),
    Line.BLOCKED_BY_MORE_COLLISIONS: Text(
        "{count} 个名称属于不止一个账号（共 {rows} 行），因为名称不区分大小写、全半角和两端的空格：{names}，"
        "另有 {more} 个。请在 UserName 列中只保留每组中的一个，将其余改名或删除，然后重新运行升级",
        "{count} names are borne by more than one account ({rows} rows), since names are unique without "
        "regard to case, width and blanks around them: {names} and {more} more. In the column UserName, "
        "rename all but one of each or delete those rows, then run the upgrade again",
    ),
    Line.VOUCHER_STATE: Text("{name} 的状态是 {state}", "{name} is {state}"),
    Line.KEY_SHOWN_ONCE: Text(
        "{name} 的密钥 {prefix}。请保存下面这一行：它不会再次显示。",
        "Key {prefix} of {name}. Keep the line below: it is not shown again.",
    ),
    Line.CHECKPOINT_OF: Text("检查点 {moment} UTC，{accounts} 个账号", "checkpoint {moment} UTC, {accounts} accounts"),
    Line.SCHEMA_ALREADY_AT: Text("已处于 {revision}", "already at {revision}"),
    Line.SCHEMA_UP_TO_DATE: Text("已是最新", "up to date"),
    Line.SCHEMA_IS_EMPTY: Text("空：aiproject db upgrade 会建表", "empty: aiproject db upgrade creates the tables"),
    Line.SCHEMA_IS_FOREIGN: Text(
        "其中是原版 AiProject 的账号：aiproject db upgrade 会接管",
        "holds an original AiProject's accounts: aiproject db upgrade adopts them",
    ),
    Line.SCHEMA_IS_NEWER: Text(
        "属于更新的版本：本版本不得在其上运行",
        "of a later release: this one must not run on it",
    ),
    Line.SCHEMA_IS_BEHIND: Text("落后：请运行 aiproject db upgrade", "behind: run aiproject db upgrade"),
    Line.PASSWORD_PROMPT: Text("密码", "Password"),
    Line.UNLOCKED: Text("已解锁 {name}", "unlocked {name}"),
    Line.NOT_LOCKED: Text("{name} 没有失败的登录记录", "there are no failed logins of {name}"),
    Line.REFUNDED: Text(
        "已退还 {amount} {meter}，对应请求 {request_id} 的第 {attempt} 次尝试",
        "refunded {amount} of {meter} for request {request_id}, attempt {attempt}",
    ),
    Line.BANNER_TITLE: Text(
        "[bold]AiProject {version}[/] 监听 [bold]{address}[/]",
        "[bold]AiProject {version}[/] listens on [bold]{address}[/]",
    ),
    Line.BANNER_SANDBOX: Text(
        "[yellow]内置沙箱[/]（没有给出讯飞凭证）：\n             对话回答是预制的，图片和英语语音则不是",
        "[yellow]the built-in sandbox[/] (no iFlytek credentials given):\n             chat answers are "
        "canned, pictures and English speech are not",
    ),
    Line.BANNER_DATABASE_SERVER: Text("数据库服务器", "database server"),
    Line.BANNER_FIRST_ADMINISTRATOR: Text(
        "[bold]还没有管理员。[/]请在 {minutes} 分钟内用下面的代码\n  POST {address}/admin/setup，或运行 "
        "[bold]aiproject admin add NAME[/] 来创建：\n  [bold]{code}[/]",
        "[bold]There is no administrator yet.[/] Make one within {minutes} minutes by\n  POST "
        "{address}/admin/setup with this code, or by [bold]aiproject admin add NAME[/]:\n  [bold]{code}[/]",
    ),
}
