"""The cost of a picture: from FLOPs for GPUs, from measured seconds for serverless CPUs."""

import statistics

from benchmarks import cyclegan, nst
from benchmarks.measure import found, table

PRICES_OF = "October 2025, us-east-1, on demand; check them before relying on the last column"
# Dollars an hour, and TFLOP/s of the tensor cores in half precision by the maker's figures (dense,
# float32 sums).
GPUS = {
    "ml.g4dn.xlarge (T4)": (0.74, 65.0),
    "ml.g5.xlarge (A10G)": (1.41, 70.0),
    "ml.g6.xlarge (L4)": (1.13, 121.0),
}
# The share of the maker's figure that convolutions are assumed to reach.
SHARE = 0.3
# Dollars a second of SageMaker's serverless inference with 6 GB, the largest size.
SERVERLESS = 0.00012
# Compressed.
IMAGE_GB = 2.65
SIZE = (800, 600)


def report() -> str:
    """Return the section of RESULTS.md."""
    width, height = SIZE
    work = {"NST": nst.schedule_gflop(*SIZE), "CycleGAN": cyclegan.GFLOP * width * height}
    rows = []
    for gpu, (dollars, tflops) in GPUS.items():
        for name, gflop in work.items():
            seconds = gflop / (tflops * 1000 * SHARE)
            rows.append(
                [gpu, name, f"{seconds:.2f}", f"{1000 * dollars * seconds / 3600:.3f}", "estimate"]
            )
    measured_results = found("cyclegan", "cpu")
    for size in measured_results["sizes"] if measured_results else []:
        if (size["width"], size["height"]) == SIZE:
            measured = cyclegan.all_seconds(size["turns"]["stylebot"])
            seconds = statistics.median(measured)
            cost = f"{1000 * SERVERLESS * seconds:.3f}"
            row = ["serverless CPU, 6 GB", "CycleGAN", f"{seconds:.2f}", cost]
            rows.append([*row, "seconds as on this machine"])
    head = ["where", "", "seconds", "dollars for 1000 pictures", ""]
    return (
        f"{width}x{height}, while the endpoint is busy all the time; prices of {PRICES_OF}. "
        "No such GPU was measured: their seconds are the work "
        f"(NST {work['NST'] / 1000:,.1f} TFLOP, CycleGAN {work['CycleGAN'] / 1000:.2f}) "
        f"at {SHARE:.0%} of the maker's half precision rate.\n\n"
        + table(head, rows)
        + f"\nAn image of {IMAGE_GB} GB compressed is pulled in {IMAGE_GB * 8:.0f} s at 1 Gbit/s; "
        "the layer of PyTorch, nine tenths of it, is the same for both.\n"
    )
