# Adds rmpirun to an image that already has a training stack (Horovod, Open MPI, PyTorch, ...), under the names that
# operators and scripts call. Build context: the folder that `cargo xtask package` writes.
#
#   docker build -f overlay.Dockerfile --build-arg BASE=horovod/horovod:0.28.1 -t my/train .
ARG BASE=mpioperator/base:v0.6.0
FROM ${BASE}
COPY --chmod=0755 rmpirun /opt/rmpirun/bin/rmpirun
COPY --chmod=0755 rmpi /opt/rmpirun/bin/rmpi
# Before every other directory: the image's own mpirun stays where it is, under its path.
RUN ["/opt/rmpirun/bin/rmpirun", "--version"]
RUN ln -s rmpirun /opt/rmpirun/bin/mpirun \
 && ln -s rmpirun /opt/rmpirun/bin/mpiexec \
 && ln -s rmpirun /opt/rmpirun/bin/horovodrun \
 && ln -s /opt/rmpirun/bin/rmpirun /usr/local/bin/rmpirun
ENV PATH=/opt/rmpirun/bin:${PATH}
