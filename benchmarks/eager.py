"""Peers that cannot be installed, written plainly: eager PyTorch, NCHW, float32, one scale."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from containers.nst.vgg import NAMES, original_weights

# Called with each evaluation's number and picture
Watch = Callable[[int, Tensor], None]


class PlainVGG(nn.Module):
    """VGG-19's convolutions."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = original_weights()
        self.register_buffer("mean", weights.mean.view(1, 3, 1, 1))
        self.register_buffer("scale", weights.scale.view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        for name in NAMES:
            weight, bias = weights.convolutions[name]
            self.convolutions[name] = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            self.convolutions[name].load_state_dict({"weight": weight, "bias": bias})
        self.requires_grad_(False)

    def forward(self, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """Return {layer such as "4_2": its features before their ReLU} of RGB in 0..1."""
        x = (x - self.mean) * self.scale
        features = {}
        deepest = max(NAMES.index(layer) for layer in layers)
        for name in NAMES[: deepest + 1]:
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = self.convolutions[name](x)
            features[name] = x
            x = F.relu(x)
        return {layer: features[layer] for layer in layers}


def gram(features: Tensor) -> Tensor:
    """Gram matrix over C H W."""
    flat = features.flatten(2)[0]
    return flat @ flat.t() / features.numel()


def transfer(
    content: Tensor,
    style: Tensor,
    content_layer: str,
    style_layers: list[str],
    weights: tuple[float, float],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    evaluations: int,
    watch: Watch,
) -> Tensor:
    """Run Gatys' algorithm, starting at the photograph.

    content, style: (1, 3, H, W) in 0..1. weights: of the content and the style loss.
    """
    network = PlainVGG().to(content.device)
    target = network(content, [content_layer])[content_layer]
    grams = {layer: gram(value) for layer, value in network(style, style_layers).items()}
    # L-BFGS needs a contiguous image
    image = content.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    minimizer = optimizer([image])
    count = 0

    def closure() -> Tensor:
        nonlocal count
        with torch.no_grad():
            image.clamp_(0, 1)
        minimizer.zero_grad()
        features = network(image, [content_layer, *style_layers])
        loss = weights[0] * F.mse_loss(features[content_layer], target)
        for layer in style_layers:
            loss = loss + weights[1] * F.mse_loss(gram(features[layer]), grams[layer])
        loss.backward()  # type: ignore[no-untyped-call]
        count += 1
        watch(count, image.detach())
        return loss

    while count < evaluations:
        minimizer.step(closure)  # type: ignore[arg-type]
    return image.detach().clamp(0, 1)


def seed(content: Tensor, style: Tensor, watch: Watch) -> Tensor:
    """Do what this project's first version did for its bot: Adam, 14 epochs of 10 steps.

    The style is squeezed to the shape of the photograph.
    """
    style = F.interpolate(style, content.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
    layers = ["1_1", "2_1", "3_1", "4_1", "5_1"]

    def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, 0.01)

    return transfer(content, style, "5_1", layers, (1e-5, 1e4), adam, 140, watch)


def tutorial(content: Tensor, style: Tensor, watch: Watch) -> Tensor:
    """Do as PyTorch's tutorial: the first five convolutions, L-BFGS, weights of 1 and 1e6."""
    style = F.interpolate(style, content.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
    layers = ["1_1", "1_2", "2_1", "2_2", "3_1"]
    return transfer(content, style, "2_2", layers, (1.0, 1e6), torch.optim.LBFGS, 300, watch)


def generator(state: dict[str, Tensor]) -> nn.Module:
    """Return CycleGAN's ResNet-9, made of PyTorch's own modules, with a checkpoint's weights.

    state: in the official layout or vintagify's.
    """
    affine = "model.2.weight" in state

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_block = nn.Sequential(
                nn.ReflectionPad2d(1),
                nn.Conv2d(256, 256, 3),
                nn.InstanceNorm2d(256, affine=affine),
                nn.ReLU(True),
                nn.ReflectionPad2d(1),
                nn.Conv2d(256, 256, 3),
                nn.InstanceNorm2d(256, affine=affine),
            )

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv_block(x)
            return x + y

    def normalized(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
        norm = nn.InstanceNorm2d(convolution.out_channels, affine=affine)
        return [convolution, norm, nn.ReLU(True)]

    network = nn.Sequential(
        nn.ReflectionPad2d(3),
        *normalized(nn.Conv2d(3, 64, 7)),
        *normalized(nn.Conv2d(64, 128, 3, 2, 1)),
        *normalized(nn.Conv2d(128, 256, 3, 2, 1)),
        *(Block() for _ in range(9)),
        *normalized(nn.ConvTranspose2d(256, 128, 3, 2, 1, 1)),
        *normalized(nn.ConvTranspose2d(128, 64, 3, 2, 1, 1)),
        nn.ReflectionPad2d(3),
        nn.Conv2d(64, 3, 7),
        nn.Tanh(),
    )
    wanted = network.state_dict()
    renamed = {
        name.removeprefix("model.").replace(".block.", ".conv_block."): value
        for name, value in state.items()
    }
    network.load_state_dict({name: renamed[name] for name in wanted})
    return network.eval()
