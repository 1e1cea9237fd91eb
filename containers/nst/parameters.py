"""The parameters of neural style transfer. nst/options.py explains them further."""

from containers.common.parameters import Parameter

PARAMETERS = (
    Parameter(
        "algorithm",
        str,
        "the method; gatys2015 is that of stylebot's first version",
        choices=("multiscale", "gatys2015"),
        default="multiscale",
    ),
    Parameter(
        "size",
        int,
        "longer side of the result in pixels",
        16,
        4096,
        default="fits 800x600; on a CPU what takes two minutes",
    ),
    Parameter(
        "strength", float, "how strong the style is; 0.5 is the tuned balance", 0, 1, default="0.5"
    ),
    Parameter("preserve_color", bool, "keep the photograph's colors", default="false"),
    Parameter("style_weights", list, "how much each style counts", 0, 1000, default="all alike"),
    Parameter(
        "time_budget",
        float,
        "seconds after which the best picture so far is taken",
        1,
        3600,
        default="none",
    ),
    Parameter("seed", int, "seed of the noise in the initial image", 0, 2**31 - 1, default="0"),
    Parameter("max_epochs", int, "epochs at full size", 1, 1000, default="6; gatys2015: 14"),
    Parameter(
        "n_steps_in_epoch", int, "evaluations of the loss in an epoch", 1, 1000, default="10"
    ),
    Parameter("lr", float, "Adam's learning rate; used only by gatys2015", 1e-5, 1, default="0.01"),
    Parameter(
        "patience",
        int,
        "epochs without a lower loss after which it stops; null: never",
        0,
        1000,
        default="null",
        nullable=True,
    ),
    Parameter("content_weight", float, "weight of the content loss", 0, 1e6, default="1e-5"),
    Parameter("style_weight", float, "weight of the style loss", 0, 1e12, default="1e4"),
)

# The columns of a CSV row after content, style and result, in the order of stylebot's first
# version.
BATCH_COLUMNS = (
    "max_epochs",
    "n_steps_in_epoch",
    "lr",
    "patience",
    "content_weight",
    "style_weight",
)
