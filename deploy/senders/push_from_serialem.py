#!Python
"""Takes images in SerialEM and pushes each to hrtemd.

Paste it into a script of SerialEM (the first line says that it is Python), or run it with an external Python. To push
from a script of your own, keep all but the last lines, and call `push()` after each image. Needs pyzmq and NumPy in the
Python that SerialEM uses; see README.md beside this file.
"""

import json
import time

import numpy as np
import serialem as sem
import zmq
import zmq.auth

ENDPOINT = "tcp://127.0.0.1:9999"
# Where the source has keys: files of this sender's own key, and of hrtemd's public one; see hrtemd's docs/keys.md.
SECRET_KEY = ""  # such as r"C:\keys\camera.key_secret"
SERVER_KEY = ""  # such as r"C:\keys\daemon.key"
KEYS = {}  # what every frame is to tell, such as {"dose_per_square_angstrom": 20.0, "voltage_kv": 80}
IMAGES = 100


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


def push(sender, buffer="A", **keys):
    """Push the image in a buffer; `keys` are those of `Sender.send`."""
    pixel_size_nm = float(sem.ImageProperties(buffer)[4])  # after width, height, binning and exposure
    if pixel_size_nm > 0:
        keys.setdefault("pixel_size_angstrom", 10 * pixel_size_nm)
    return sender.send(np.asarray(sem.bufferImage(buffer)), **keys)


sender = Sender(ENDPOINT)
try:
    for _ in range(IMAGES):
        sem.Record()
        push(sender)
finally:
    sender.close()
