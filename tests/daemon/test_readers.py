"""What an operator relies on when a file of any vendor is dropped into the acquisition folder."""

import importlib
import io
import json
import logging
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from daemon.errors import FrameError
from daemon.frames import CalibrationSource, Frame
from daemon.readers import SUFFIXES, frame_files, frames_read_from, quirks, read_frames

REAL = Path(__file__).parents[2].parent / "shared" / "real"
NM_PER_PIXEL = 0.02
PIXELS = np.random.default_rng(1).integers(0, 4000, (40, 48)).astype(np.uint16)
STACK = np.stack([PIXELS, PIXELS + 1, PIXELS + 2])


def read(path: Path, **options: Any) -> list[Frame]:
    return list(read_frames(path, **options))


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(FrameError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


# --- files as the vendors write them -----------------------------------------------------------------------------


def signal(data: np.ndarray, unit: str | None = "nm", scale: float = NM_PER_PIXEL, **metadata: Any) -> dict[str, Any]:
    """A signal as RosettaSciIO's writers take it; leading axes are navigation axes."""
    names = ["z", "y", "x"][-data.ndim :]
    axes = [
        {"name": name, "size": size, "index_in_array": i, "scale": scale, "offset": 0.0, "units": unit,
         "navigate": i < data.ndim - 2, "_type": "UniformDataAxis", "is_binned": False}
        for i, (name, size) in enumerate(zip(names, data.shape, strict=True))
    ]  # fmt: skip
    general = {"General": {"title": "frame"}, "Signal": {"signal_type": ""}, **metadata}
    return {
        "data": data,
        "axes": axes,
        "metadata": general,
        "original_metadata": {},
        "tmp_parameters": {},
        "learning_results": {},
        "models": None,
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "test", "package_version": "0"},
    }


def write_rosettasciio(path: Path, plugin: str, a_signal: dict[str, Any]) -> None:
    writer = importlib.import_module(f"rsciio.{plugin}")
    writer.file_writer(str(path), a_signal)


def write_tiff(path: Path, data: np.ndarray) -> None:
    write_rosettasciio(path, "tiff", signal(data))


def write_imagej(path: Path, data: np.ndarray, unit: str = "nm", scale: float = NM_PER_PIXEL) -> None:
    tifffile.imwrite(path, data, imagej=True, resolution=(1 / scale, 1 / scale), metadata={"unit": unit})


def write_hspy(path: Path, data: np.ndarray) -> None:
    instrument = {"TEM": {"beam_energy": 80.0, "Detector": {"Camera": {"exposure": 0.5}}}}
    write_rosettasciio(path, "hspy", signal(data, Acquisition_instrument=instrument))


def write_ncem(path: Path, data: np.ndarray) -> None:
    write_rosettasciio(path, "emd", signal(data))


def write_ncem_rows_first(path: Path, data: np.ndarray) -> None:
    """As ncempy writes it: the array as it is, `dim1` its first axis."""
    with h5py.File(path, "w") as file:
        file.attrs.update(version_major=0, version_minor=2)
        group = file.create_group("data/frame")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for i, name in enumerate(["z", "y", "x"][-data.ndim :], start=1):
            dim = group.create_dataset(f"dim{i}", data=np.arange(data.shape[i - 1]) * NM_PER_PIXEL)
            dim.attrs.update(name=name, units="[n_m]")


def write_velox(path: Path, data: np.ndarray, *, unit: str = "m", with_spectrum_image: bool = False) -> None:
    data = data.reshape(-1, *data.shape[-2:])
    metadata = {
        "BinaryResult": {"PixelSize": {"width": "2e-11", "height": "2e-11"}, "PixelUnitX": unit, "DetectorIndex": "0"},
        "Detectors": {"Detector-0": {"DetectorName": "BM-Ceta", "ExposureTime": "0.25"}},
        "Optics": {"AccelerationVoltage": "300000", "Defocus": "-8e-09"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}},
        "CustomProperties": {},
        "Scan": {},
    }
    encoded = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    with h5py.File(path, "w") as file:
        file["Version"] = [json.dumps({"format": "Velox", "version": "11"}).encode()]
        image = file.create_group("Data/Image/00ff")
        image.create_dataset("Data", data=np.moveaxis(data, 0, -1), chunks=(*data.shape[1:], 1))
        image["Metadata"] = np.repeat(encoded[:, None], len(data), axis=1)
        spectrum = file.create_group("Data/Spectrum/11ee")
        spectrum["Data"] = np.zeros((4096, 1), np.uint16)
        spectrum["Metadata"] = encoded[:, None]
        file.create_group("Displays/ImageDisplay")
        if with_spectrum_image:
            file.create_group("Data/SpectrumImage/22dd")


