# A worker with nothing in it but the SSH server, the daemon and a static program: no shell, no libc, no writable place.
# `rmpi serve` starts the daemon itself when a launcher asks for it. All three files are static, so names are not
# resolved in here; workers resolve none.
# Build context: a folder with the program and what `cargo xtask package --worker` writes.
FROM scratch
COPY --chmod=0755 rmpi rmpid /
COPY --chmod=0755 program /program
USER 1000:1000
EXPOSE 2222
ENTRYPOINT ["/rmpi", "serve"]
