"""The seed's stack at its leanest: Flask on gevent, websocket-client towards upstream; nothing but the relay.

Run with the Python of its own environment (``make bench`` makes it): Flask, gevent and websocket-client are no
dependencies of AiProject.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - gevent must come first
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import websocket  # noqa: E402
from flask import Flask, Response, request  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

app = Flask(__name__)
URL = os.environ["BENCH_UPSTREAM"]


def frames(dialog: Any) -> Any:
    connection = websocket.create_connection(URL)
    connection.send(
        json.dumps(
            {
                "header": {"app_id": "bench"},
                "parameter": {"chat": {"domain": "generalv3.5", "max_tokens": 4096}},
                "payload": {"message": {"text": dialog}},
            }
        )
    )
    try:
        while True:
            text = connection.recv()
            frame = json.loads(text)
            yield text, frame
            if frame["header"]["status"] == 2:
                return
    finally:
        connection.close()


@app.post("/textModel/chat")
def chat() -> Any:
    parts = [frame["payload"]["choices"]["text"][0]["content"] for _, frame in frames(request.get_json()["dialog"])]
    return {"code": 0, "content": "".join(parts)}


@app.post("/textModel/stream")
def stream() -> Any:
    dialog = request.get_json()["dialog"]
    return Response((text for text, _ in frames(dialog)), content_type="application/json")


def main() -> None:
    """Serve; print the port; end with standard input."""
    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    print(server.server_port, flush=True)
    gevent.get_hub().threadpool.spawn(sys.stdin.buffer.read).get()


if __name__ == "__main__":
    main()