def write_mrc(path: Path, data: np.ndarray, cell_angstrom_per_pixel: float = NM_PER_PIXEL * 10) -> None:
    data = data.reshape(-1, *data.shape[-2:])
    header = bytearray(1024)
    n_z, n_y, n_x = data.shape
    mode = {np.dtype(np.uint16): 6, np.dtype(np.float32): 2, np.dtype(np.complex64): 4}[data.dtype]
    struct.pack_into("<10i", header, 0, n_x, n_y, n_z, mode, 0, 0, 0, n_x, n_y, n_z)
    struct.pack_into("<3f", header, 40, n_x * cell_angstrom_per_pixel, n_y * cell_angstrom_per_pixel, 0.0)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:212] = b"MAP "
    path.write_bytes(bytes(header) + data.tobytes())


def write_ser(path: Path, data: np.ndarray, metres_per_pixel: float = NM_PER_PIXEL * 1e-9) -> None:
    """TIA stores the bottom row first."""
    data = data.reshape(-1, *data.shape[-2:])
    n, height, width = data.shape
    dimension = struct.pack("<IddII6sI", n, 0, 1, 0, 6, b"Number", 0)
    elements = [
        struct.pack("<ddIddIHII", 0, metres_per_pixel, 0, 0, metres_per_pixel, 0, 2, width, height)
        + image[::-1].astype("<u2").tobytes()
        + struct.pack("<HHI", 16722, 0, 1_700_000_000)
        for image in data
    ]
    table = 30 + len(dimension)
    starts = table + 8 * n + np.cumsum([0] + [len(element) for element in elements])
    offsets = struct.pack(f"<{2 * n}I", *starts[:-1], *(starts[1:] - 8))
    header = struct.pack("<HHHIIIIII", 0x4949, 407, 528, 16674, 16722, n, n, table, 1)
    path.write_bytes(header + dimension + offsets + b"".join(elements))


def write_emi(path: Path, data: np.ndarray) -> None:
    quantities = {"High tension": ("300", "kV"), "Defocus": ("-0.008", "um"), "Mode": ("TEM uP SA Zoom Image", "")}
    described = "".join(
        f"<Data><Label>{label}</Label><Value>{value}</Value><Unit>{unit}</Unit></Data>"
        for label, (value, unit) in quantities.items()
    )
    path.write_bytes(
        b"\0\1binary<ObjectInfo><ExperimentalDescription><Root>" + described.encode()
        + b"</Root></ExperimentalDescription><AcquireDate>Sun Feb 21 17:50:18 2016</AcquireDate>"
        b"<AcquireInfo><DwellTimePath>0.5</DwellTimePath><CameraNamePath>Ceta</CameraNamePath></AcquireInfo>"
        b"</ObjectInfo>\0\2"
    )  # fmt: skip
    write_ser(path.with_name(path.stem + "_1.ser"), data)


def write_dm3(path: Path, data: np.ndarray, unit: str = "nm", scale: float = NM_PER_PIXEL) -> None:
    data_type = {"uint16": 10, "float32": 2, "complex64": 3}[data.dtype.name]
    sizes = data.shape[::-1]
    axis = {"Origin": 0.0, "Scale": scale, "Units": unit}
    image = {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
                "Dimension": {
                    f"#{i}": axis if i < 2 else axis | {"Units": "", "Scale": 1.0} for i in range(len(sizes))
                },
            },
            "Data": data,
            "DataType": data_type,
            "Dimensions": {f"#{i}": size for i, size in enumerate(sizes)},
        },
        "ImageTags": {
            "Microscope Info": {"Voltage": 80000.0},
            "DataBar": {"Exposure Time (s)": 0.5, "Acquisition Date": "3/4/2024"},
        },
        "Name": "frame",
    }
    thumbnail = {**image, "ImageData": {**image["ImageData"], "Data": np.zeros_like(data)}}
    tags = {"ImageList": {"#0": thumbnail, "#1": image}, "Thumbnails": {"#0": {"ImageIndex": 0}}}
    path.write_bytes(struct.pack(">iii", 3, 0, 1) + _dm_group(tags))


