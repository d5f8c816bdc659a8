"""Gives a Python process a system clock that a test can set.

Python runs this module at its start when this folder is on PYTHONPATH. ``CES_TEST_CLOCK`` names a file of
eight bytes: the seconds, as a double, by which ``time.time`` differs from the real one. Whoever writes to the
file sets the clock of all processes that use it. ``tests.support.wall`` does.
"""

import mmap
import os
import struct
import time

path = os.environ.get("CES_TEST_CLOCK")
if path:
    with open(path, "rb") as file:
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    real = time.time
    time.time = lambda: real() + struct.unpack("d", offset)[0]
