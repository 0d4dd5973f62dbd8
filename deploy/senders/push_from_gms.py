"""Pushes each new image of a live view in DigitalMicrograph (GMS 3.5.2 and later) to hrtemd.

Run it in GMS as a Python script, with the live view as the front image. It ends when that window is
closed. Needs pyzmq and NumPy in GMS's Python; see README.md beside this file.
"""

import json
import time
import zlib

import DigitalMicrograph as DM
import numpy as np
import zmq
import zmq.auth

ENDPOINT = "tcp://127.0.0.1:9999"
# Where the source has keys: files of this sender's own key, and of hrtemd's public one; see hrtemd's docs/keys.md.
SECRET_KEY = ""  # such as r"C:\keys\camera.key_secret"
SERVER_KEY = ""  # such as r"C:\keys\daemon.key"
KEYS = {}  # what every frame is to tell, such as {"dose_per_square_angstrom": 20.0, "voltage_kv": 80}
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


def keys_of(image):
    """What GMS knows of an image: its pixel size, and the voltage."""
    keys = {}
    _, scale, unit = image.GetDimensionCalibration(0, 0)
    if unit in ANGSTROM and scale > 0:
        keys["pixel_size_angstrom"] = scale * ANGSTROM[unit]
    is_told, volts = image.GetTagGroup().GetTagAsFloat("Microscope Info:Voltage")
    if is_told and volts > 0:
        keys["voltage_kv"] = volts / 1000
    return keys


class Listener(DM.Py_ScriptObject):
    """Sends an image whenever GMS says that its data changed."""

    def __init__(self, image):
        DM.Py_ScriptObject.__init__(self)
        self.sender = Sender(ENDPOINT)
        self.last = None
        window = DM.ImageGetOrCreateImageDocument(image).GetWindow()
        self.WindowHandleWindowClosedEvent(window, "pythonplugin")
        self.ImageHandleDataChangedEvent(image, "pythonplugin")

    def HandleDataChangedEvent(self, flags, image):
        """Send the image, unless GMS tells of the same one again."""
        try:
            pixels = image.GetNumArray()  # a view of GMS's own memory: only read, and not kept
            content = zlib.crc32(np.ascontiguousarray(pixels[::8, ::8]))
            if content != self.last:
                self.last = content
                self.sender.send(pixels, **keys_of(image))
        except Exception as error:  # must not reach the live view
            print(f"hrtemd: a frame was not sent: {error!r}")

    def HandleWindowClosedEvent(self, flags, window):
        """End."""
        self.UnregisterAllListeners()
        self.sender.close()


listener = Listener(DM.GetFrontImage())
print(f"hrtemd: sending {DM.GetFrontImage().GetName()} to {ENDPOINT}; close its window to end.")
