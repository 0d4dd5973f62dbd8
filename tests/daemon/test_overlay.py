"""The overlay shows each atom where it is, and says what the operator needs to judge it."""

import itertools
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.atoms import atom_table
from daemon.frames import Acquisition, Calibration, CalibrationSource, FocalSeries, Frame
from daemon.publish.overlay import draw_overlay, stretch_contrast
from daemon.publish.palette import OKABE_ITO, class_colours, height_colours, probability_colours
from daemon.publish.scale_bar import scale_bar
from daemon.recognition.recogniser import Recognition


def recognition(
    pixels: NDArray[Any],
    positions_px: Any = (),
    *,
    pixel_size_angstrom: float = 0.12,
    source: CalibrationSource = CalibrationSource.METADATA,
    species: list[str | None] | None = None,
    kind: str | list[str] = "atom",
    n_atoms: list[int | None] | None = None,
    probability: Any = None,
    warnings: tuple[str, ...] = (),
    name: str = "frame-0001",
) -> Recognition:
    positions = np.asarray(positions_px, np.float64).reshape(-1, 2)
    count = len(positions)
    probability = np.full(count, 0.97) if probability is None else np.asarray(probability)
    table = atom_table(positions, pixel_size_angstrom, kind, probability, np.full(count, 0.1), species, n_atoms=n_atoms)
    return Recognition(
        frame=Frame(pixels, "camera/-/1/0123456789abcdef", name),
        calibration=Calibration(pixel_size_angstrom, source),
        table=table,
        warnings=list(warnings),
        latency_ms={"prepare": 4.0, "infer": 40.0, "decode": 8.0},
        model="graphene",
        model_sha256="0" * 64,
        backend="openvino CPU bf16",
    )


