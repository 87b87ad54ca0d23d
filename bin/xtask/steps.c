/* Runs a program and what it forks step by step, until each becomes another program, and prints the address of every
   piece of 16 bytes that is run, in hexadecimal, once, in the order in which they first are. For `cargo xtask order`;
   x86-64 only, for programs at fixed addresses below 32 MiB. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT (32 << 20)
static char seen[LIMIT / 16];

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    int status;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0,
           PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno != EINTR)
            return 0;
        if (pid < 0 || !WIFSTOPPED(status))
            continue;
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_EXEC) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        struct user_regs_struct at;
        if (event == 0 && signal == SIGTRAP && ptrace(PTRACE_GETREGS, pid, 0, &at) == 0 && at.rip < LIMIT
            && !seen[at.rip / 16]) {
            seen[at.rip / 16] = 1;
            printf("%llx\n", at.rip);
        }
        /* A child that was just forked stops once by itself. */
        int pass = event != 0 || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
        ptrace(PTRACE_SINGLESTEP, pid, 0, pass);
    }
}
