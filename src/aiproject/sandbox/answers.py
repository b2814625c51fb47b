"""The sandbox's canned answers: labelled, deterministic, and in the language of the question.

No model is involved. An answer repeats a bounded part of the question, which shows that the question arrived, and
states that no model was asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

__all__ = ["cut_to_tokens", "describe_picture", "is_chinese", "make_answer", "make_reasoning", "split_frames"]

_MAX_ECHO: Final = 120  # code points of the question that an answer repeats
_CJK: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")

# Selected by the question's hash, so that answers to two questions can be told apart.
_CLOSINGS_ZH: Final = (
    "填好讯飞控制台的三项凭据后，同样的请求就会由星火大模型来回答。",
    "沙盒按星火的协议逐帧返回这段文字，您的程序可以照常联调。",
    "这段文字每次都一样，方便写测试；它的词元数是估算的，但会照实扣除额度。",
)
_CLOSINGS_EN: Final = (
    "With the three credentials of the iFlytek console the same request is answered by the Spark model.",
    "The sandbox sends this text frame by frame in Spark's protocol, so your program can be tried as it is.",
    "This text is the same each time, which suits tests; its token counts are estimates, and are charged.",
)


def is_chinese(text: str) -> bool:
    """Whether a text contains a Chinese character; this decides the language of the answer."""
    return _CJK.search(text) is not None


def make_answer(question: str, *, turn: int) -> str:
    """Return the canned answer to a question.

    Args:
        question: the last user message.
        turn: the number of this question in the dialog, from 1.
    """
    echo = _echo(question)
    closing = _pick(question, 3)
    if is_chinese(question):
        return (
            f"【沙盒】这是本地沙盒的固定回答，没有调用任何大模型。"
            f"您的第 {turn} 个问题是：“{echo}”（共 {len(question.strip())} 个字符）。{_CLOSINGS_ZH[closing]}"
        )
    return (
        f"[sandbox] This is a canned answer of the local sandbox; no model was asked. "
        f'Question {turn} was: "{echo}" ({len(question.strip())} characters). {_CLOSINGS_EN[closing]}'
    )


def make_reasoning(question: str) -> str:
    """Return the canned text that a reasoning model streams as its reasoning before the answer."""
    if is_chinese(question):
        return f"【沙盒】这里是固定的思考过程：先看问题“{_echo(question)}”，再按协议给出固定的回答。"
    return f'[sandbox] Canned reasoning: read the question "{_echo(question)}", then give the canned answer.'


def describe_picture(image: bytes, kind: str, size: tuple[int, int], question: str) -> str:
    """Return the answer to a question about a picture, which states the picture's kind, size and hash."""
    digest = hashlib.sha256(image).hexdigest()[:12]
    if is_chinese(question):
        return (
            f"【沙盒】这是本地沙盒的固定回答，没有看图。收到一张 {size[0]}×{size[1]} 的 {kind} 图片"
            f"（{len(image)} 字节，SHA-256 {digest}），问题是：“{_echo(question)}”。"
        )
    return (
        f"[sandbox] This is a canned answer of the local sandbox; nobody looked. "
        f"It received a {size[0]}x{size[1]} {kind} picture ({len(image)} bytes, SHA-256 {digest}) "
        f'and the question: "{_echo(question)}".'
    )


def split_frames(text: str, *, at_least: int = 3, size: int = 6) -> list[str]:
    """Split a text at code points into the deltas of a stream.

    Args:
        at_least: the number of pieces wanted; a shorter text gives fewer pieces, none of them empty.
        size: code points in a piece, where the text is long enough.
    """
    if not text:
        return []
    size = max(1, min(size, len(text) // max(1, at_least)))
    return [text[i : i + size] for i in range(0, len(text), size)]


def cut_to_tokens(text: str, max_tokens: int, count: Callable[[str], int]) -> str:
    """Return the longest prefix of a text that has at most ``max_tokens`` tokens by ``count``.

    Args:
        count: returns the tokens of a text. It must not decrease as the text grows, because the prefix is found by
            bisection.
    """
    if count(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _echo(question: str) -> str:
    flat = " ".join(question.split())
    return flat if len(flat) <= _MAX_ECHO else flat[:_MAX_ECHO] + "…"


def _pick(question: str, choices: int) -> int:
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[0] % choices
