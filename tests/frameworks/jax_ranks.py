"""jax.distributed finds its ranks by the launcher's variables; every process sees every other's value."""

import os

import jax
import numpy

jax.distributed.initialize()
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
assert (jax.process_index(), jax.process_count()) == (rank, size), (jax.process_index(), jax.process_count())
from jax.experimental import multihost_utils

multihost_utils.sync_global_devices("all")
got = multihost_utils.process_allgather(numpy.asarray([rank + 1.0]))
assert got.ravel().tolist() == [r + 1.0 for r in range(size)], got
print(f"jax {jax.__version__}: rank {rank} of {size}: ok", flush=True)