def noise(height: int, width: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return np.random.default_rng(0).normal(500, 50, (height, width)).astype(dtype)


def flat(height: int, width: int) -> NDArray[Any]:
    return np.full((height, width), 100, np.uint16)


def coloured(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an image is not grey."""
    return np.ptp(image.astype(int), axis=2) > 40


def ring_centre(image: NDArray[np.uint8], near: tuple[float, float], reach: int) -> tuple[float, float]:
    """Centre of gravity of the colour around a place, x and y."""
    left, top = round(near[0]) - reach, round(near[1]) - reach
    patch = image[top : top + 2 * reach + 1, left : left + 2 * reach + 1].astype(float)
    weight = np.ptp(patch, axis=2)
    rows, columns = np.indices(weight.shape)
    return left + (columns * weight).sum() / weight.sum(), top + (rows * weight).sum() / weight.sum()


@pytest.mark.parametrize(("side", "zoom"), [(256, 4), (512, 2), (1024, 1), (4096, 1)])
def test_rings_are_where_the_atoms_are(side: int, zoom: int) -> None:
    positions = [(40.0, 40.0), (100.25, 60.5), (200.75, 150.4), (side - 41.0, side - 41.0)]
    image = np.asarray(draw_overlay(recognition(flat(side, side), positions, pixel_size_angstrom=0.1)))
    for x, y in positions:
        expected = ((x + 0.5) * zoom - 0.5, (y + 0.5) * zoom - 0.5)
        assert ring_centre(image, expected, reach=20 * zoom) == pytest.approx(expected, abs=0.15)


def test_the_frame_stays_visible_inside_rings_and_nothing_else_covers_it() -> None:
    pixels = noise(1024, 1024)
    bare = np.asarray(draw_overlay(recognition(pixels)))[:1024]
    ringed = np.asarray(draw_overlay(recognition(pixels, [(500, 500)], warnings=("Something is odd.",))))[:1024]
    changed = (bare != ringed).any(axis=2)
    distance = np.hypot(*(np.indices(changed.shape) - 500))
    assert changed.sum() > 20
    assert distance[changed].max() < 12, "only the ring is drawn on the frame"
    assert distance[changed].min() > 5, "the atom itself is not covered"


@pytest.mark.parametrize("pixel_size_angstrom", [0.3, 0.45, 0.55, 0.6])
def test_neighbours_in_coarse_graphene_have_rings_of_their_own(pixel_size_angstrom: float) -> None:
    bond_px = 1.42 / pixel_size_angstrom
    across, along = np.sqrt(3) * bond_px, 3 * bond_px
    cell = np.array([(0, 0), (across / 2, bond_px / 2), (across / 2, 1.5 * bond_px), (0, 2 * bond_px)])
    origins = [(20 + i * across, 20 + j * along) for i in range(8) for j in range(5)]
    positions = np.concatenate([cell + origin for origin in origins])
    picture = draw_overlay(recognition(flat(256, 256), positions, pixel_size_angstrom=pixel_size_angstrom))
    image = np.asarray(picture)[: picture.width]
    insides = cv2.connectedComponents((~coloured(image)).astype(np.uint8), connectivity=4)[0] - 2  # less rings, outside
    assert insides >= len(positions), "each ring is closed, and its inside is seen"
    rings = cv2.connectedComponents(coloured(image).astype(np.uint8), connectivity=4)[0] - 1
    assert rings == len(positions), "no two rings touch"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.float32, np.float64])
def test_contrast_of_any_pixel_type(dtype: Any) -> None:
    grey = stretch_contrast((np.random.default_rng(0).random((256, 256)) * 120).astype(dtype))
    assert grey.dtype == np.uint8
    assert grey.min() == 0
    assert grey.max() > 200
    assert 90 < grey.mean() < 130


def test_one_hot_pixel_does_not_blacken_the_frame() -> None:
    pixels = noise(512, 512, np.uint16)
    healthy = stretch_contrast(pixels)
    pixels[100, 100] = 65535
    assert np.abs(stretch_contrast(pixels).astype(int) - healthy).mean() < 1


def test_a_constant_frame_is_grey_and_a_few_counts_are_seen() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    assert 50 < stretch_contrast(pixels).mean() < 200
    pixels[30, 30] = 1
    assert stretch_contrast(pixels)[30, 30] > stretch_contrast(pixels)[0, 0]


def test_counts_on_a_large_offset_keep_their_contrast() -> None:
    pixels = 1e9 + np.random.default_rng(0).random((64, 64)) * 10
    assert stretch_contrast(pixels).std() > 40


def ring_colour(image: NDArray[np.uint8], x: int, y: int) -> NDArray[np.float64]:
    """The most saturated colour around a place: thin rings blend with the grey they cross."""
    patch = image[y - 20 : y + 21, x - 20 : x + 21].reshape(-1, 3)
    return patch[np.ptp(patch.astype(int), axis=1).argmax()].astype(float)


def test_colour_means_probability_where_there_is_one_class() -> None:
    image = np.asarray(draw_overlay(recognition(flat(1024, 1024), [(200, 200), (600, 600)], probability=[0.1, 1.0])))
    for place, expected in ((200, 0.1), (600, 1.0)):
        ramp = probability_colours(np.linspace(0, 1, 101))
        nearest = np.linalg.norm(ramp - ring_colour(image, place, place), axis=1).argmin() / 100
        assert nearest == pytest.approx(expected, abs=0.1)


def test_colour_means_class_where_there_are_several_and_does_not_change_between_frames() -> None:
    species = ["metal", "support"]
    image = np.asarray(draw_overlay(recognition(flat(1024, 1024), [(200, 200), (600, 600)], species=species)))
    colours = class_colours(species)
    assert ring_colour(image, 200, 200) == pytest.approx(np.array(colours["metal"]), abs=40)
    assert ring_colour(image, 600, 600) == pytest.approx(np.array(colours["support"]), abs=40)
    assert class_colours(["support", "metal", "vacancy"])["metal"] == colours["metal"]


def test_many_classes_have_different_colours() -> None:
    colours = class_colours(["C", "atom", "Mo", "S", "S2", "vacancy", "Xx"])
    assert len(set(colours.values())) == 7
    assert len(class_colours([f"class {i}" for i in range(12)])) == 12


# Machado, Oliveira and Fernandes 2009, complete deficiency, on linear RGB.
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def as_seen(colours: Any, vision: str) -> NDArray[np.float32]:
    """CIE L*a*b* of sRGB colours for someone's colour vision."""
    encoded = np.asarray(colours, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(COLOUR_VISION[vision]).T, 0, 1).astype(np.float32)
    lab: NDArray[np.float32] = cv2.cvtColor(seen[None], cv2.COLOR_LRGB2Lab)[0]
    return lab


@pytest.mark.parametrize("vision", COLOUR_VISION)
@pytest.mark.parametrize("classes", [["metal", "support"], ["Mo", "S", "S2", "vacancy", "substitution"]])
def test_classes_are_told_apart_with_any_colour_vision(vision: str, classes: list[str]) -> None:
    lab = as_seen(list(class_colours(classes).values()), vision)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 15


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_heights_are_read_with_any_colour_vision_and_even_in_grey(vision: str) -> None:
    lightness = as_seen(height_colours(np.arange(1, 16), 15), vision)[:, 0]
    assert (np.diff(lightness) > 0.5).all()


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_probability_is_read_with_any_colour_vision_and_even_in_grey(vision: str) -> None:
    lightness = as_seen(probability_colours(np.linspace(0, 1, 11)), vision)[:, 0]
    assert (np.diff(lightness) > 1).all()


def test_palette_is_okabe_and_ito() -> None:
    assert len(set(OKABE_ITO)) == 7


@pytest.mark.parametrize(
    ("width_angstrom", "label"),
    [(15, "2 Å"), (25, "5 Å"), (40, "1 nm"), (123, "2 nm"), (250, "5 nm"), (5000, "100 nm"), (1, "0.2 Å")],
)
def test_scale_bar_is_round_and_fits(width_angstrom: float, label: str) -> None:
    bar = scale_bar(width_angstrom)
    assert bar.label == label
    assert 0.1 * width_angstrom <= bar.length_angstrom <= 0.25 * width_angstrom


@pytest.mark.parametrize("side", [256, 1024])
def test_scale_bar_has_the_length_it_claims(side: int) -> None:
    picture = draw_overlay(recognition(flat(side, side), pixel_size_angstrom=0.1))
    panel = np.asarray(picture)[picture.width :]
    zoom = picture.width // side
    bright = (panel > 240).all(axis=2)
    longest_run = max(len(run) for row in bright for run in "".join("x" if b else " " for b in row).split())
    assert longest_run == pytest.approx(scale_bar(side * 0.1).length_angstrom / 0.1 * zoom, abs=1)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1024, 1024), (4096, 4096), (2048, 64), (64, 2048)])
