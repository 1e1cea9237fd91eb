"""A trainer without PyTorch that keeps to SageMaker's contract: `python -m tests.fakes.trainer`.

Its hyperparameters: `steps` of `step_seconds` each; `fail`, a reason to fail with after the first
step; `exit`, an exit code; `deaf`, to ignore SIGTERM. The model is a line of JSON that tells where
the training began and what it has seen. It goes to `models_url` too, and the progress to
`progress_url`, if they are given.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import boto3

STOPPED = 143


def main() -> int:
    root = Path(os.environ["ML_ROOT"])
    given = json.loads((root / "input" / "config" / "hyperparameters.json").read_text())
    checkpoint = root / "checkpoints" / ".training-it" / "step"
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))

    first = 0
    if checkpoint.exists():
        first = int(checkpoint.read_text())
    print(f"starting at step {first}", flush=True)
    for step in range(first + 1, int(given.get("steps", "1")) + 1):
        time.sleep(float(given.get("step_seconds", "0")))
        save(checkpoint, str(step))
        report(given, step)
        if given.get("fail"):
            (root / "output" / "failure").write_text(given["fail"])
            return 1
        if stopping and not given.get("deaf"):
            print("saved and stopped", flush=True)
            return STOPPED
    if given.get("exit"):
        print("the last words")
        return int(given["exit"])

    seen = sorted(str(path.relative_to(root)) for path in (root / "input").rglob("*.*"))
    told = {"began_at": first, "seen": seen, "niceness": os.nice(0), "job": job_name()}
    file_name = f"style_{given.get('name', 'it')}.pth"
    (root / "model" / file_name).write_text(json.dumps(told))
    if "models_url" in given:
        put(f"{given['models_url'].rstrip('/')}/{file_name}", told)
    return 0


def report(given: dict[str, str], step: int) -> None:
    if "progress_url" not in given:
        return
    steps = int(given.get("steps", "1"))
    left = (steps - step) * float(given.get("step_seconds", "0"))
    put(given["progress_url"], {"step": step, "steps": steps, "loss": 0.5, "seconds_left": left})


def put(url: str, content: object) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(content).encode())


def save(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def job_name() -> str:
    return os.environ["TRAINING_JOB_NAME"]


if __name__ == "__main__":
    sys.exit(main())
