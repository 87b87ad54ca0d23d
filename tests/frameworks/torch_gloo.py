"""torch.distributed over Gloo, found by env:// alone: every collective with a known answer, on every rank."""
import os

import torch
import torch.distributed as dist

dist.init_process_group("gloo", init_method="env://")
rank, size = dist.get_rank(), dist.get_world_size()
assert rank == int(os.environ["OMPI_COMM_WORLD_RANK"]) and size == int(os.environ["OMPI_COMM_WORLD_SIZE"])
assert torch.distributed.is_torchelastic_launched()
for n in (1, 1000, 1_000_000):
    x = torch.full((n,), float(rank + 1))
    dist.all_reduce(x)
    assert torch.all(x == size * (size + 1) / 2), x
out = [torch.zeros(3) for _ in range(size)]
dist.all_gather(out, torch.full((3,), float(rank)))
assert all(torch.all(o == i) for i, o in enumerate(out))
y = torch.arange(4.0) if rank == 0 else torch.zeros(4)
dist.broadcast(y, 0)
assert torch.all(y == torch.arange(4.0))
dist.barrier()
print(f"torch {torch.__version__} rank {rank} of {size}: ok", flush=True)
