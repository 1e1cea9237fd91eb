"""The parameters of CycleGAN."""

from containers.common.parameters import Parameter

PARAMETERS = (
    Parameter("style_name", str, "one of the styles that GET / lists", default="required"),
    Parameter(
        "size",
        int,
        "longer side of the result in pixels, at most the photograph's own",
        16,
        2048,
        default="fits 800x600",
    ),
    Parameter(
        "strength",
        float,
        "how strong the style is; 0 gives the photograph itself",
        0,
        1,
        default="1",
    ),
)

# The columns of a CSV row after content, style and result.
BATCH_COLUMNS = ("size", "strength")
