"""local.stack or local.demo with models that need no PyTorch: `python -m tests.fakes.stack (stack|demo OUT) ...`."""

import sys
from pathlib import Path

from local import demo, stack
from tests.fakes.servers import GUNICORN_CONFIG


def model_command(name: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        str(GUNICORN_CONFIG),
        f"tests.fakes.model:{name}()",
    ]


if __name__ == "__main__":
    stack.model_command = model_command
    which = sys.argv.pop(1)
    if which == "demo":
        demo.OUT = Path(sys.argv.pop(1))
    sys.exit(stack.main() if which == "stack" else demo.main())