def _dm_group(tags: dict[str, Any]) -> bytes:
    encoded = struct.pack(">bbi", 1, 0, len(tags))
    for name, value in tags.items():
        name = "" if name.startswith("#") else name
        encoded += struct.pack(">bh", 20 if isinstance(value, dict) else 21, len(name)) + name.encode()
        encoded += _dm_group(value) if isinstance(value, dict) else b"%%%%" + _dm_value(value)
    return encoded


def _dm_value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack(">4i", 3, 20, 4, len(value)) + value.encode("utf-16-le")
    if isinstance(value, int):
        return struct.pack(">2i", 1, 3) + struct.pack("<i", value)
    if isinstance(value, float):
        return struct.pack(">2i", 1, 7) + struct.pack("<d", value)
    element = {"uint16": 4, "float32": 6, "complex64": 12}[value.dtype.name]
    return struct.pack(">4i", 3, 20, element, value.size) + value.tobytes()


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "dm.dm3": write_dm3,
    "gatan.tif": write_tiff,
    "imagej.tiff": write_imagej,
    "tia_1.ser": write_ser,
    "tia.emi": write_emi,
    "velox.emd": write_velox,
    "ncem.emd": write_ncem,
    "ncempy.emd": write_ncem_rows_first,
    "serialem.mrc": write_mrc,
    "hyperspy.hspy": write_hspy,
}


# --- every format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_one_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, PIXELS)
    (frame,) = read(path)
    assert frame.name == path.stem
    np.testing.assert_array_equal(frame.pixels, PIXELS)
    assert frame.pixels.dtype == np.uint16
    assert not frame.pixels.flags.writeable
    assert frame.calibration is not None
    assert frame.calibration.source is CalibrationSource.METADATA
    assert frame.calibration.pixel_size_angstrom == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize("name", WRITERS)
def test_stack(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, STACK)
    frames = read(path)
    assert [frame.name for frame in frames] == [f"{path.stem}-{i:04d}" for i in range(3)]
    for frame, pixels in zip(frames, STACK, strict=True):
        np.testing.assert_array_equal(frame.pixels, pixels)
    assert len({frame.frame_id for frame in frames}) == 3


@pytest.mark.parametrize("name", ["dm.dm3", "serialem.mrc", "velox.emd", "ncem.emd", "numpy.npy"])
def test_a_long_stack_is_read_image_by_image_to_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    (WRITERS | {"numpy.npy": np.save})[name](path, STACK)
    at_once = [frame.frame_id for frame in read(path)]
    monkeypatch.setattr("daemon.readers.rosettasciio.LAZY_FROM_BYTES", 0)
    monkeypatch.setattr("daemon.readers.plain.LAZY_FROM_BYTES", 0)
    assert [frame.frame_id for frame in read(path)] == at_once
    read(path)
    path.rename(tmp_path / "moved")  # and nothing keeps it open


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_short_gives_no_frame(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, STACK)
    whole = path if path.suffix != ".emi" else path.with_name("tia_1.ser")
    content = whole.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        whole.write_bytes(content[: int(share * len(content))])
        assert "cut short" in refusal(path)


@pytest.mark.parametrize("name", ["serialem.mrc", "numpy.npy"])
def test_a_file_cut_short_while_it_is_read_ends_nothing_but_its_frames(tmp_path: Path, name: str) -> None:
    """A process that reads a memory-mapped file beyond its new end is killed by the kernel; so it is another one."""
    (WRITERS | {"numpy.npy": np.save})[name](tmp_path / name, np.ones((3, 256, 256), np.uint16))
    script = (
        "import os, sys\n"
        "from daemon.readers import plain, read_frames, rosettasciio\n"
        "from pathlib import Path\n"
        "plain.LAZY_FROM_BYTES = rosettasciio.LAZY_FROM_BYTES = 0\n"
        "frames = read_frames(Path(sys.argv[1]), pixel_size_angstrom=0.1)\n"
        "print(next(frames).name)\n"
        "os.truncate(sys.argv[1], 2000)\n"
        "print(*frames, sep='\\n')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / name], capture_output=True, text=True, timeout=200, check=True
    )
    first, *others = run.stdout.splitlines()
    stem = Path(name).stem
    assert first == f"{stem}-0000"
    assert [line.split(":")[0] for line in others] == [f"{stem}-0001", f"{stem}-0002"]
    assert all("the file has become shorter" in line for line in others)