def test_type_is_legible_at_every_size(height: int, width: int) -> None:
    picture = draw_overlay(recognition(flat(height, width), [(30, 30)]))
    zoom = max(1, round(1000 / max(height, width)))
    panel = np.asarray(picture)[height * zoom :]
    bright_rows = (panel > 150).any(axis=(1, 2))
    line_heights = [len(run) for run in "".join("x" if b else " " for b in bright_rows).split()]
    # The panel names the frame and has a legend: type of at least 10 px, and readable when a 4k overlay is scaled down.
    assert max(line_heights) >= max(10, 0.01 * np.sqrt(height * width))
    assert picture.width >= 600


def test_frames_larger_than_4k_keep_their_size() -> None:
    picture = draw_overlay(recognition(flat(64, 5000), [(10, 10), (12, 12)]))
    assert picture.width == 5000


def test_an_estimated_pixel_size_stands_out() -> None:
    def panel(source: CalibrationSource) -> NDArray[np.uint8]:
        return np.asarray(draw_overlay(recognition(flat(1024, 1024), source=source)))[1024:]

    assert not coloured(panel(CalibrationSource.METADATA)).any()
    assert coloured(panel(CalibrationSource.ESTIMATED)).any()


def test_every_warning_gets_room() -> None:
    few = draw_overlay(recognition(flat(512, 512), warnings=("Short.",)))
    many = draw_overlay(recognition(flat(512, 512), warnings=("Short.", "A long one that has to be wrapped. " * 10)))
    assert many.height > few.height > draw_overlay(recognition(flat(512, 512))).height


def test_strange_names_and_warnings_do_not_break_the_layout() -> None:
    name, warning = "名前 \n\t<frame> " * 100, "x" * 3000
    picture = draw_overlay(recognition(flat(256, 256), name=name, warnings=(warning, "")))
    assert picture.width == 1024
    assert picture.height < 1500


def test_a_name_that_is_not_unicode_is_drawn() -> None:
    odd = draw_overlay(recognition(flat(256, 256), name="bad\udcff"))
    assert odd.tobytes() == draw_overlay(recognition(flat(256, 256), name="bad?")).tobytes()


def radii_of_rings(image: NDArray[np.uint8], x: int, y: int) -> NDArray[np.int64]:
    """Distances from a place, in pixels, at which all around there is colour."""
    rows, columns = np.indices(image.shape[:2])
    distance = np.round(np.hypot(columns - x, rows - y)).astype(int)
    return np.array([radius for radius in range(2, 18) if coloured(image)[distance == radius].mean() > 0.5])


def test_vacancies_are_ringed_twice_in_a_colour_of_their_own() -> None:
    places = [(200, 200), (260, 200), (600, 600)]
    kinds, species = ["column", "column", "vacancy"], ["Mo", "S2", None]
    image = np.asarray(draw_overlay(recognition(flat(1024, 1024), places, kind=kinds, species=species)))

    site, vacancy = radii_of_rings(image, 200, 200), radii_of_rings(image, 600, 600)

    assert (np.diff(site) == 1).all(), "one ring"
    assert (np.diff(vacancy) > 1).sum() == 1, "two rings"
    assert vacancy.max() > site.max()
    colours = class_colours(["Mo", "S2", "vacancy"])
    assert ring_colour(image, 600, 600) == pytest.approx(np.array(colours["vacancy"]), abs=40)
    assert len(set(colours.values())) == 3


