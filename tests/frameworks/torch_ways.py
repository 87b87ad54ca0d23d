"""Frameworks on top of torch find their ranks by themselves: accelerate, lightning, deepspeed (the first word)."""

import os
import sys

import torch

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
mine = torch.tensor([rank + 1.0])
total = size * (size + 1) / 2
way = sys.argv[1]
if way == "accelerate":
    import accelerate

    a = accelerate.Accelerator(cpu=True)
    seen = (a.process_index, a.num_processes, a.local_process_index)
    summed = a.reduce(mine, reduction="sum")
    version = accelerate.__version__
elif way == "lightning":
    import lightning_fabric as lightning

    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = lightning.Fabric(accelerator="cpu", strategy="ddp", devices=local, num_nodes=size // local)
    fabric.launch()
    seen = (fabric.global_rank, fabric.world_size, fabric.local_rank)
    summed = fabric.all_reduce(mine, reduce_op="sum")
    version = lightning.__version__
else:
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    seen = (torch.distributed.get_rank(), torch.distributed.get_world_size(), int(os.environ["LOCAL_RANK"]))
    torch.distributed.all_reduce(mine)
    summed = mine
    version = deepspeed.__version__
assert seen == (rank, size, int(os.environ["LOCAL_RANK"])), seen
assert summed.item() == total, summed
print(f"{way} {version}: rank {rank} of {size}: ok", flush=True)