def test_numpy_and_png(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS.astype(">f4"))
    np.savez_compressed(tmp_path / "b.npz", frame=PIXELS)
    Image.fromarray(PIXELS).save(tmp_path / "c.png")
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(tmp_path / "d.png")
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).convert("RGB").save(tmp_path / "e.png")
    frames = {path.name: read(path)[0] for path in frame_files([tmp_path])}
    np.testing.assert_array_equal(frames["a.npy"].pixels, PIXELS)
    assert frames["a.npy"].pixels.dtype.isnative
    np.testing.assert_array_equal(frames["b.npz"].pixels, PIXELS)
    np.testing.assert_array_equal(frames["c.png"].pixels, PIXELS)
    np.testing.assert_array_equal(frames["d.png"].pixels, PIXELS >> 4)
    np.testing.assert_array_equal(frames["e.png"].pixels, PIXELS >> 4)
    assert all(frame.calibration is None for frame in frames.values())


def test_a_stack_that_tifffile_labels_as_colours(tmp_path: Path) -> None:
    path = tmp_path / "triplet.tif"
    tifffile.imwrite(path, STACK, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal([frame.pixels for frame in read(path)], STACK)


# --- identity and times ------------------------------------------------------------------------------------------


def test_frame_id_is_the_same_in_every_run_and_names_source_file_index_and_content(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, PIXELS)
    (first,), (second,) = read(path, source="camera"), read(path, source="camera")
    assert first.frame_id == second.frame_id
    assert first.frame_id.startswith("camera/a.npy/0/")
    np.save(path, PIXELS + 1)
    assert read(path, source="camera")[0].frame_id != first.frame_id


def test_acquired_at(tmp_path: Path) -> None:
    write_velox(tmp_path / "a.emd", PIXELS)
    write_ser(tmp_path / "a_1.ser", PIXELS)
    np.save(tmp_path / "a.npy", PIXELS)
    assert read(tmp_path / "a.emd")[0].acquired_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert read(tmp_path / "a_1.ser")[0].acquired_at == datetime.fromtimestamp(1_700_000_000, UTC)
    written = (tmp_path / "a.npy").stat().st_mtime
    assert read(tmp_path / "a.npy")[0].acquired_at == datetime.fromtimestamp(written, UTC)


@pytest.mark.parametrize(
    ("name", "voltage_kv", "exposure_seconds", "defocus_angstrom"),
    [
        ("dm.dm3", 80, 0.5, None),
        ("hyperspy.hspy", 80, 0.5, None),
        ("velox.emd", 300, 0.25, 80),  # the vendor's -8 nm is underfocus
        ("tia.emi", 300, 0.5, 80),
    ],
)
def test_acquisition(
    tmp_path: Path, name: str, voltage_kv: float, exposure_seconds: float, defocus_angstrom: float | None
) -> None:
    WRITERS[name](tmp_path / name, PIXELS)
    acquisition = read(tmp_path / name)[0].acquisition
    assert acquisition.voltage_kv == pytest.approx(voltage_kv)
    assert acquisition.exposure_seconds == pytest.approx(exposure_seconds)
    assert acquisition.defocus_angstrom == (defocus_angstrom and pytest.approx(defocus_angstrom))


# --- calibration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("nm", 0.02), ("pm", 20), ("Å", 0.2), ("\u212b", 0.2), ("A", 0.2), ("angstrom", 0.2), ("µm", 2e-5), ("m", 2e-11)],
)
def test_units(tmp_path: Path, unit: str, scale: float) -> None:
    write_dm3(tmp_path / "a.dm3", PIXELS, "A" if unit == "\u212b" else unit, scale)
    write_rosettasciio(tmp_path / "a.hspy", "hspy", signal(PIXELS, unit, scale))
    for path in frame_files([tmp_path]):
        calibration = read(path)[0].calibration
        assert calibration is not None
        assert calibration.pixel_size_angstrom == pytest.approx(0.2)