def test_colour_means_height_where_columns_are_counted() -> None:
    places = [(200, 200), (400, 400), (600, 600), (800, 800)]
    species, n_atoms = ["Au", "Au", "Au", "support"], [1, 8, 15, None]
    gold = recognition(flat(1024, 1024), places, species=species, n_atoms=n_atoms, pixel_size_angstrom=0.06)
    image = np.asarray(draw_overlay(gold))

    scale = height_colours(np.arange(1, 16), 15)
    for (x, y), number in zip(places[:3], (1, 8, 15), strict=True):
        nearest = np.linalg.norm(scale - ring_colour(image, x, y), axis=1).argmin() + 1
        assert nearest == pytest.approx(number, abs=1)
    assert ring_colour(image, 800, 800) == pytest.approx(np.array(class_colours(["support"])["support"]), abs=40)


def columns_of_gold(spacing_px: float, side: int, n_atoms: int | None) -> Recognition:
    places = np.stack(np.meshgrid(*[np.arange(spacing_px, side - spacing_px, spacing_px)] * 2), axis=-1).reshape(-1, 2)
    species: list[str | None] = ["Au" if n_atoms else "support"] * len(places)
    pixel_size = 2.5 / spacing_px
    numbers = [n_atoms] * len(places)
    return recognition(flat(side, side), places, pixel_size_angstrom=pixel_size, species=species, n_atoms=numbers)


@pytest.mark.parametrize(("spacing_px", "side"), [(21.0, 1024), (12.0, 256), (60.0, 1024)])
@pytest.mark.parametrize("n_atoms", [7, 24])
def test_numbers_stand_inside_the_rings_where_there_is_room(spacing_px: float, side: int, n_atoms: int) -> None:
    picture = draw_overlay(columns_of_gold(spacing_px, side, n_atoms))
    image = np.asarray(picture)
    zoom = picture.width // side
    centre = round((3 * spacing_px + 0.5) * zoom - 0.5)
    reach = round(0.36 * spacing_px * zoom)

    patch = image[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1]
    white = (patch > 220).all(axis=2)
    rows, columns = np.nonzero(white)

    assert np.ptp(rows) >= 6, "digits are at least 7 pixels high"
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == pytest.approx((2 * reach, 2 * reach), abs=3)
    assert np.hypot(rows - reach, columns - reach).max() < reach, "the ring is around the number"
    # A dark edge parts the number from whatever grey the column has.
    assert (patch < 60).all(axis=2).any()


def test_no_numbers_where_columns_stand_too_close_to_read_them() -> None:
    picture = draw_overlay(columns_of_gold(5.0, 1024, 7))
    frame = np.asarray(picture)[: picture.width]
    assert coloured(frame).any()
    assert not (frame > 220).all(axis=2).any()


def test_columns_that_are_not_counted_have_no_number() -> None:
    picture = draw_overlay(columns_of_gold(60.0, 512, None))
    assert not (np.asarray(picture)[: picture.width] > 220).all(axis=2).any()


def test_numbers_at_the_border_are_drawn() -> None:
    corners = [(0, 0), (255, 0), (0, 255), (255, 255)]
    image = np.asarray(draw_overlay(recognition(flat(256, 256), corners, species=["Au"] * 4, n_atoms=[12] * 4)))
    for x, y in ((0, 0), (1000, 0), (0, 1000), (1000, 1000)):
        assert (image[y : y + 24, x : x + 24] > 220).all(axis=2).any()


def test_the_panel_tells_of_the_series() -> None:
    single = recognition(flat(1024, 1024), [(200, 200)])
    defocus = (-130.0, -90.0, -50.0)
    over, middle, under = (replace(single.frame, acquisition=Acquisition(value)) for value in defocus)
    series = FocalSeries((over, middle, under), 1, single.frame.frame_id, single.frame.name)
    drift = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 0.0]])

    pictures = [
        draw_overlay(replace(single, series=known)) for known in (None, series, replace(series, drift_angstrom=drift))
    ]

    frames = [np.asarray(picture)[:1024] for picture in pictures]
    assert all((frame == frames[0]).all() for frame in frames), "the frame shown is the one acquired first"
    assert pictures[0].height < pictures[1].height == pictures[2].height
    assert pictures[1].tobytes() != pictures[2].tobytes()
