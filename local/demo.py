"""`./local.sh demo [PHOTO STYLE]`: both model servers, as SageMaker would start and call them, paint one photograph."""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out"
PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
STYLE = ROOT / "examples" / "styles" / "swirls.jpg"
BAR = "{desc:<10}{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class Store(ThreadingHTTPServer):
    """Stands where S3 would: the models read their pictures from it, and put results and progress into it."""

    def __init__(self, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or StoreHandler)
        self.objects: dict[str, bytes] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, key: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{key}"


class StoreHandler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        data = self.server.objects.get(self.key())
        self.answer(404 if data is None else 200, data or b"")

    def do_PUT(self) -> None:
        self.server.objects[self.key()] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def key(self) -> str:
        return self.path[1:].partition("?")[0]

    def answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the base class's own
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def model_server(name: str) -> Iterator[str]:
    """The container's own command, outside of Docker. Gives its address once /ping says 200; stops it in the end."""
    address = f"127.0.0.1:{free_port()}"
    log = OUT / f"{name}.log"
    environment = os.environ | {
        "GUNICORN_CMD_ARGS": f"--bind {address}",
        "ALLOW_HTTP": "1",
        "ALLOW_PRIVATE_HOSTS": "1",
    }
    with open(log, "wb") as sink:
        command = [sys.executable, "-m", f"containers.{name}", "serve"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        wait_for_ping(process, address, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def wait_for_ping(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    reason = "it did not answer in 120 s"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = requests.get(f"http://{address}/ping", timeout=2)
            if answer.ok:
                return
            reason = answer.json()["error"]["message"]
            if answer.json()["error"]["code"] == "broken":
                break
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise DemoError(f"The model server did not start: {reason}. Its log: {log}")


def invoke(server: str, title: str, fields: dict[str, str], store: Store) -> tuple[Image.Image, dict[str, Any]]:
    """One request through /invocations, with a bar that follows the progress that the model tells."""
    result, progress = f"{title}.jpg", f"{title}.json"
    body = {**fields, "result_url": store.url(result), "progress_url": store.url(progress)}
    answers: list[requests.Response | Exception] = []

    def post() -> None:
        try:
            answers.append(requests.post(f"{server}/invocations", json=body, timeout=3600))
        except requests.RequestException as error:
            answers.append(error)

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    with tqdm(total=1.0, desc=title, bar_format=BAR, disable=None) as bar:
        while thread.is_alive():
            thread.join(0.5)
            if progress in store.objects:
                bar.update(json.loads(store.objects[progress])["done"] - bar.n)
        bar.update(1.0 - bar.n)
    answer = answers[0]
    if isinstance(answer, Exception):
        raise DemoError(f"{title}: the server broke off. Its log is in {OUT}.")
    if not answer.ok:
        raise DemoError(f"{title}: {answer.json()['error']['message']}")
    return Image.open(io.BytesIO(store.objects[result])), answer.json()


def sheet(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    """The pictures side by side at one height, with their captions below."""
    height, gap, caption = 360, 16, 40
    scaled = [
        image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)
        for _, image in pictures
    ]
    canvas = Image.new("RGB", (sum(image.width + gap for image in scaled) + gap, height + gap + caption), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    left = gap
    for (title, _), image in zip(pictures, scaled, strict=True):
        canvas.paste(image, (left, gap))
        draw.text((left + image.width / 2, gap + height + caption / 2), title, "black", font, anchor="mm")
        left += image.width + gap
    return canvas


def paint(photo: Path, style: Path) -> None:
    """Both servers, one after the other, since they share the processor; leaves three pictures in out/."""
    from containers.cyclegan.generator import find_styles
    from containers.cyclegan.service import model_directory

    names = list(find_styles(model_directory()))
    painter = next((name for name in ("monet", *names) if name in names), None)
    if painter is None:
        raise DemoError("There is no CycleGAN checkpoint. Fetch one: .venv/bin/python -m containers.cyclegan weights")
    store = Store()
    store.objects |= {"photo": photo.read_bytes(), "style": style.read_bytes()}
    content = {"content_url": store.url("photo")}
    OUT.mkdir(exist_ok=True)
    with model_server("cyclegan") as server:
        fields = {**content, "style_name": painter}
        painted, told = invoke(server, "cyclegan", fields, store)
        print(f"cyclegan   {painter}, {painted.width}x{painted.height} in {told['seconds']:.0f} s")
    with model_server("nst") as server:
        stylised, told = invoke(server, "nst", {**content, "style_url": store.url("style")}, store)
        print(f"nst        {style.name}, {stylised.width}x{stylised.height} in {told['seconds']:.0f} s", *told["notes"])
    for title in ("cyclegan", "nst"):
        (OUT / f"{title}.jpg").write_bytes(store.objects[f"{title}.jpg"])
    pictures = [
        ("photograph", ImageOps.exif_transpose(Image.open(photo)).convert("RGB")),
        ("style", ImageOps.exif_transpose(Image.open(style)).convert("RGB")),
        ("NST", stylised),
        (f"CycleGAN: {painter}", painted),
    ]
    sheet(pictures).save(OUT / "sheet.jpg", quality=92)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./local.sh demo", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO, metavar="PHOTO")
    parser.add_argument("style", nargs="?", type=Path, default=STYLE, metavar="STYLE")
    arguments = parser.parse_args()
    for path in (arguments.photo, arguments.style):
        if not path.is_file():
            print(f"There is no file {path}.", file=sys.stderr)
            return 2
    for number in (signal.SIGTERM, signal.SIGHUP):  # ends like Ctrl-C: the servers are stopped
        signal.signal(number, signal.default_int_handler)
    if shutil.which("nvidia-smi"):
        print("Painting on the GPU: this takes some seconds.")
    else:
        print(f"Painting on {os.cpu_count()} CPU cores: this takes two to three minutes.")
    try:
        paint(arguments.photo, arguments.style)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    for name in ("nst.jpg", "cyclegan.jpg", "sheet.jpg"):
        print(OUT / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