@pytest.mark.parametrize("unit", ["nm", "\\u00C5", "µm", "micron"])
def test_imagej_units(tmp_path: Path, unit: str) -> None:
    scale = {"nm": 0.02, "\\u00C5": 0.2}.get(unit, 2e-5)
    write_imagej(tmp_path / "a.tif", PIXELS, unit.replace("µ", "\\u00B5"), scale)
    calibration = read(tmp_path / "a.tif")[0].calibration
    assert calibration is not None
    assert calibration.pixel_size_angstrom == pytest.approx(0.2, rel=1e-4)


def test_fei_tem_tiff(tmp_path: Path) -> None:
    xml = b'<Root><PixelWidth unit="m">2e-11</PixelWidth><PixelHeight unit="m">2e-11</PixelHeight></Root>'
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, extratags=[(34683, 2, len(xml), xml, True)])
    calibration = read(tmp_path / "a.tif")[0].calibration
    assert calibration is not None
    assert calibration.pixel_size_angstrom == pytest.approx(0.2)


def write_dpi(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, resolution=(72, 72), resolutionunit="INCH")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: tifffile.imwrite(folder / "a.tif", PIXELS),
        lambda folder: write_dpi(folder / "a.tif"),
        lambda folder: write_imagej(folder / "a.tif", PIXELS, "pixel", 1),
        lambda folder: write_imagej(folder / "a.tif", PIXELS, "inch", 1 / 72),
        lambda folder: write_mrc(folder / "a.mrc", PIXELS, -10),  # -1 nm
        lambda folder: write_mrc(folder / "a.mrc", PIXELS, 0),
        lambda folder: write_mrc(folder / "a.mrc", PIXELS, 1),
        lambda folder: write_mrc(folder / "a.mrc", PIXELS, float("nan")),
        lambda folder: write_dm3(folder / "a.dm3", PIXELS, "", 1),
        lambda folder: write_velox(folder / "a.emd", PIXELS, unit=""),
    ],
)
def test_what_is_no_calibration(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    (path,) = frame_files([tmp_path])
    assert read(path)[0].calibration is None


def test_override_beats_sidecar_beats_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm3(path, PIXELS)

    def calibration(**options: float) -> tuple[float, CalibrationSource]:
        found = read(path, **options)[0].calibration
        assert found is not None
        return round(found.pixel_size_angstrom, 6), found.source

    assert calibration() == (0.2, CalibrationSource.METADATA)
    path.with_suffix(".json").write_text('{"pixel_size_angstrom": 0.3}')
    assert calibration() == (0.3, CalibrationSource.SIDECAR)
    assert calibration(pixel_size_angstrom=0.4) == (0.4, CalibrationSource.OVERRIDE)


def test_a_pixel_too_coarse_for_atoms_is_refused_until_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm3(path, PIXELS, "µm", 0.0063)
    message = refusal(path)
    for part in ("63 Å", "metadata", "--pixel-size", "a.json"):
        assert part in message
    assert len(read(path, pixel_size_angstrom=0.2)) == 1
    assert "given as --pixel-size" in refusal(path, pixel_size_angstrom=20)
    assert "--pixel-size" in refusal(path, pixel_size_angstrom=float("nan"))


def test_pixels_must_be_square(tmp_path: Path) -> None:
    path = tmp_path / "a.hspy"
    a_signal = signal(PIXELS)
    a_signal["axes"][0]["scale"] *= 1.02
    write_rosettasciio(path, "hspy", a_signal)
    assert "not square" in refusal(path)
    a_signal["axes"][0]["scale"] = NM_PER_PIXEL * 1.009
    path.unlink()
    write_rosettasciio(path, "hspy", a_signal)
    assert len(read(path)) == 1


# --- what is not a frame -----------------------------------------------------------------------------------------


def write_colour(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.hspy", lambda path: write_rosettasciio(path, "hspy", signal(PIXELS, "1/nm")), "diffraction"),
        ("a.dm3", lambda path: write_dm3(path, PIXELS, "1/nm"), "diffraction"),
        ("a.emd", lambda path: write_velox(path, PIXELS, unit="1/m"), "diffraction"),
        ("b.dm3", lambda path: write_dm3(path, PIXELS, "eV"), "spectrum"),
        ("c.dm3", lambda path: write_dm3(path, PIXELS.astype(np.complex64)), "complex"),
        ("a.mrc", lambda path: write_mrc(path, PIXELS.astype(np.complex64)), "complex"),
        ("a.png", write_colour, "colour"),
        ("a.tif", write_colour, "colour"),
        ("b.tif", lambda path: tifffile.imwrite(path, PIXELS[:, :1]), "1 by 40"),
        ("a.npy", lambda path: np.save(path, np.where(PIXELS > 9, PIXELS, np.nan)), "NaN"),
        ("b.npy", lambda path: np.save(path, PIXELS[0]), "dimensions"),
        ("c.npy", lambda path: np.save(path, PIXELS * 1j), "complex"),
        ("d.npy", lambda path: np.save(path, np.array([{}, None]), allow_pickle=True), "cannot be read"),
        ("e.npy", lambda path: np.save(path, np.zeros((0, 48, 48))), "empty"),
        ("f.npy", lambda path: np.save(path, np.array(["a", "b"])), "dimensions"),
        ("a.npz", lambda path: np.savez(path, image=PIXELS, gain=PIXELS), "image, gain"),
        ("x.emi", lambda path: path.write_bytes(b"<ObjectInfo></ObjectInfo>"), "x_1.ser"),
        ("x.dm4", lambda path: path.write_bytes(b""), "empty"),
        ("y.dm4", lambda path: path.write_bytes(b"not DigitalMicrograph" * 9), "cannot be read"),
        ("a.jpg", write_colour, ".jpg"),
        ("a", lambda path: path.write_bytes(b"?"), "ending"),
        ("no.tif", lambda path: None, "no such file"),
        ("folder.tif", lambda path: path.mkdir(), "not a file"),
    ],
)
def test_refusals_say_why(tmp_path: Path, name: str, write: Callable[[Path], None], reason: str) -> None:
    write(tmp_path / name)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.hspy"])
