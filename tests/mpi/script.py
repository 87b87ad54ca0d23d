"""Objects, buffers and splits through mpi4py, with whichever MPI it was told to load."""
from array import array

from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()

assert world.bcast({"from": 0, "list": [1, 2, 3]} if rank == 0 else None) == {"from": 0, "list": [1, 2, 3]}
assert world.allgather((rank, str(rank))) == [(r, str(r)) for r in range(size)]
assert world.alltoall([f"{rank}->{to}" for to in range(size)]) == [f"{r}->{rank}" for r in range(size)]
assert world.allreduce(rank + 1) == size * (size + 1) // 2

ours, summed = array("d", [rank + i / 8 for i in range(1000)]), array("d", [0] * 1000)
world.Allreduce([ours, MPI.DOUBLE], [summed, MPI.DOUBLE], op=MPI.SUM)
assert all(abs(s - (size * (size - 1) / 2 + size * i / 8)) < 1e-9 for i, s in enumerate(summed))

request = world.isend(["ring", rank], dest=(rank + 1) % size, tag=7)
assert world.recv(source=(rank - 1) % size, tag=7) == ["ring", (rank - 1) % size]
request.wait()

half = world.Split(rank % 2, -rank)
assert half.allreduce(1) == len(range(rank % 2, size, 2))
half.Free()

world.Barrier()
if rank == 0:
    print(f"script ok {size}", flush=True)
