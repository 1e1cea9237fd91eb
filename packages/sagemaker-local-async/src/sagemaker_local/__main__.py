"""`python -m sagemaker_local` is the command sagemaker-local."""

from __future__ import annotations

import sys

from sagemaker_local.command_line import main

if __name__ == "__main__":
    sys.exit(main())
