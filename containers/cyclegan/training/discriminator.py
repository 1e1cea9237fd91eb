"""The discriminator of CycleGAN: the 70x70 PatchGAN of Isola et al. (2017)."""

from torch import Tensor, nn

from ..generator import InstanceNorm

SLOPE = 0.2


class Discriminator(nn.Module):
    """C64-C128-C256-C512 and a convolution to one channel, with the names of the authors' program.

    filters: the number of channels of the first layer; the numbers above are those of 64.
    Each value of the result is about 70x70 pixels: near 1 if they look real, near 0 if not.
    """

    def __init__(self, filters: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, filters, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        for channels, stride in ((filters, 2), (2 * filters, 2), (4 * filters, 1)):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, stride=stride, padding=1),
                InstanceNorm(2 * channels, affine=False),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        layers.append(nn.Conv2d(8 * filters, 1, 4, stride=1, padding=1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) in -1..1 to (1, 1, H / 8 - 2, W / 8 - 2) in float32. H, W: at least 32."""
        y: Tensor = self.model(x)
        return y.float()