def test_of_a_stack_only_the_bad_image_is_refused(tmp_path: Path, name: str) -> None:
    stack = STACK.astype(np.float32)
    stack[1, 5, 5] = np.nan
    (np.save if name == "a.npy" else write_hspy)(tmp_path / name, stack)
    first, error, last = read_frames(tmp_path / name)
    assert isinstance(first, Frame)
    assert isinstance(last, Frame)
    assert (first.name, last.name) == ("a-0000", "a-0002")
    assert str(error).startswith("a-0001: 1 pixels are NaN")


def test_what_one_thread_reads_hides_nothing_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_imagej(tmp_path / "whole.tif", STACK)
    torn = tmp_path / "torn.tif"
    torn.write_bytes((tmp_path / "whole.tif").read_bytes()[:6000])
    separate_planes = quirks.separate_planes

    def read_whole_meanwhile(path: Path) -> list[dict[str, Any]]:
        if path == torn:
            other = threading.Thread(target=read, args=[tmp_path / "whole.tif"])
            other.start()
            other.join()
        return separate_planes(path)

    monkeypatch.setattr(quirks, "separate_planes", read_whole_meanwhile)
    assert "cut short" in refusal(torn)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", PIXELS)

    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in refusal(tmp_path / "a.npy")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "a.npy", np.array([Bomb()]), allow_pickle=True)
    np.savez(tmp_path / "b.npz", np.array([Bomb()]), allow_pickle=True)
    refusal(tmp_path / "a.npy")
    refusal(tmp_path / "b.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("with_spectrum_image", [False, True])
def test_of_a_velox_file_the_image_is_taken_and_the_spectra_left(tmp_path: Path, with_spectrum_image: bool) -> None:
    write_velox(tmp_path / "a.emd", PIXELS, with_spectrum_image=with_spectrum_image)
    (frame,) = read(tmp_path / "a.emd")
    np.testing.assert_array_equal(frame.pixels, PIXELS)


def test_of_a_tiff_the_thumbnail_is_left(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(PIXELS)
        tiff.write(PIXELS[::2, ::2][:, :], subfiletype=1)
    (frame,) = read(tmp_path / "a.tif")
    assert frame.pixels.shape == PIXELS.shape


def test_libraries_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    write_imagej(path, STACK)
    path.write_bytes(path.read_bytes()[:6000])
    refusal(path)
    assert capfd.readouterr() == ("", "")


def test_what_libraries_say_is_in_the_debug_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tif"
    write_imagej(path, STACK)
    path.write_bytes(path.read_bytes()[:6000])
    with caplog.at_level(logging.DEBUG):
        refusal(path)
    assert "invalid page offset" in caplog.text
    assert {record.levelno for record in caplog.records if record.name.startswith("daemon")} == {logging.DEBUG}


def test_importing_the_readers_imports_no_file_library() -> None:
    heavy = "{'rsciio', 'tifffile', 'h5py', 'dask', 'PIL'}"
    command = f"import sys, daemon.readers; print(sorted({heavy} & set(sys.modules)))"
    repository = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout.strip() == "[]"


# --- folders -----------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path, *paths: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in frame_files(paths or [folder])]


def test_a_folder_is_searched_recursively_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "a10.tif", "a2.DM4", "b/c1.png", "b/c01.emd", "1.npy")
    assert names(tmp_path) == ["1.npy", "a2.DM4", "a10.tif", "b/c01.emd", "b/c1.png"]


def test_what_is_left_out_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.json", "a.txt", ".hidden.tif", ".cache/b.tif", "c.tif.tmp", "d.tif.part", "~e.tif")
    touch(tmp_path, "a.overlay.png", "a.atoms.csv", "a.atoms.parquet", "a-0000.overlay.png", "summary.json")
    assert names(tmp_path) == ["a.tif"]


def test_an_emi_and_its_ser_are_one_frame(tmp_path: Path) -> None:
    touch(tmp_path, "x.emi", "x_1.ser", "x_2.ser", "alone_1.ser", "x_y_1.ser")
    assert names(tmp_path) == ["alone_1.ser", "x.emi", "x_y_1.ser"]
    assert names(tmp_path, *sorted(tmp_path.iterdir())) == ["alone_1.ser", "x.emi", "x_y_1.ser"]
    assert names(tmp_path, tmp_path / "x_1.ser") == ["x_1.ser"]


def test_a_folder_that_cannot_be_listed_stands_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.tif", "closed/b.tif", "open/c.tif")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["a.tif", "closed", "open/c.tif"]
    assert "permission denied" in refusal(tmp_path / "closed")


def test_a_name_that_only_resembles_a_result_is_a_frame(tmp_path: Path) -> None:
    touch(tmp_path, "pt.atoms.0001.dm4", "pt.overlay.png")
    assert names(tmp_path) == ["pt.atoms.0001.dm4"]


def test_the_frames_that_a_sidecar_or_ser_file_belongs_to(tmp_path: Path) -> None:
    touch(tmp_path, "x.emi", "x_1.ser", "x_1.json", "x.json", "x.tif", "xy.tif", "alone_1.ser", "alone_1.json")

    def frames(part: str) -> list[str]:
        return sorted(frame.name for frame in frames_read_from({tmp_path / part}, tmp_path))

    assert frames("x.json") == ["x.emi", "x.tif"]
    assert frames("x_1.ser") == ["x.emi"]
    assert frames("x_1.json") == []
    assert frames("alone_1.ser") == frames("alone_1.json") == ["alone_1.ser"]


def test_named_files_are_taken_as_they_are_but_only_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.json", "notes.txt")
    assert names(tmp_path, tmp_path / "notes.txt", tmp_path / "none.tif") == ["notes.txt", "none.tif"]
    assert names(tmp_path, tmp_path / "a.tif", tmp_path / "a.json", tmp_path) == ["a.tif"]


# --- files from other people -------------------------------------------------------------------------------------


def real_file(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("08_carbon.dm3", "spectrum"),
        ("test-1.dm3", "2 by 2"),
        ("test-1.dm4", "2 by 2"),
        ("test-23.dm4", "colour"),
        ("128x128_TEM_acquire-sum1.emi", "214.8 Å"),
        ("128x128_TEM_acquire-sum1_1.ser", "214.8 Å"),
        ("64x64_TEM_images_acquire.emi", "62.82 Å"),
        ("64x64_TEM_images_acquire_1.ser", "62.82 Å"),
        ("20241021_00405_final.mrc", "8 by 4"),
        ("20241021_00405_movie.mrc", "8 by 4"),
        ("example_axis_len_1.emd", "5 by 1"),
        ("example_image.emd", "3 by 3"),
        ("test_loading_image_saved_with_DM.tif", "1687 Å"),
        ("test_loading_image_saved_with_DM_stack.tif", "not square"),
    ],
)
def test_real_files_that_are_no_atomic_resolution_frames(name: str, reason: str) -> None:
    assert reason in refusal(real_file(f"formats/{name}"))


