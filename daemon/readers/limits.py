"""How much a file may unfold to: a few kilobytes can declare more pixels than there is memory."""

from dataclasses import dataclass
from math import prod

from daemon.errors import FrameError


@dataclass(frozen=True)
class ReadLimits:
    """What is refused before its pixels are loaded.

    Attributes:
        frame_pixels: Largest height times width of an image.
        decompressed_bytes: Largest size in memory of what is loaded from a file at once.
    """

    frame_pixels: int = 16384**2
    decompressed_bytes: int = 8 * 2**30

    def check_frame(self, shape: tuple[int, ...], where: str) -> None:
        """Refuse an image of too many pixels.

        Args:
            shape: Of an image or a stack; the last two are height and width.
            where: The file, for the message.

        Raises:
            FrameError: It is too large.
        """
        if prod(shape[-2:]) > self.frame_pixels:
            height, width = shape[-2:]
            raise FrameError(
                f"{where}: {width} × {height} pixels are more than the {self.frame_pixels:,} that a frame may have; "
                "if it is a frame all the same, raise `limits.frame_pixels` in config.toml."
            )

    def check_bytes(self, n_bytes: int, where: str) -> None:
        """Refuse a file that would take too much memory.

        Args:
            n_bytes: What its arrays take once loaded.
            where: The file, for the message.

        Raises:
            FrameError: It is too large.
        """
        if n_bytes > self.decompressed_bytes:
            raise FrameError(
                f"{where}: its images would take {n_bytes / 1e9:,.1f} GB of memory, more than the "
                f"{self.decompressed_bytes / 1e9:,.1f} GB that a file may take; split it, or raise "
                "`limits.decompressed_bytes` in config.toml."
            )


DEFAULT_LIMITS = ReadLimits()
"""Those of `config.toml` where it is silent."""
