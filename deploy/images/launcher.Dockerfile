# The launcher alone: for jobs whose launcher pod runs no ranks. rmpirun is linked to glibc, which it needs to resolve
# the workers' names; there is no shell, no sshd and no package manager in it. The user is the one that mpi-operator's
# non-root examples have.
# Build context: the folder that `cargo xtask package` writes.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --chmod=0755 rmpirun /usr/local/bin/rmpirun
USER 1000:1000
ENV HOME=/home/mpiuser
WORKDIR /
ENTRYPOINT ["/usr/local/bin/rmpirun"]