def test_real_files_with_the_right_pixel_size_given() -> None:
    (frame,) = read(real_file("formats/64x64_TEM_images_acquire.emi"), pixel_size_angstrom=0.2)
    assert frame.pixels.shape == (64, 64)
    assert frame.acquisition.voltage_kv == 200
    assert frame.acquisition.exposure_seconds == 0.0625
    assert frame.acquired_at == datetime(2016, 2, 21, 16, 50, 29, tzinfo=UTC)
    stack = read(real_file("formats/test_loading_image_saved_with_DM_stack.tif"), pixel_size_angstrom=0.2)
    assert [image.pixels.shape for image in stack] == [(68, 68)] * 2


def test_every_real_file_is_accounted_for() -> None:
    folder = real_file("formats")
    found = {path.name for path in frame_files([folder])}
    paired = {"128x128_TEM_acquire-sum1_1.ser", "64x64_TEM_images_acquire_1.ser"}
    assert found == {path.name for path in folder.iterdir()} - paired


def test_real_graphene() -> None:
    path = real_file("graphene/2013_1113_Gr_034.png")
    (frame,) = read(path)
    assert frame.pixels.shape == (256, 256)
    assert frame.pixels.dtype == np.uint8


# --- anything at all ---------------------------------------------------------------------------------------------

