"""The launcher's arguments that Flyte's kfmpi plugin makes of two tasks, one JSON list a line."""
import json

from flytekit import task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekitplugins.kfmpi import HorovodJob, Launcher, MPIJob, Worker


@task(task_config=MPIJob(launcher=Launcher(replicas=1), worker=Worker(replicas=2), slots=2))
def my_mpi_task() -> int:
    return 1


@task(task_config=HorovodJob(launcher=Launcher(replicas=1), worker=Worker(replicas=2), slots=2))
def my_horovod_task() -> int:
    return 1


settings = SerializationSettings(
    image_config=ImageConfig(Image("default", "train", "1")), project="p", domain="d", version="v"
)
for work in (my_mpi_task, my_horovod_task):
    print(json.dumps(work.get_command(settings)))
