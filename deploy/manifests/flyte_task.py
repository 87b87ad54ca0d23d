"""A Flyte task that runs under rmpirun: nothing here names it. The image is the overlay image, in which `mpirun` and
`horovodrun` are rmpirun; the plugin's command lines run as they stand.

Flyte's backend (1.10 to 1.16, 2) leaves slotsPerWorker at 1 whatever MPIJob(slots=...) says; until it is mended take one
slot a worker and more workers, or add --oversubscribe by RMPIRUN_OVERSUBSCRIBE=1 in the environment below.
"""
from flytekit import Resources, task
from flytekitplugins.kfmpi import Launcher, MPIJob, Worker

IMAGE = "registry.example/train:1"


@task(
    task_config=MPIJob(
        launcher=Launcher(replicas=1),
        worker=Worker(replicas=4),
        slots=1,
    ),
    container_image=IMAGE,
    requests=Resources(cpu="1", mem="2Gi"),
    environment={"RMPIRUN_WAIT_HOSTS": "600"},
)
def train(epochs: int = 3) -> float:
    from app import train as run

    return run(epochs)
