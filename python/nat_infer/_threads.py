"""What the native part has to know of threads.

candle computes sums and products of large tensors on a pool that the first of them starts, as large as the machine. A
process that is forked later has that pool without its threads and waits for them for ever; and ``threads`` of a model does
not count them. So it is started here, with none.

Threads that compute when Python ends must not come back to it.
"""

import atexit
import os

from . import _native

VARIABLE = "CANDLE_NUM_THREADS"
before = os.environ.get(VARIABLE)
os.environ[VARIABLE] = "1"
try:
    _native.start_candles_pool()
finally:
    if before is None:
        del os.environ[VARIABLE]
    else:
        os.environ[VARIABLE] = before

atexit.register(_native.python_ends)
