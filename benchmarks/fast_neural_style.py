"""What pytorch/examples' fast_neural_style does, made of PyTorch's own modules.

Johnson et al. 2016 with instance normalization: 256 pixels, batches of 4, Adam with 1e-3, content
1e5 at relu2_2, style 1e10. Two things differ, as its own cannot be fetched everywhere: VGG-19
instead of VGG-16, and the photographs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from containers.nst.vgg import VGG19

CONTENT_LAYER = "relu2_2"
STYLE_LAYERS = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
CONTENT_WEIGHT = 1e5
STYLE_WEIGHT = 1e10
SIZE = 256
BATCH = 4


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReflectionPad2d(kernel // 2), nn.Conv2d(channels_in, channels_out, kernel, stride)
    )


def normalized(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        convolution(channels_in, channels_out, kernel, stride),
        nn.InstanceNorm2d(channels_out, affine=True),
        nn.ReLU(),
    )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            normalized(128, 128, 3),
            convolution(128, 128, 3),
            nn.InstanceNorm2d(128, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y


def transformer() -> nn.Module:
    """Return the network. It takes and gives (N, 3, H, W) in 0..255, sides multiples of 4."""
    return nn.Sequential(
        normalized(3, 32, 9),
        normalized(32, 64, 3, 2),
        normalized(64, 128, 3, 2),
        *(Block() for _ in range(5)),
        nn.Upsample(scale_factor=2),
        normalized(128, 64, 3),
        nn.Upsample(scale_factor=2),
        normalized(64, 32, 3),
        convolution(32, 3, 9),
    )


def grams(features: dict[str, Tensor]) -> list[Tensor]:
    """Return the Gram matrices (N, C, C), divided by C H W."""
    found = []
    for layer in STYLE_LAYERS:
        _, channels, height, width = features[layer].shape
        flat = features[layer].flatten(2)
        found.append(flat @ flat.transpose(1, 2) / (channels * height * width))
    return found


class FastNeuralStyle:
    """A training. crop: returns a crop (1, 3, 256, 256), RGB in 0..1, each time another one."""

    def __init__(self, style: Tensor, crop: Callable[[], Tensor], seed: int) -> None:
        torch.manual_seed(seed)
        self.network = transformer()
        self.vgg = VGG19()
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
        self.crop = crop
        self.layers = {CONTENT_LAYER, *STYLE_LAYERS}
        with torch.no_grad():
            self.targets = grams(self.vgg(style, self.layers))

    def step(self) -> None:
        photographs = torch.cat([self.crop() for _ in range(BATCH)])
        self.optimizer.zero_grad()
        pictures = self.network(photographs * 255) / 255
        with torch.no_grad():
            content = self.vgg(photographs, self.layers)[CONTENT_LAYER]
        features = self.vgg(pictures, self.layers)
        loss = CONTENT_WEIGHT * F.mse_loss(features[CONTENT_LAYER], content)
        for gram, target in zip(grams(features), self.targets, strict=True):
            loss = loss + STYLE_WEIGHT * F.mse_loss(gram, target.expand_as(gram))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def paint(self, photograph: Tensor) -> Tensor:
        """(1, 3, H, W) in 0..1 to the same; the sides are cut to multiples of 4."""
        height, width = photograph.shape[2:]
        cut = photograph[:, :, : height // 4 * 4, : width // 4 * 4]
        picture: Tensor = self.network(cut * 255) / 255
        return picture.clamp(0, 1)
