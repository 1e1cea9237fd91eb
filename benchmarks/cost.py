"""Dollars for a picture: on GPUs an estimate out of FLOPs, on a serverless CPU out of the seconds measured."""

import statistics

from benchmarks import cyclegan, nst
from benchmarks.measure import found, table

PRICES_OF = "October 2025, us-east-1, on demand; check them before relying on the last column"
# Dollars an hour, TFLOP/s of the tensor cores in half precision as the maker tells them (dense, float32 sums)
GPUS = {
    "ml.g4dn.xlarge (T4)": (0.74, 65.0),
    "ml.g5.xlarge (A10G)": (1.41, 70.0),
    "ml.g6.xlarge (L4)": (1.13, 121.0),
}
SHARE = 0.3  # of the maker's figure that convolutions are taken to reach
SERVERLESS = (
    0.00012  # dollars a second, SageMaker serverless inference with 6 GB, the most there is
)
IMAGE_GB = 2.65  # compressed
SIZE = (800, 600)


def report() -> str:
    pixels = SIZE[0] * SIZE[1]
    work = {"NST": nst.schedule_gflop(*SIZE), "CycleGAN": cyclegan.GFLOP * pixels}
    rows = []
    for gpu, (dollars, tflops) in GPUS.items():
        for name, gflop in work.items():
            seconds = gflop / (tflops * 1000 * SHARE)
            rows.append(
                [gpu, name, f"{seconds:.2f}", f"{1000 * dollars * seconds / 3600:.3f}", "estimate"]
            )
    for size in (found("cyclegan", "cpu") or {"sizes": []})["sizes"]:
        if (size["width"], size["height"]) == SIZE:
            measured = cyclegan.all_seconds(size["turns"]["stylebot"])
            seconds = statistics.median(measured)
            cost = f"{1000 * SERVERLESS * seconds:.3f}"
            rows.append(
                [
                    "serverless CPU, 6 GB",
                    "CycleGAN",
                    f"{seconds:.2f}",
                    cost,
                    "seconds as on this machine",
                ]
            )
    head = ["where", "", "seconds", "dollars for 1000 pictures", ""]
    return (
        f"{SIZE[0]}x{SIZE[1]}, while the endpoint is busy all the time; prices of {PRICES_OF}. No such GPU "
        "was measured: "
        f"their seconds are the work (NST {work['NST'] / 1000:,.1f} TFLOP, CycleGAN {work['CycleGAN'] / 1000:.2f}) "
        f"at {SHARE:.0%} of the maker's half precision rate.\n\n"
        + table(head, rows)
        + f"\nAn image of {IMAGE_GB} GB compressed is pulled in {IMAGE_GB * 8:.0f} s at 1 Gbit/s; "
        "the layer of PyTorch, nine tenths of it, is the same for both.\n"
    )
