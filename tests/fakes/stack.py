"""local.stack and local.demo with models and a trainer that need no PyTorch.

python -m tests.fakes.stack stack [OPTIONS OF local.stack]
python -m tests.fakes.stack demo OUT [OPTIONS OF local.demo]
"""

import sys
from pathlib import Path

from local import demo, stack
from tests.fakes.servers import GUNICORN_CONFIG

TRAINER = (sys.executable, "-m", "tests.fakes.trainer")


def model_command(name: str) -> list[str]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONFIG)]
    return [*gunicorn, f"tests.fakes.model:{name}()"]


def main() -> int:
    if sys.argv.pop(1) == "stack":
        return stack.main(model_command, TRAINER)
    demo.OUT = Path(sys.argv.pop(1))
    return demo.main(model_command)


if __name__ == "__main__":
    sys.exit(main())
