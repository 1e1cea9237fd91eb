"""The servers: the seconds until /ping answers 200, and what 1 to 32 clients at once get."""

import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from benchmarks.measure import ROOT, MeasurementError, Settings, say, spread, table, two_plots
from bot import MODELS
from local.model_servers import docker_command, has_image, model_command
from local.processes import free_port

TITLE = "Servers"
STARTS = 5
CLIENTS = (1, 2, 4, 8, 16, 32)
# In all, at each number of clients
PICTURES = 32
SIDE = 256
IMPORTS = [f"containers.{name}.service" for name in MODELS]


@contextmanager
def server(name: str, docker: bool = False) -> Iterator[tuple[str, float]]:
    """Start a container, or its command without Docker.

    Yield its URL, and the seconds until /ping answered 200.
    """
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"GUNICORN_CMD_ARGS": f"--bind {address}"}
    container = f"stylebot-benchmark-{os.getpid()}"
    command = model_command(name)
    if docker:
        command = docker_command(name, container, environment)
    started = time.perf_counter()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
    try:
        url = f"http://{address}"
        while not is_healthy(url):
            if process.poll() is not None or time.perf_counter() - started > 120:
                raise MeasurementError(f"the {name} server did not start")
            time.sleep(0.01)
        yield url, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def measure(settings: Settings) -> dict[str, Any]:
    """Measure the starts, the imports and the load."""
    servers = {f"containers.{name}": (name, False) for name in MODELS}
    for name in MODELS:
        if has_image(f"stylebot-{name}"):
            servers[f"image stylebot-{name}"] = (name, True)
    results: dict[str, Any] = {"starts": {title: [] for title in servers}, "load": []}
    for _ in range(STARTS):
        for title, (name, docker) in servers.items():
            with server(name, docker) as (_, took):
                results["starts"][title].append(took)
        starts = [f"{title} {took[-1]:.2f} s" for title, took in results["starts"].items()]
        say(f"start to /ping 200: {', '.join(starts)}")
    results["imports"] = {module: import_times(module) for module in IMPORTS}
    photo = jpeg(settings.pairs[0][0])
    with server("cyclegan") as (url, _):
        for clients in CLIENTS:
            row = under_load(url, photo, clients)
            results["load"].append(row)
            say(
                f"{clients} clients: {row['rate']:.2f} pictures a second, "
                f"/ping at most {max(row['pings']) * 1000:.0f} ms, "
                f"{row['refused']} times told to come again, {row['lost']} lost"
            )
    return results


def jpeg(path: str) -> bytes:
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def import_times(module: str) -> list[tuple[str, float]]:
    """Return the ten costliest packages of `import module`, with their milliseconds.

    The time of what a package imports counts there, not here.
    """
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    packages: dict[str, float] = {}
    for line in done.stderr.splitlines()[1:]:
        own, _, name = line.removeprefix("import time:").split("|")
        package = name.strip().split(".")[0]
        packages[package] = packages.get(package, 0) + float(own) / 1000
    return sorted(packages.items(), key=lambda item: -item[1])[:10]


def under_load(url: str, photo: bytes, clients: int) -> dict[str, Any]:
    """Let each client send its next photograph when the last one has come back.

    A client that is refused comes again after the Retry-After of the answer.
    """
    about = requests.get(url, headers={"Accept": "application/json"}, timeout=10).json()
    style = about["styles"][0]
    # Each client writes only to its own place in these lists
    waits: list[list[float]] = [[] for _ in range(clients)]
    refused = [0] * clients
    lost = [0] * clients
    # When each accepted request was sent and answered; append is atomic
    turns: list[tuple[float, float]] = []
    pings: list[float] = []
    over = threading.Event()

    def client(number: int) -> None:
        session = requests.Session()
        for _ in range(PICTURES // clients):
            began = time.perf_counter()
            while True:
                sent = time.perf_counter()
                answer = session.post(
                    f"{url}/invocations?style={style}",
                    data=photo,
                    headers={"Content-Type": "image/jpeg"},
                    timeout=300,
                )
                if answer.status_code != 503:
                    break
                refused[number] += 1
                time.sleep(float(answer.headers["Retry-After"]))
            waits[number].append(time.perf_counter() - began)
            turns.append((sent, time.perf_counter()))
            lost[number] += answer.status_code != 200

    def pinger() -> None:
        while not over.wait(0.05):
            began = time.perf_counter()
            requests.get(f"{url}/ping", timeout=30)
            pings.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    watcher = threading.Thread(target=pinger)
    began = time.perf_counter()
    for thread in [watcher, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    over.set()
    watcher.join()
    return {
        "clients": clients,
        "rate": PICTURES / took,
        "waits": [wait for each in waits for wait in each],
        "overtaken": sum(overtaken(turn, turns) for turn in turns),
        "refused": sum(refused),
        "lost": sum(lost),
        "pings": pings,
    }


def overtaken(turn: tuple[float, float], turns: list[tuple[float, float]]) -> bool:
    """Return whether a request that was sent clearly later was answered clearly earlier."""
    sent, answered = turn
    return any(other > sent + 0.1 and done < answered - 0.1 for other, done in turns)


def report(results: dict[str, Any]) -> str:
    """Return the section of RESULTS.md."""
    starts = [[name, spread(seconds, 2)] for name, seconds in results["starts"].items()]
    rows = []
    for row in results["load"]:
        pings = sorted(row["pings"])
        rows.append(
            [
                str(row["clients"]),
                f"{row['rate']:.2f}",
                f"{statistics.median(row['waits']):.2f}, {max(row['waits']):.2f}",
                f"{row['overtaken']}",
                f"{statistics.median(pings) * 1000:.0f}, {pings[-1] * 1000:.0f}",
                f"{row['refused']}",
                f"{row['lost']}",
            ]
        )
    head = ["clients", "pictures/s", "wait, s: median, most", "overtaken in the queue"]
    head += ["ping, ms: median, most", "told to come again", "lost"]
    profile = "\n".join(
        f"- `{module}`: " + ", ".join(f"{package} {ms:.0f} ms" for package, ms in times)
        for module, times in results["imports"].items()
    )
    return (
        table(["server", "start to the first 200 of /ping, s"], starts)
        + f"\nWhere the imports' time goes (`python -X importtime`):\n\n{profile}\n\n"
        + f"The server of CycleGAN, photographs of {SIDE}x{SIDE}, {PICTURES} in all; a client "
        + "that finds the queue full comes again after the Retry-After of the answer:\n\n"
        + table(head, rows)
    )


def plot(results: dict[str, Any], path: Path) -> None:
    clients = [row["clients"] for row in results["load"]]
    with two_plots(path) as axes:
        axes[0].plot(clients, [row["rate"] for row in results["load"]], "o-")
        axes[0].set(xscale="log", xlabel="clients at once", ylabel="pictures a second", ylim=0)
        axes[1].boxplot(
            [[1000 * ping for ping in row["pings"]] for row in results["load"]], whis=(0, 100)
        )
        axes[1].set_xticklabels(clients)
        axes[1].axhline(100, color="firebrick", linestyle="--")
        axes[1].set(yscale="log", xlabel="clients at once", ylabel="/ping, ms")
        for axis in axes:
            axis.grid(alpha=0.3)
