"""The reference group's architecture, for the side-by-side: a U-Net at full resolution.

J. Madsen et al., Adv. Theory Simul. 1, 1800037 (2018): three levels and a bridge of 32, 64, 128 and 256 channels, a
residual block of three convolutions in each, bilinear upsampling, and skips that add instead of concatenating.
"""

from torch import Tensor, nn

CHANNELS = (32, 64, 128, 256)
INPUT_MULTIPLE = 2 ** (len(CHANNELS) - 1)
"""Height and width of the input must be multiples of this."""


class ReferenceUNet(nn.Module):
    """Heat map of atoms, one value an input pixel."""

    def __init__(self, input_frames: int = 1, classes: int = 1) -> None:
        super().__init__()
        inputs = (input_frames, *CHANNELS[:-2])
        self.down = nn.ModuleList(_Level(i, o) for i, o in zip(inputs, CHANNELS[:-1], strict=True))
        self.bridge = _Level(CHANNELS[-2], CHANNELS[-1])
        rising = list(zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.squeeze = nn.ModuleList(_convolution(i, o, kernel_size=1) for i, o in rising)
        self.up = nn.ModuleList(_Level(o, o) for _, o in rising)
        self.score = nn.Conv2d(CHANNELS[0], classes, kernel_size=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, shape (batch, frames, height, width), to logits, shape (batch, classes, height, width)."""
        skips = []
        x = frames
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bridge(x)
        for squeeze, level in zip(self.squeeze, self.up, strict=True):
            # A convolution over single pixels commutes with interpolation, and is cheaper before it.
            x = nn.functional.interpolate(squeeze(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = level(x + skips.pop())
        logits: Tensor = self.score(x)
        return logits


class _Level(nn.Module):
    """A convolution, three more around which the input is added, and a last one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs)
        self.residual = nn.Sequential(*(_convolution(outputs, outputs) for _ in range(3)))
        self.last = _convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result: Tensor = self.last(x + self.residual(x))
        return result


def _convolution(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding="same"),
        nn.PReLU(outputs, init=0.01),
        nn.BatchNorm2d(outputs),
    )
