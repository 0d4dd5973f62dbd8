"""Judges detections on real graphene, for which nobody knows the positions, by graphene's own geometry."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from daemon.frames import Calibration, CalibrationSource, Frame, make_frame_id, validate_pixels
from trainer.evaluation.matching import View
from trainer.evaluation.truth import Recogniser

BOND_ANGSTROM = 1.42
# Second neighbours stand at 2.46 Å, so that everything up to here is a bond, however noisy ...
LONGEST_BOND_ANGSTROM = 1.30 * BOND_ANGSTROM
# ... and anything closer is the same atom found twice.
SHORTEST_BOND_ANGSTROM = 0.75 * BOND_ANGSTROM

MASK_MARGIN_ANGSTROM = 6.0

POOR_SHARE = 0.7
GOOD_SHARE = 0.9


@dataclass(frozen=True)
class SheetGeometry:
    """What the atoms found in the clean part of an image look like.

    Attributes:
        atoms: How many stand in the clean part.
        clean_area_square_angstrom: The part that is judged.
        three_coordinated_share: Share of the atoms with exactly three neighbours, all at the distance of a bond; 0
            where no atom was found.
        bond_length_angstrom: Median distance of neighbours, NaN where there are none.
    """

    atoms: int
    clean_area_square_angstrom: float
    three_coordinated_share: float
    bond_length_angstrom: float

    @property
    def density_per_square_angstrom(self) -> float:
        """Atoms per Å² of the clean part, holes included; a sheet without holes has 0.382."""
        return self.atoms / self.clean_area_square_angstrom if self.clean_area_square_angstrom else float("nan")


@dataclass(frozen=True)
class RealImage:
    """The judgement of one real image.

    Attributes:
        file: Its name.
        geometry: Of the atoms found in it.
        warnings: What the recogniser warned of.
    """

    file: str
    geometry: SheetGeometry
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RealGraphene:
    """The judgement of all real images.

    Attributes:
        images: One by one.
        mean_share: Mean share of three-coordinated atoms.
        median_share: Median of the same.
        warned_among_poor: Share of the images with less than `POOR_SHARE` that carry a warning, NaN if there are none.
        warned_among_good: The same of those with more than `GOOD_SHARE`.
    """

    images: tuple[RealImage, ...]
    mean_share: float
    median_share: float
    warned_among_poor: float
    warned_among_good: float


def judge_real_graphene(recogniser: Recogniser, folder: Path) -> RealGraphene:
    """Let a recogniser see every image that `calibration.csv` in a folder lists.

    Args:
        recogniser: Of graphene.
        folder: Holds `calibration.csv` (file, pixel_size_angstrom), the images, and for each a mask `*_LABEL.png`
            that is white where contamination lies.
    """
    with (folder / "calibration.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = []
    for row in rows:
        path = folder / row["file"]
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_LABEL.png")).convert("L")) > 127
        images.append(_judge_image(recogniser, path, mask, float(row["pixel_size_angstrom"])))
    return summarise(images)


def summarise(images: Sequence[RealImage]) -> RealGraphene:
    """Pool the judgements of single images."""
    shares = np.array([image.geometry.three_coordinated_share for image in images])
    warned = np.array([bool(image.warnings) for image in images])
    return RealGraphene(
        images=tuple(images),
        mean_share=float(shares.mean()),
        median_share=float(np.median(shares)),
        warned_among_poor=_share(warned[shares < POOR_SHARE]),
        warned_among_good=_share(warned[shares > GOOD_SHARE]),
    )


def sheet_geometry(
    positions_px: NDArray[np.float64], contamination: NDArray[np.bool_], pixel_size_angstrom: float
) -> SheetGeometry:
    """Geometry of the atoms in the clean part of an image.

    The border and the surroundings of contamination are left out, where atoms lack neighbours for no fault of
    the recogniser; atoms found there still count as neighbours.

    Args:
        positions_px: Shape (atoms, 2), x and y in pixels.
        contamination: Shape (height, width).
        pixel_size_angstrom: Of the image.
    """
    clean = _clean_part(contamination, pixel_size_angstrom)
    height, width = clean.shape
    column, row = np.rint(positions_px).astype(int).T
    is_clean = clean[row.clip(0, height - 1), column.clip(0, width - 1)]

    tree = cKDTree(positions_px * pixel_size_angstrom)
    distances, _ = tree.query(tree.data[is_clean], k=np.arange(2, 6), distance_upper_bound=LONGEST_BOND_ANGSTROM)
    neighbours = np.isfinite(distances).sum(axis=1)
    three_coordinated = (neighbours == 3) & (distances[:, 0] > SHORTEST_BOND_ANGSTROM)
    lengths = distances[np.isfinite(distances)]
    return SheetGeometry(
        atoms=int(is_clean.sum()),
        clean_area_square_angstrom=float(clean.sum() * pixel_size_angstrom**2),
        three_coordinated_share=float(three_coordinated.mean()) if len(three_coordinated) else 0.0,
        bond_length_angstrom=float(np.median(lengths)) if len(lengths) else float("nan"),
    )


def _judge_image(
    recogniser: Recogniser, path: Path, contamination: NDArray[np.bool_], pixel_size_angstrom: float
) -> RealImage:
    pixels = validate_pixels(np.asarray(Image.open(path).convert("L")), path.name)
    frame = Frame(
        pixels,
        make_frame_id("real-graphene", path.stem, 0, pixels),
        path.stem,
        Calibration(pixel_size_angstrom, CalibrationSource.SIDECAR),
    )
    recognition = recogniser.recognise(frame)
    positions_px = np.stack([recognition.table.column(name).to_numpy() for name in ("x_px", "y_px")], axis=1)
    geometry = sheet_geometry(positions_px.astype(np.float64), contamination, pixel_size_angstrom)
    return RealImage(path.name, geometry, tuple(recognition.warnings))


def _clean_part(contamination: NDArray[np.bool_], pixel_size_angstrom: float) -> NDArray[np.bool_]:
    """Shape (height, width), pixels that are neither near contamination nor near the border."""
    height, width = contamination.shape
    if contamination.any():
        distance_angstrom = distance_transform_edt(~contamination) * pixel_size_angstrom
    else:
        distance_angstrom = np.full(contamination.shape, np.inf)
    rows, columns = np.indices(contamination.shape)
    centres_angstrom = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float64) * pixel_size_angstrom
    in_view = View.of_frame(contamination.shape, pixel_size_angstrom).holds(centres_angstrom)
    return np.asarray((distance_angstrom > MASK_MARGIN_ANGSTROM) & in_view.reshape(height, width))


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")
