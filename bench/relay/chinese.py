"""The tables of figures in Chinese: the same numbers, with titles, columns, names and notes translated."""

from __future__ import annotations

import re
from typing import Final

from bench.relay.tables import RENDERERS, Table

__all__ = ["Untranslated", "in_chinese"]


class Untranslated(Exception):
    """A table has a text that no pattern knows."""


# Numbers, units and names of programs are the same in both languages, and so are scenarios, which are words to type.
_KEPT: Final = re.compile(
    r"|[\d.,+%<≤≥ -]*( ?(×|%|KiB|MiB|ms))?|[0-9a-f]{7,}|unknown|AiProject|MySQL|SQLite|CPU µs|MiB|p[\d.]+( ms)?|"
    + "|".join(map(re.escape, RENDERERS))
)

_PATTERNS: Final[tuple[tuple[str, str], ...]] = (
    # Titles.
    ("Aims", "目标"),
    (r"Cost of a call of (\d+) frames \((\d+) at once\)", r"一次 \1 帧的调用的开销（同时 \2 个）"),
    ("AiProject and LiteLLM, each by its own dialect", "AiProject 与 LiteLLM，各用自己的方言"),
    ("Chats at once", "同时进行的对话"),
    (r"([\d,]+) streams of (\d+) frames/s for (\d+) s", r"\1 个流，每秒 \2 帧，\3 秒"),
    (r"Slow streams, one frame in (\d+) s", r"慢速流，每 \1 秒一帧"),
    (r"First frame, upstream (\d+) ms away, (\d+) ms of thinking", r"首帧，上游往返 \1 毫秒，思考 \2 毫秒"),
    ("One worker and two", "一个与两个工作进程"),
    (r"Growing ledger \(SQLite\)", "不断增长的账本（SQLite）"),
    (r"(\d+) minutes at half load", r"半负载运行 \1 分钟"),
    ("When", "测量时间"),
    # Columns.
    ("what", "项目"),
    ("aim", "目标"),
    ("measured", "测得"),
    ("call", "调用"),
    ("through", "经过"),
    ("ratio", "比值"),
    ("a frame more", "每多一帧"),
    ("calls/s", "调用/秒"),
    ("first ms", "首帧 ms"),
    ("at once", "同时"),
    ("dropped", "丢失"),
    ("late p50 ms", "迟到 p50 ms"),
    ("spacing error p99 ms", "间隔误差 p99 ms"),
    ("cores", "核"),
    ("kept waiting", "等待核心"),
    ("CPU µs a frame", "每帧 CPU µs"),
    ("KiB a stream", "每流 KiB"),
    ("meant", "计划"),
    ("asked for", "请求"),
    ("open", "打开"),
    ("MiB of the process", "进程 MiB"),
    ("round trips", "往返次数"),
    ("of the least", "与最少值之比"),
    ("database", "数据库"),
    ("workers", "工作进程"),
    ("chats/s", "对话/秒"),
    ("cores used", "所用核数"),
    ("chats/s a core", "每核对话/秒"),
    ("accounts", "账号"),
    ("ledger entries", "账目记录"),
    ("database MiB", "数据库 MiB"),
    ("CPU µs a chat", "每次对话 CPU µs"),
    ("before", "之前"),
    ("after", "之后"),
    ("scenario", "场景"),
    ("day", "日期"),
    ("revision", "修订"),
    ("load average at its end", "结束时的平均负载"),
    # Cells.
    ("met", "达到"),
    ("NOT met", "未达到"),
    ("chat", "对话"),
    ("stream", "流"),
    ("bare ASGI relay", "裸 ASGI 转发"),
    ("AiProject on MySQL", "AiProject（MySQL）"),
    (r"Flask \+ gevent relay", "Flask + gevent 转发"),
    ("LiteLLM proxy", "LiteLLM 代理"),
    ("direct client", "直连客户端"),
    ("AiProject, cold", "AiProject，冷"),
    ("AiProject, warm", "AiProject，预热"),
    ("memory MiB", "内存 MiB"),
    ("descriptors", "描述符"),
    ("threads", "线程"),
    ("tasks", "任务"),
    ("open holds", "开启的预留"),
    # Aims.
    (r"CPU of a chat, of the bare relay's", "对话的 CPU，相对裸转发"),
    (r"CPU of a chat, of the Flask relay's", "对话的 CPU，相对 Flask 转发"),
    (r"CPU of one more frame of a chat, of the bare relay's", "对话每多一帧的 CPU，相对裸转发"),
    (r"CPU of a stream, of the bare relay's", "流的 CPU，相对裸转发"),
    (r"CPU of a stream, of the Flask relay's", "流的 CPU，相对 Flask 转发"),
    (r"CPU of one more frame of a stream, of the bare relay's", "流每多一帧的 CPU，相对裸转发"),
    (r"LiteLLM's CPU of a chat, of ours", "LiteLLM 对话的 CPU，相对 AiProject"),
    (r"LiteLLM's CPU of a stream, of ours", "LiteLLM 流的 CPU，相对 AiProject"),
    (r"dropped of ([\d,]+) streams", r"\1 个流中丢失的"),
    (r"frames of ([\d,]+) streams that are less than 20 ms late", r"\1 个流中迟到不足 20 毫秒的帧"),
    ("memory of a further open stream", "每多打开一个流的内存"),
    ("slow streams open in one process", "一个进程中打开的慢速流"),
    ("memory of the process with them", "此时进程的内存"),
    (
        "time to the first frame, warm, of one round trip and the model's delay",
        "预热时到首帧的时间，相对一次往返加模型的延迟",
    ),
    (r"throughput of two workers, of one's, (\w+)", r"两个工作进程的吞吐量，相对一个，\1"),
    (r"descriptors left over after (\d+) minutes", r"\1 分钟后遗留的描述符"),
    (r"tasks left over after (\d+) minutes", r"\1 分钟后遗留的任务"),
    (r"open holds left over after (\d+) minutes", r"\1 分钟后遗留的预留"),
    (
        r"CPU of a chat at 1,000 calls at once, of that at 10 \(bound of ours\)",
        "同时 1,000 个调用时对话的 CPU，相对 10 个（自定的上限）",
    ),
    (
        r"CPU of a chat with ([\d,]+) entries \(the dearest\), of that with few \(bound of ours\)",
        r"有 \1 条记录时（最贵）对话的 CPU，相对很少记录时（自定的上限）",
    ),
    # Notes.
    (
        r"Beside that, MySQL's own server used, a call: chat ([\d,]+) µs, stream ([\d,]+) µs\.",
        r"此外，MySQL 服务器自身每次调用使用：对话 \1 µs，流 \2 µs。",
    ),
    (
        r"Late: from the stand-in's writing to the client's reading, of (\d+) streams .*",
        (
            r"迟到：从替身写出到客户端读到，取自由单独进程观察的 \1 个流。"
            r"等待核心：服务器本可运行而核心被他人占用的时间比例。"
            r"测试工具与其他程序共用一个核，它自身带来的影响也在裸转发的数字中。"
        ),
    ),
    (
        r"The system's hard limit of open files allowed no more: each stream takes two\.",
        "系统打开文件数的硬限制不允许更多：每个流占用两个。",
    ),
    (r"Each worker was held to ([\d.]+) of a core\.", r"每个工作进程限制为 \1 个核。"),
    (r"Workers were not held to a share of a core\.", "没有限制工作进程的核心份额。"),
    (
        r"([\d,]+) calls, ([\d.]+) of a core; memory's slope after the warm-up: ([\d.+-]+) MiB an hour\.",
        r"\1 次调用，\2 个核；预热之后内存的斜率：每小时 \3 MiB。",
    ),
)

_COMPILED: Final = tuple((re.compile(pattern, re.DOTALL), chinese) for pattern, chinese in _PATTERNS)


def in_chinese(table: Table) -> Table:
    """Return a table with its texts in Chinese.

    Raises:
        Untranslated: a title, column, cell or note is neither known nor the same in both languages.
    """
    return Table(
        _text(table.title),
        tuple(map(_text, table.columns)),
        [tuple(map(_text, row)) for row in table.rows],
        _text(table.note),
    )


def _text(text: str) -> str:
    for pattern, chinese in _COMPILED:
        if found := pattern.fullmatch(text):
            return found.expand(chinese)
    if _KEPT.fullmatch(text):
        return text
    raise Untranslated(text)
