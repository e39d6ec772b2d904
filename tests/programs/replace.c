/* replace PID PROGRAM: a user's attack on a process of his own that he has not started: it is
 * traced, and becomes PROGRAM. Exit status 0 when it was let go with the call under way; 1 when the
 * kernel does not let us. x86-64 only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { EXECVE = 59, SYSCALL = 0x050f };

static void put(pid_t pid, unsigned long at, const void *bytes, size_t count) {
    for (size_t done = 0; done < count; done += sizeof(long)) {
        long word = 0;
        size_t left = count - done;
        memcpy(&word, (const char *)bytes + done, left < sizeof(word) ? left : sizeof(word));
        ptrace(PTRACE_POKEDATA, pid, at + done, word);
    }
}

int main(int count, char **words) {
    if (count != 3)
        return 2;
    pid_t pid = atoi(words[1]);
    struct user_regs_struct registers;
    int status;
    if (ptrace(PTRACE_ATTACH, pid, 0, 0)) {
        fprintf(stderr, "%s\n", strerror(errno));
        return 1;
    }
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        return 1;
    ptrace(PTRACE_GETREGS, pid, 0, &registers);
    unsigned long at = (registers.rsp - 4096) & ~15UL, text = at + 32;
    unsigned long arguments[] = {text, 0, 0};
    put(pid, at, arguments, sizeof(arguments));
    put(pid, text, words[2], strlen(words[2]) + 1);
    long code = ptrace(PTRACE_PEEKDATA, pid, registers.rip, 0);
    ptrace(PTRACE_POKEDATA, pid, registers.rip, (code & ~0xffffL) | SYSCALL);
    registers.rax = EXECVE;
    registers.orig_rax = (unsigned long)-1;
    registers.rdi = text;
    registers.rsi = at;
    registers.rdx = at + 16;
    ptrace(PTRACE_SETREGS, pid, 0, &registers);
    return ptrace(PTRACE_DETACH, pid, 0, 0) ? 1 : 0;
}
