"""The C library of this process."""

import ctypes
from functools import cache


@cache
def c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
