"""Pushes each frame of a camera in Nion Swift to hrtemd, while the camera plays.

Run it with File > Scripts... in Nion Swift, which gives it a thread of its own; cancel it there. It neither starts nor
stops the camera. Needs pyzmq and NumPy in Nion Swift's Python; see README.md beside this file.
"""

import json
import time

import numpy as np
import zmq
import zmq.auth

ENDPOINT = "tcp://127.0.0.1:9999"
# Where the source has keys: files of this sender's own key, and of hrtemd's public one; see hrtemd's docs/keys.md.
SECRET_KEY = ""  # such as r"C:\keys\camera.key_secret"
SERVER_KEY = ""  # such as r"C:\keys\daemon.key"
KEYS = {}  # what every frame is to tell, such as {"dose_per_square_angstrom": 20.0, "voltage_kv": 80}
CAMERA = "usim_ronchigram_camera"  # the hardware source's id
ANGSTROM = {"A": 1.0, "Å": 1.0, "pm": 0.01, "nm": 10.0, "µm": 1e4, "um": 1e4, "m": 1e10}


class Sender:
    """Pushes frames to hrtemd and never waits: where there is no room for one, it is dropped, counted and told.

    Args:
        endpoint: Where the source of hrtemd's config.toml is bound.
    """

    WAITING_FRAMES = 2
    SAY_SECONDS = 10.0

    def __init__(self, endpoint):
        self.sent = 0
        self.dropped = 0
        self._say_at = 0.0
        self._socket = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, self.WAITING_FRAMES)
        self._socket.setsockopt(zmq.LINGER, 0)  # what waits does not keep this program from ending
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is kept for a daemon that is not there
        if SECRET_KEY:
            self._socket.curve_publickey, self._socket.curve_secretkey = zmq.auth.load_certificate(SECRET_KEY)
            self._socket.curve_serverkey, _ = zmq.auth.load_certificate(SERVER_KEY)
        self._socket.connect(endpoint)

    def send(self, image, **keys):
        """Push one image; return whether there was room for it.

        Args:
            image: NumPy array, shape (height, width), whole or floating numbers. It is copied.
            keys: What hrtemd is told of it: `pixel_size_angstrom`, `voltage_kv`, `dose_per_square_angstrom`,
                `defocus_angstrom` (positive for underfocus), `series_id`, `series_index`, `series_length`.
        """
        if image.ndim != 2 or image.dtype.kind not in "uif":
            print(f"hrtemd: an image of shape {image.shape} and type {image.dtype} is not sent; it takes plain images.")
            return False
        pixels = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
        header = {
            "htype": "array-1.0",
            "shape": list(pixels.shape),
            "type": pixels.dtype.name,
            "endianess": "little",  # spelled so in the format
            "frame": self.sent + self.dropped,  # a dropped frame leaves a gap, by which hrtemd knows of it
            "hrtem": {**KEYS, **keys},
        }
        self._socket.poll(0, zmq.POLLOUT)  # hears of room made within the last millisecond; sending alone may not
        try:
            self._socket.send_multipart([json.dumps(header).encode(), pixels], zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1
            if time.monotonic() >= self._say_at:
                self._say_at = time.monotonic() + self.SAY_SECONDS
                print(f"hrtemd: {self}; it is not running, slower than the camera, or refuses it.")
            return False
        self.sent += 1
        return True

    def close(self):
        """Say what became of the frames, and disconnect."""
        print(f"hrtemd: {self}.")
        self._socket.close()

    def __str__(self):
        return f"{self.sent} frames sent, {self.dropped} dropped"


def keys_of(xdata):
    """What Nion Swift knows of a frame: its pixel size, the voltage, the defocus."""
    keys = {}
    calibration = xdata.dimensional_calibrations[-1]
    if calibration.units in ANGSTROM and calibration.scale > 0:
        keys["pixel_size_angstrom"] = calibration.scale * ANGSTROM[calibration.units]
    instrument = xdata.metadata.get("instrument", {})
    if instrument.get("high_tension"):
        keys["voltage_kv"] = instrument["high_tension"] / 1000
    if instrument.get("defocus") is not None:
        keys["defocus_angstrom"] = -1e10 * instrument["defocus"]  # C10 in metres, and positive is underfocus here
    return keys


def script_main(api_broker):
    """What Nion Swift calls."""
    camera = api_broker.get_api(version="~1.0").get_hardware_source_by_id(CAMERA, version="~1.0")
    interactive = api_broker.get_interactive(version="~1.0")
    sender = Sender(ENDPOINT)
    try:
        while not interactive.cancelled:
            if not camera.is_playing:  # to ask for a frame would start it
                time.sleep(0.1)
                continue
            for xdata in camera.grab_next_to_finish():
                if xdata is not None and xdata.data is not None:
                    sender.send(xdata.data, **keys_of(xdata))
    finally:
        sender.close()
