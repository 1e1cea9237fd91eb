"""What may be asked of the painters."""

from containers.common.parameters import Parameter

PARAMETERS = (
    Parameter("style_name", str, "one of the styles that GET / lists", default="required"),
    Parameter(
        "size",
        int,
        "longer side in pixels, at most the photograph's own",
        16,
        2048,
        default="fits 800x600",
    ),
    Parameter("strength", float, "of the painting over the photograph", 0, 1, default="1"),
)
BATCH_COLUMNS = ("size", "strength")
