"""LiteLLM's proxy as its own command runs it, on a free port that it prints; ends with standard input.

Run with the Python of its own environment (``make bench-peers`` makes it).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

START_SECONDS = 120.0


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(os.environ["BENCH_FOLDER"])
    configuration = folder / "config.yaml"
    configuration.write_text(
        "model_list:\n"
        "  - model_name: bench\n"
        "    litellm_params:\n"
        "      model: openai/bench\n"
        f"      api_base: {os.environ['BENCH_UPSTREAM']}\n"
        "      api_key: none\n"
        "litellm_settings: {telemetry: false}\n",
        encoding="utf-8",
    )
    # Its banner goes to standard output, whose first line is to be the port.
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def tell() -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                print(port, file=said, flush=True)
                break
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=tell, daemon=True).start()
    from litellm import run_server

    run_server(
        ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        standalone_mode=True,
    )


if __name__ == "__main__":
    main()
