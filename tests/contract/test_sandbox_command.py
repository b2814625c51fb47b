"""The sandbox alone in the foreground, as ``aiproject sandbox`` runs it."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import subprocess
import sys

import pytest

import program
from aiproject.sandbox.running import SandboxAddress
from sandbox_client import chat_request, say

START = (
    "from aiproject.sandbox.platform import SandboxOptions;"
    "from aiproject.sandbox.running import run_forever;"
    "run_forever(SandboxOptions(frame_gap=0, use_engines=False), 0)"
)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_prints_settings_that_work_and_stops_on_a_signal(stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program.environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            settings = {}
            for line in process.stdout:
                assert line.startswith("#") or re.fullmatch(r"export AIPROJECT_[A-Z_]+='[^']+'\n", line)
                if line.startswith("export "):
                    name, value = shlex.split(line)[1].split("=", 1)
                    settings[name] = value
                if name_of_last(line):
                    break
            port = int(settings["AIPROJECT_SPARK_URL"].split(":")[2].split("/")[0])
            address = SandboxAddress(
                port,
                settings["AIPROJECT_IFLYTEK_APP_ID"],
                settings["AIPROJECT_IFLYTEK_API_KEY"],
                settings["AIPROJECT_IFLYTEK_API_SECRET"],
            )
            assert address.environment() == settings
            frames, _ = asyncio.run(say(address, chat_request(address)))
            assert frames[-1]["header"]["status"] == 2
            process.send_signal(stop)
            assert process.wait(timeout=10) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def name_of_last(line: str) -> bool:
    """Whether this is the last line that is printed."""
    return line.startswith("export AIPROJECT_OCR_URL=")
