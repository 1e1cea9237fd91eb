"""A trainer without PyTorch that keeps to SageMaker's contract: `python -m tests.fakes.trainer`.

Its hyperparameters: `steps` of `step_seconds` each; `fail`, a reason to fail with after the first
step; `exit`, an exit code; `deaf`, to ignore SIGTERM. The model is a line of JSON that tells where
the training began and what it has seen.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

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
    (root / "model" / f"style_{given.get('name', 'it')}.pth").write_text(json.dumps(told))
    return 0


def save(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def job_name() -> str:
    return os.environ["TRAINING_JOB_NAME"]


if __name__ == "__main__":
    sys.exit(main())
