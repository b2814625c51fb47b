"""AiProject itself, as ``aiproject serve`` runs it, on a free port that it prints; ends with standard input.

Each line of standard input is answered with the number of the process' unfinished tasks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading

from aiproject.adapters import log
from aiproject.config.loading import load_settings
from aiproject.server import Serving, bind, serve


def main() -> None:
    """Serve until standard input ends."""
    settings = load_settings()
    log.configure(settings.log_level, settings.log_format)
    credentials = settings.credentials
    if credentials is None:
        raise SystemExit("the benchmark gives credentials: upstream is its own stand-in")
    listener = bind("127.0.0.1", 0)

    def watch() -> None:
        for _ in sys.stdin.buffer:
            print(sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects()), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(
        serve(
            Serving(settings, credentials, False),
            listener,
            on_ready=lambda: print(listener.getsockname()[1], flush=True),
        )
    )


if __name__ == "__main__":
    main()
