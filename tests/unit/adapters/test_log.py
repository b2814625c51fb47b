"""What the log prints, and above all what it never prints."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from aiproject.adapters import log


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was found."""
    handlers, level = logging.root.handlers[:], logging.root.level
    access = logging.getLogger("uvicorn.access").disabled
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = access


class Told:
    """What has been written to standard error so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._told = ""

    def getvalue(self) -> str:
        self._told += self._capture.readouterr().err
        return self._told


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


def fail_with_a_secret() -> None:
    password = "hunter2-the-local-variable"
    raise RuntimeError(f"{len(password)} characters")


def test_a_connection_that_the_pool_throws_away_is_one_line(stderr: Told) -> None:
    log.configure("info", "json")
    pool = logging.getLogger("sqlalchemy.pool.impl.AsyncAdaptedQueuePool")
    try:
        raise ConnectionResetError("of somebody")
    except ConnectionResetError:
        pool.error("Exception during reset or similar", exc_info=True)
    pool.error("something else")
    first, second = map(json.loads, stderr.getvalue().splitlines())
    assert first.pop("timestamp")
    assert first == {
        "event": "a database connection is thrown away: ConnectionResetError",
        "level": "warning",
        "logger": "sqlalchemy.pool.impl.AsyncAdaptedQueuePool",
    }
    assert (second["event"], second["level"]) == ("something else", "error")


def test_json_is_one_object_a_line(stderr: Told) -> None:
    log.configure("info", "json")
    log.get_logger("relay").info("request", path="/textModel/chat", name="小明", lines="a\nb")
    log.get_logger("relay").debug("not shown")
    (line,) = stderr.getvalue().splitlines()
    told = json.loads(line)
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "event": "request",
        "level": "info",
        "room": "relay",
        "path": "/textModel/chat",
        "name": "小明",
        "lines": "a\nb",
    }
    assert "小明" in line


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_levels(stderr: Told, level: str) -> None:
    log.configure(level, "json")
    logger = log.get_logger("x")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    names = [json.loads(line)["event"] for line in stderr.getvalue().splitlines()]
    assert names == ["debug", "info", "warning", "error"][["debug", "info", "warning", "error"].index(level) :]


def test_a_pipe_gets_json_and_a_terminal_does_not(stderr: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure("info")
    log.get_logger("x").info("on a pipe")
    json.loads(stderr.getvalue())
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    log.configure("info")
    log.get_logger("x").info("on a terminal")
    assert "on a terminal" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize("style", ["json", "console"])
def test_libraries_speak_through_it_from_warning_on(stderr: Told, style: str) -> None:
    log.configure("debug", "json" if style == "json" else "console")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("pool of %s is %s", "db", "full")
    assert "chatter" not in stderr.getvalue()
    assert "pool of db is full" in stderr.getvalue()
    if style == "json":
        told = json.loads(stderr.getvalue())
        assert (told["logger"], told["level"]) == ("some.library", "warning")
    log.configure("error", "json")
    logging.getLogger("some.library").warning("not at this level")
    assert "not at this level" not in stderr.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("by", ["a library", "us"])
def test_a_trace_shows_no_local_variables(stderr: Told, style: str, by: str) -> None:
    """Locals hold passwords, uuids and signed addresses."""
    log.configure("info", "json" if style == "json" else "console")
    try:
        fail_with_a_secret()
    except RuntimeError:
        if by == "us":
            log.get_logger("x").exception("failed")
        else:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
    told = stderr.getvalue()
    assert "RuntimeError" in told
    assert "fail_with_a_secret" in told
    assert "26 characters" in told
    assert "hunter2" not in told.replace('password = "hunter2-the-local-variable"', "")  # the source's own line
    assert "the-local-variable" not in told.replace('password = "hunter2-the-local-variable"', "")
    if style == "json":
        assert len(told.splitlines()) == 1
        json.loads(told)


def test_uvicorns_access_lines_are_off(stderr: Told) -> None:
    log.configure("debug", "json")
    logging.getLogger("uvicorn.access").error("127.0.0.1 GET /?password=x")
    assert stderr.getvalue() == ""


FORGERIES = {
    "C1 control": "a\x9b2Jb",
    "DEL": "a\x7fb",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "right-to-left override": "a\u202eb",
    "isolate": "a\u2066b",
    "tag": "a\U000e0041b",
}


@pytest.mark.parametrize("text", FORGERIES.values(), ids=FORGERIES.keys())
def test_json_escapes_what_forges_lines_or_controls_a_terminal(stderr: Told, text: str) -> None:
    log.configure("info", "json")
    log.get_logger("x").info("request", path=text, name="小明 ✓")
    told = stderr.getvalue()
    assert text[1:-1] not in told
    assert "小明 ✓" in told
    assert json.loads(told)["path"] == text


@pytest.mark.parametrize("text", [*FORGERIES.values(), "a\x1b[2Jb", "a\nb", "a\rb"])
def test_the_console_escapes_them_as_well(stderr: Told, text: str) -> None:
    log.configure("info", "console")
    log.get_logger("x").info(f"event {text}", path=text, nested=[text], name="小明✓")
    logging.getLogger("some.library").warning("says %s", text)
    try:
        raise RuntimeError(text.replace("\n", ""))
    except RuntimeError:
        log.get_logger("x").exception("failed")
    told = stderr.getvalue()
    assert "小明✓" in told
    assert text not in told
    assert text[1:-1] not in told.replace("\n", "") or text == "a\nb"


def test_a_failing_stream_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log.configure("info", "json")
        log.get_logger("x").info("ours")
        logging.getLogger("some.library").warning("a library's")
        trouble = log.log_trouble()
        assert trouble is not None
        assert (trouble.reason, trouble.waiting) == ("No space left on device", 2)
        log.standard_error().close()


def test_a_loss_is_one_line_once_lines_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    monkeypatch.setattr(sys, "stderr", disk)
    log.configure("info", "json")
    logger = log.get_logger("x")
    for _ in range(1100):
        logger.info("x" * 1000)
    trouble = log.log_trouble()
    assert trouble is not None
    assert trouble.lost > 0
    disk.is_full = False
    logger.info("after")
    told = [json.loads(line) for line in disk.getvalue().splitlines()]
    assert [line["event"] for line in told[-2:]] == ["log lines were lost", "after"]
    assert (told[-2]["count"], told[-2]["error"]) == (1100 + 2 - len(told), "No space left on device")
    assert told[-2]["since"].endswith("+00:00")
    assert log.log_trouble() is None


@pytest.mark.parametrize("speaks_first", ["ours", "a library's"])
def test_a_command_sets_logging_up_with_its_first_line(stderr: Told, speaks_first: str) -> None:
    log.configure("warning", "json", is_lazy=True)
    if speaks_first == "ours":
        log.get_logger("cli").info("not at this level")
        log.get_logger("cli").warning("seen")
    else:
        logging.getLogger("somebody").info("not at this level")
        logging.getLogger("somebody").warning("seen")
    (line,) = map(json.loads, stderr.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("seen", "warning")
