"""The network: a frame in, for each cell of 2 × 2 pixels the probability, offset, uncertainty and class of a site.

An encoder and decoder over four scales whose finest is stride 2: sub-pixel offsets make a full-resolution decoder
unnecessary, and most of its cost with it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDE = 2
INPUT_MULTIPLE = 16
GEOMETRY_CHANNELS = 3
SMEAR_CHANNELS = 3
SMEAR_LEVEL = 1
"""Of the way up: coarse enough that the last level can count with it."""


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shape in and out: (batch, channels, height, width)."""
        return torch.relu(features + self.body(features))


def _step(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    padding = (kernel - stride) // 2 if stride > 1 else kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _relative_intensity(images: Tensor, frames: int) -> Tensor:
    """Undo the local normalisation of a series: shape (batch, frames, height, width), intensity over its mean, minus 1.

    How many atoms stand in a column is in the strength of its contrast. A network given normalised frames and their
    contrast would have to learn to multiply the two, which convolutions do badly.
    """
    return images[:, :frames] * torch.pow(10.0, images[:, frames : 2 * frames])


class SiteNetwork(nn.Module):
    """Finds sites.

    Args:
        channels: Of its input.
        classes: Kinds of site it tells apart.
        deepest_column: Atoms in the deepest column it counts, 0 for a network that does not count.
        hidden: Channels of the input that it does not get to see.
        learns_smear: Also learn by how much tilt smears columns, see `heads_and_smear`.
        contrasts: Planes of contrast in the input, see `daemon.recognition.series_input`: 3 of a series, 0 of a single
            frame, whose contrast nobody tells.
        widths: Channels at strides 2, 4, 8 and 16.
        depths: Residual blocks at strides 2, 4, 8 and 16 on the way down; the way up has one each.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        depths: Sequence[int],
        *,
        deepest_column: int = 0,
        hidden: Sequence[int] = (),
        learns_smear: bool = False,
        contrasts: int = 0,
    ) -> None:
        super().__init__()
        shown = torch.ones(1, channels, 1, 1)
        shown[:, list(hidden)] = 0.0
        self.channels = channels
        self.shown = nn.Buffer(shown, persistent=False) if hidden else None
        self.contrasts = contrasts
        self.stem = _step(channels + contrasts, widths[0], 6, 2)
        self.down = nn.ModuleList(_step(widths[i], widths[i + 1], 4, 2) for i in range(len(widths) - 1))
        self.encoders = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(depth))) for width, depth in zip(widths, depths, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(len(widths) - 1))
        self.decoders = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.smear = nn.Conv2d(widths[SMEAR_LEVEL], SMEAR_CHANNELS, 1) if learns_smear else None
        self.logits = nn.Conv2d(widths[0], 1 + classes + deepest_column, 1)
        self.geometry = nn.Conv2d(widths[0], GEOMETRY_CHANNELS, 1)
        # Most cells are empty: starting from that belief spares the first hundreds of steps.
        nn.init.zeros_(self.logits.weight)
        self.logits.bias = nn.Parameter(torch.tensor([3.0] + [0.0] * (classes + deepest_column)))

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, 1 + classes + deepest_column + 3, height / 2, width / 2).

        Height and width must be multiples of 16. The channels are those of `daemon.recognition.peaks.find_peaks`.
        """
        return self.heads_and_smear(images)[0]

    def heads_and_smear(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The heads, and how tilt smears columns: (batch, 3, height / 4, width / 4), see `trainer.training.smear_told`.

        Nobody asks a finished network for the latter, and its package lacks it. In training it teaches what tells tilt
        from thickness: both take contrast from a thick column, and only tilt does so in one direction.
        """
        smear = None
        images = images if self.shown is None else images * self.shown
        if self.contrasts:
            images = torch.cat([images, _relative_intensity(images, self.contrasts)], dim=1)
        features = self.stem(images)
        skips = []
        for level, encoder in enumerate(self.encoders):
            if level:
                features = self.down[level - 1](features)
            features = encoder(features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            upsampled = nn.functional.interpolate(self.up[level](features), scale_factor=2.0, mode="nearest")
            features = self.decoders[level](skips[level] + upsampled)
            if level == SMEAR_LEVEL and self.smear is not None:
                smear = self.smear(features)
        return torch.cat([self.logits(features), self.geometry(features)], dim=1), smear

    @property
    def receptive_field_pixels(self) -> int:
        """Half width in input pixels of what one output cell sees at most: every convolution and step, added up."""
        reach, spacing = 2, STRIDE
        for level, encoder in enumerate(self.encoders):
            if level:
                reach, spacing = reach + 2 * spacing, spacing * 2
            reach += 2 * len(encoder) * spacing  # type: ignore[arg-type]
            if level < len(self.up):
                reach += 2 * spacing
            # nearest-neighbour upsampling shifts by up to one coarse cell
            reach += spacing if level else 0
        return reach
