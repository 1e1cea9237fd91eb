"""What may be asked of neural style transfer. Their meaning is told in nst.Options."""

from containers.common.parameters import Parameter

PARAMETERS = (
    Parameter(
        "algorithm", str, "how to paint", choices=("multiscale", "gatys2015"), default="multiscale"
    ),
    Parameter(
        "size",
        int,
        "longer side in pixels",
        16,
        2048,
        default="fits 800x600, on a CPU what takes 2 minutes",
    ),
    Parameter("strength", float, "of the style over the photograph", 0, 1, default="0.5"),
    Parameter("preserve_color", bool, "keep the photograph's colours", default="false"),
    Parameter("style_weights", list, "how much each style counts", 0, 1000, default="all alike"),
    Parameter(
        "time_budget",
        float,
        "seconds after which the best picture so far is taken",
        1,
        3600,
        default="none",
    ),
    Parameter("seed", int, "of the first picture's grain", 0, 2**31 - 1, default="0"),
    Parameter("max_epochs", int, "epochs at full size", 1, 1000, default="6; gatys2015: 14"),
    Parameter("n_steps_in_epoch", int, "evaluations in an epoch", 1, 1000, default="10"),
    Parameter("lr", float, "Adam's learning rate, for gatys2015", 1e-5, 1, default="0.01"),
    Parameter(
        "patience",
        int,
        "epochs without a better loss before it ends",
        0,
        1000,
        default="null",
        nullable=True,
    ),
    Parameter("content_weight", float, "of the content loss", 0, 1e6, default="1e-5"),
    Parameter("style_weight", float, "of the style loss", 0, 1e12, default="1e4"),
)
# After content, style and result, in the order of the batches that stylebot's first version took
BATCH_COLUMNS = (
    "max_epochs",
    "n_steps_in_epoch",
    "lr",
    "patience",
    "content_weight",
    "style_weight",
)
