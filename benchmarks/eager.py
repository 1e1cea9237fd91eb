"""What the peers that cannot be installed do, written plainly: eager PyTorch, NCHW, float32, one scale."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from containers.nst.vgg import NAMES, original_weights

Watch = Callable[[int, Tensor], None]  # told each evaluation's number and picture


class PlainVGG(nn.Module):
    """VGG-19's convolutions."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        parameters, mean, scale = original_weights()
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        for name in NAMES:
            weight, bias = parameters[name]
            self.convolutions[name] = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            self.convolutions[name].load_state_dict({"weight": weight, "bias": bias})
        self.requires_grad_(False)

    def forward(self, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """RGB in 0..1 -> {name such as "4_2": features before their ReLU}; nothing deeper is computed."""
        x, features = (x - self.mean) * self.scale, {}
        for name in NAMES[: max(NAMES.index(layer) for layer in layers) + 1]:
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            features[name] = x = self.convolutions[name](x)
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
    """Gatys' algorithm from the photograph; content and style (1, 3, H, W) in 0..1; weights: of content and style."""
    network = PlainVGG().to(content.device)
    target = network(content, [content_layer])[content_layer]
    grams = {layer: gram(value) for layer, value in network(style, style_layers).items()}
    image = content.clone(memory_format=torch.contiguous_format).requires_grad_(
        True
    )  # as L-BFGS wants it
    walker, count = optimizer([image]), 0

    def closure() -> Tensor:
        nonlocal count
        with torch.no_grad():
            image.clamp_(0, 1)
        walker.zero_grad()
        features = network(image, [content_layer, *style_layers])
        loss = weights[0] * F.mse_loss(features[content_layer], target)
        for layer in style_layers:
            loss = loss + weights[1] * F.mse_loss(gram(features[layer]), grams[layer])
        loss.backward()
        count += 1
        watch(count, image.detach())
        return loss

    while count < evaluations:
        walker.step(closure)  # type: ignore[arg-type]
    return image.detach().clamp(0, 1)


def seed(content: Tensor, style: Tensor, watch: Watch) -> Tensor:
    """What this project's first version did, as its bot asked for it: Adam, 14 epochs of 10 steps, style squashed."""
    style = F.interpolate(style, content.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
    layers = ["1_1", "2_1", "3_1", "4_1", "5_1"]
    return transfer(
        content, style, "5_1", layers, (1e-5, 1e4), lambda p: torch.optim.Adam(p, 0.01), 140, watch
    )


def tutorial(content: Tensor, style: Tensor, watch: Watch) -> Tensor:
    """PyTorch's tutorial: the first five convolutions, L-BFGS, 300 evaluations, content 1 and style 1e6."""
    style = F.interpolate(style, content.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
    layers = ["1_1", "1_2", "2_1", "2_2", "3_1"]
    return transfer(content, style, "2_2", layers, (1.0, 1e6), torch.optim.LBFGS, 300, watch)


def generator(state: dict[str, Tensor]) -> nn.Module:
    """CycleGAN's ResNet-9 of stock modules with the weights of a checkpoint, official layout or vintagify's."""
    affine = "model.2.weight" in state

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            convolutions = [
                (
                    nn.ReflectionPad2d(1),
                    nn.Conv2d(256, 256, 3),
                    nn.InstanceNorm2d(256, affine=affine),
                )
                for _ in range(2)
            ]
            self.conv_block = nn.Sequential(*convolutions[0], nn.ReLU(True), *convolutions[1])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv_block(x)

    def normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
        return [
            convolution,
            nn.InstanceNorm2d(convolution.out_channels, affine=affine),
            nn.ReLU(True),
        ]

    network = nn.Sequential(
        nn.ReflectionPad2d(3),
        *normalised(nn.Conv2d(3, 64, 7)),
        *normalised(nn.Conv2d(64, 128, 3, 2, 1)),
        *normalised(nn.Conv2d(128, 256, 3, 2, 1)),
        *(Block() for _ in range(9)),
        *normalised(nn.ConvTranspose2d(256, 128, 3, 2, 1, 1)),
        *normalised(nn.ConvTranspose2d(128, 64, 3, 2, 1, 1)),
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
