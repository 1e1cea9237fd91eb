"""The runtime of asynchronous SageMaker endpoints as bot.py sees it, with models that pretend."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.fakes.names import BUCKET
from tests.fakes.storage import Storage


class Endpoint:
    """SageMaker's runtime for tests: InvokeEndpointAsync as boto3 speaks it, and a pretended model.

    A "painting" is JSON that says what it was made of. `mode` is one of:
    ok; asleep (accepts requests and does nothing); missing, throttled or broken (HTTP 500), which
    refuse requests; failing (writes `error` to the failure location).
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.mode = "ok"
        self.seconds = 0.0  # that a painting takes
        self.steps = 0  # in which it tells its progress
        reason = {"code": "image_unreadable", "message": "This is no picture."}
        self.error: str = json.dumps({"error": reason})
        self.answer: dict[str, Any] = {"size": [800, 600], "seconds": 12.3, "notes": []}
        self.preview = base64.b64encode(b"\xff\xd8 preview").decode()
        self.padding = 0  # bytes added to a painting
        self.invocations: list[dict[str, Any]] = []  # the calls
        self.requests: list[dict[str, Any]] = []  # the JSON objects that they named
        self.held: queue.Queue[dict[str, Any]] = queue.Queue()  # accepted while asleep
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body, headers = endpoint.accept(self.path, dict(self.headers.items()))
                self.send_response(status)
                data = json.dumps(body).encode()
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def accept(
        self, path: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        name = path.split("/")[2]
        refusals = {
            "missing": (400, "ValidationError", f"Endpoint {name} of account 123 not found."),
            "throttled": (400, "ThrottlingException", "Rate exceeded"),
            "broken": (500, "InternalFailure", "Internal failure"),
        }
        if self.mode in refusals:
            status, kind, message = refusals[self.mode]
            return status, {"message": message}, {"x-amzn-ErrorType": kind}
        headers = {key.lower(): value for key, value in headers.items()}
        number = f"{len(self.invocations)}-{time.monotonic_ns()}"
        call = {
            "endpoint": name,
            "input": headers["x-amzn-sagemaker-inputlocation"],
            "id": headers.get("x-amzn-sagemaker-inference-id", ""),
            "headers": headers,
            "output": f"async/output/{number}.out",
            "failure": f"async/failure/{number}-error.out",
        }
        self.invocations.append(call)
        if self.mode == "asleep":
            self.held.put(call)
        else:
            threading.Thread(target=self.work, args=(call,), daemon=True).start()
        places = {
            f"X-Amzn-SageMaker-{n.title()}Location": f"s3://{BUCKET}/{call[n]}"
            for n in ("output", "failure")
        }
        return 202, {"InferenceId": call["id"]}, places

    def wake(self) -> None:
        """The endpoint wakes, and takes up what has waited for it."""
        self.mode = "ok"
        while not self.held.empty():
            threading.Thread(target=self.work, args=(self.held.get(),), daemon=True).start()

    def work(self, call: dict[str, Any]) -> None:
        try:
            self._paint(call)
        except (ClientError, BotoCoreError) as error:
            said = {
                "error": {
                    "code": "object_not_found",
                    "message": f"An object is gone: {type(error).__name__}",
                }
            }
            with contextlib.suppress(
                ClientError, BotoCoreError
            ):  # the storage is gone, at the end of the tests
                self._write(call["failure"], json.dumps(said).encode())

    def _paint(self, call: dict[str, Any]) -> None:
        if self.mode == "failing":
            self._write(call["failure"], self.error.encode())
            return
        request = json.loads(self._read(call["input"]))
        self.requests.append(request)
        made = {"job": call["id"], "endpoint": call["endpoint"], "style": request.get("style_name")}
        for name in ("content", "style"):
            if f"{name}_url" in request:
                made[name] = self._read(request[f"{name}_url"]).decode(errors="replace")[:200]
        for step in range(self.steps):
            left = self.seconds * (1 - step / self.steps)
            progress = {
                "step": step,
                "steps": self.steps,
                "seconds": 1.0,
                "seconds_left": left,
                "preview": self.preview,
            }
            self._write(request["progress_url"].split("/", 3)[3], json.dumps(progress).encode())
            time.sleep(self.seconds / self.steps)
        if not self.steps:
            time.sleep(self.seconds)
        picture = json.dumps(made).encode() + b" " * self.padding
        self._write(request["result_url"].split("/", 3)[3], picture)
        self._write(
            call["output"],
            json.dumps({"result_url": request["result_url"], **self.answer}).encode(),
        )

    def _read(self, url: str) -> bytes:
        return self.storage.read(url.split("/", 3)[3])

    def _write(self, key: str, data: bytes) -> None:
        self.storage.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
