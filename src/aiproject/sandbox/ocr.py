"""The sandbox's OCR service: ``POST /v1/private/{service}``."""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web

from aiproject.protocols.iflytek.ocr.client import OcrService
from aiproject.protocols.iflytek.ocr.server import OcrRequestError, answer_body, error_body, parse_ocr_request
from aiproject.sandbox.counters import Call, Calls
from aiproject.sandbox.engines import EngineFailed, EngineRefused, PictureEngine
from aiproject.sandbox.faults import Fault
from aiproject.sandbox.wire import new_sid, reset_connection

__all__ = ["answer_ocr"]


async def answer_ocr(
    request: web.Request,
    service: OcrService,
    *,
    app_id: str,
    engine: PictureEngine,
    faults: list[Fault],
    calls: Calls,
    call: Call,
) -> web.Response:
    """Answer one request that the gateway admitted."""
    active = {fault.kind: fault for fault in reversed(faults)}
    sid = new_sid("ase")
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        call.has_failed = True
        return _json(413, b'{"message":"request entity too large"}')
    if slow := active.get("slow"):
        await asyncio.sleep(slow.number("seconds"))
    if stall := active.get("stall"):
        await asyncio.sleep(stall.number("seconds"))
    if "reset" in active:
        call.has_failed = True
        reset_connection(request.transport)
        return _json(502, b"{}")  # not sent: the connection is gone
    if "not_json" in active:
        call.has_failed = True
        return _json(200, b'{"header":{"code":0,')
    if huge := active.get("huge"):
        call.has_failed = True
        return _json(200, b" " * huge.whole("bytes"))
    if error := active.get("error"):
        call.has_failed = True
        message = error.text("message") or "ordered by a fault"
        code, is_flat = error.whole("code"), error.whole("flat") == 1
        return _json(error.whole("http"), error_body(code, message, sid, is_flat=is_flat))
    try:
        picture, kind = parse_ocr_request(service, body, app_ids=(app_id,))
        calls.note(
            "ocr", service=service.name, bytes=len(picture), kind=kind, sha256=hashlib.sha256(picture).hexdigest()
        )
        lines = [] if "empty" in active else [line.text for line in await engine.read(picture)]
    except OcrRequestError as refusal:
        call.has_failed = True
        return _json(refusal.http_status, error_body(refusal.code, refusal.message, sid))
    except EngineRefused:
        call.has_failed = True
        return _json(502, error_body(10009, "input invalid data", sid))
    except EngineFailed:
        call.has_failed = True
        return _json(502, error_body(10700, "engine exception", sid))
    call.is_complete = True
    nul = active.get("nul")
    return _json(
        200,
        answer_body(
            service,
            lines,
            sid=sid,
            has_payload="no_payload" not in active,
            nul_padding=nul.whole("n") if nul else 0,
        ),
    )


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")
