"""What a generator starts its training with: nothing, or another generator's checkpoint."""

from pathlib import Path

import torch
from torch import nn

from ..generator import (
    CheckpointError,
    Generator,
    InstanceNorm,
    Layout,
    ResnetBlock,
    load_generator,
)

ENLARGING = ("model.19.weight", "model.22.weight")


def fresh_generator(layout: Layout, random: torch.Generator) -> Generator:
    """Return a generator with random weights.

    Convolutions have the variance of He et al. (2015). If the layout is affine, each residual block
    starts as the identity, so that the first pictures are photographs already.
    """
    generator = Generator(layout)
    set_random_weights(generator, random)
    if layout.affine:
        with torch.no_grad():
            for block in generator.modules():
                if isinstance(block, ResnetBlock):
                    last = block.conv_block[-1]
                    assert isinstance(last, InstanceNorm)
                    last.weight.zero_()
    return generator


def set_random_weights(
    network: nn.Module, random: torch.Generator, deviation: float | None = None
) -> None:
    """Give all convolutions of a network on the CPU normal weights, and biases of 0.

    deviation: their standard deviation; None for that of He et al. (2015).
    """
    with torch.no_grad():
        for module in network.modules():
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                continue
            inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            module.weight.normal_(0, deviation or (2 / inputs) ** 0.5, generator=random)
            if module.bias is not None:
                module.bias.zero_()


def generator_from(path: Path, layout: Layout) -> Generator:
    """Return a generator in `layout` with the weights of a checkpoint, whatever its own layout.

    A transposed convolution is taken over as a resize convolution and the other way round, and
    without affine normalization its weights are left out: the first pictures differ a little.
    Raises CheckpointError if it has another number of filters, or is no checkpoint.
    """
    source = load_generator(path)
    if source.layout.filters != layout.filters:
        raise CheckpointError(
            f"{path} has {source.layout.filters} filters, and {layout.filters} are wanted. "
            f"Train with --filters {source.layout.filters}, or start from another checkpoint."
        )
    tensors = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    if source.layout.resize != layout.resize:
        for name in ENLARGING:
            tensors[name] = tensors[name].transpose(0, 1).flip(2, 3)

    generator = Generator(layout)
    found = generator.state_dict()
    for name in found:
        if name in tensors:
            found[name] = tensors[name]
    generator.load_state_dict(found)
    return generator