REAL_FORMATS = sorted((REAL / "formats").iterdir()) if (REAL / "formats").is_dir() else []


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    for name, write in WRITERS.items():
        write(folder / name, STACK)
    Image.fromarray(PIXELS).save(folder / "plain.png")
    np.save(folder / "plain.npy", STACK)
    np.savez_compressed(folder / "plain.npz", STACK)
    return {path.name: path.read_bytes() for path in [*folder.iterdir(), *REAL_FORMATS]}


share = st.floats(0, 1, exclude_max=True)


@given(
    name=st.sampled_from([*WRITERS, "plain.png", "plain.npy", "plain.npz", *(path.name for path in REAL_FORMATS)]),
    kept=st.just(1.0) | share,
    # Headers are where a changed byte hurts.
    changes=st.lists(st.tuples(st.sampled_from([256, 2048, 1_000_000]), share, st.integers(0, 255)), max_size=4),
)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_gives_frames_or_a_frame_error(
    intact: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    kept: float,
    changes: list[tuple[int, float, int]],
) -> None:
    content = bytearray(intact[name])
    content = content[: int(kept * len(content))]
    for end, where, byte in changes if content else []:
        content[int(where * min(end, len(content)))] = byte
    path = tmp_path_factory.getbasetemp() / f"damaged{Path(name).suffix}"
    path.write_bytes(content)
    if path.suffix == ".emi":
        path.with_name("damaged_1.ser").write_bytes(intact["tia_1.ser"])
    frames, reason = [], ""
    try:
        frames = read(path, pixel_size_angstrom=0.2)
    except FrameError as error:
        reason = str(error)
    assert frames or path.name in reason
    assert "\n" not in reason


def test_suffixes() -> None:
    assert {
        ".dm3",
        ".dm4",
        ".emd",
        ".emi",
        ".ser",
        ".mrc",
        ".mrcs",
        ".tif",
        ".tiff",
        ".hspy",
        ".npy",
        ".npz",
        ".png",
    } == SUFFIXES


def test_a_file_that_is_no_array_is_told_without_advice_to_load_it_unsafely(tmp_path: Path) -> None:
    path = tmp_path / "frame.npy"
    path.write_bytes(b"II*\0" + bytes(500))
    with pytest.raises(FrameError, match=r"frame\.npy: the content does not fit the ending \.npy; rename or save"):
        list(read_frames(path))
