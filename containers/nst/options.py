"""The options of neural style transfer, and the amount of work that they mean."""

from dataclasses import dataclass

# The smallest side that VGG-19 takes: relu5_1 halves an image four times.
MIN_SIDE = 16
# The longer side of the coarsest scale is at least this.
COARSEST_SIDE = 64
DEFAULT_BOX = (800, 600)
# At DEFAULT_BOX and below; at larger sizes as many as are the same work. That is some ten minutes
# of a small GPU. The authors of the method make 500 to 1000 steps, and the default is 60.
MAX_STEPS = 10_000
MAX_STYLES = 8

MULTISCALE = "multiscale"
GATYS_2015 = "gatys2015"


@dataclass(frozen=True)
class Options:
    """What a request may ask for.

    size: longer side of the result in pixels, 16..4096. None: fits 800x600; on a CPU what takes two
        minutes.
    strength: 0 (close to the photograph) .. 1 (style above all); 0.5 is the tuned balance.
    preserve_color: use the style's strokes with the photograph's colors.
    style_weights: one number for each style. None: all alike.
    time_budget: seconds after which the best picture so far is returned. Without one, the number of
        evaluations is limited.
    seed: of the noise in the initial image.
    max_epochs, n_steps_in_epoch: their product is the number of evaluations at full size.
        max_epochs None: 6, for gatys2015 14.
    patience: stop after so many epochs without a lower loss. None: never.
    lr: Adam's learning rate; used only by gatys2015.
    content_weight, style_weight: gatys2015 multiplies the losses by them. multiscale uses only how
        far their ratio is from that of the defaults, so the defaults mean the tuned balance.
    """

    algorithm: str = MULTISCALE
    size: int | None = None
    strength: float = 0.5
    preserve_color: bool = False
    style_weights: list[float] | None = None
    time_budget: float | None = None
    seed: int = 0
    max_epochs: int | None = None
    n_steps_in_epoch: int = 10
    patience: int | None = None
    lr: float = 0.01
    content_weight: float = 1e-5
    style_weight: float = 1e4

    def epochs(self) -> int:
        if self.max_epochs is not None:
            return self.max_epochs
        if self.algorithm == GATYS_2015:
            return 14
        return 6

    def evaluations(self) -> int:
        """Return the number of evaluations of the loss at full size."""
        return self.epochs() * self.n_steps_in_epoch


def check(options: Options, style_count: int, mask_count: int = 0) -> None:
    """Raise ValueError, with a sentence for the user, for what is refused with any photograph."""
    if style_count == 0:
        raise ValueError("Neural style transfer needs at least one style.")
    if style_count > MAX_STYLES:
        raise ValueError(f"At most {MAX_STYLES} styles are taken, not {style_count}.")
    weights = options.style_weights
    if weights is not None and len(weights) != style_count:
        raise ValueError(
            f"style_weights has {len(weights)} numbers for {style_count} styles; give one for each."
        )
    if mask_count not in (0, style_count):
        raise ValueError(
            f"There are {mask_count} masks for {style_count} styles; give one for each style, in "
            "the same order."
        )
    if mask_count and options.algorithm == GATYS_2015:
        raise ValueError(f"{GATYS_2015} knows no masks. Leave algorithm at its default.")
    check_steps(options, DEFAULT_BOX)


def check_steps(options: Options, size: tuple[int, int]) -> None:
    """Raise ValueError, with a sentence for the user, for too much work. size: of the result.

    A time budget allows any number of steps: it ends them.
    """
    steps = options.evaluations()
    most = max_steps(size)
    if options.time_budget is None and steps > most:
        width, height = size
        raise ValueError(
            f"max_epochs x n_steps_in_epoch is {steps:,}; at {width}x{height} at most {most:,} "
            "steps are made. Ask for fewer, for a smaller size, or for a time_budget, "
            "which ends the work in time."
        )


def max_steps(size: tuple[int, int]) -> int:
    """Return how many evaluations at full size a request without a time budget may ask for."""
    width, height = size
    default_width, default_height = DEFAULT_BOX
    share = default_width * default_height / (width * height)
    return int(MAX_STEPS * min(1.0, share))


@dataclass(frozen=True)
class Scale:
    """One scale of the multiscale algorithm. share: of the full size."""

    share: float
    evaluations: int

    def work(self) -> float:
        """Return the cost of this scale in evaluations at full size."""
        return self.evaluations * self.share**2


def schedule(size: tuple[int, int], options: Options) -> list[Scale]:
    """Return the scales, coarse to fine, each twice the size of the one before.

    Coarse scales are cheap and make what is seen from a distance; they get as many evaluations as
    the last.
    """
    shares = [1.0]
    while True:
        share = shares[0] / 2
        if max(size) * share < COARSEST_SIDE or min(size) * share < MIN_SIDE:
            break
        shares.insert(0, share)
    return [Scale(share, options.evaluations()) for share in shares]


def total_work(options: Options, size: tuple[int, int] = DEFAULT_BOX) -> float:
    """Return the cost of a picture of this size, in evaluations at full size."""
    if options.algorithm == GATYS_2015:
        return options.evaluations()
    return sum(scale.work() for scale in schedule(size, options))
