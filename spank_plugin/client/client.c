/* libmpsr-ending.so: in each process of a task with --mps-endings=safe (LD_PRELOAD), and loaded by
 * every session. It has the process's MPS clients ended before a signal ends the process.
 *
 * It does nothing until the process loads libcuda: it looks at the names that dlopen is called
 * with, and at what is loaded when the next library is. From then on it handles the signals of
 * ENDS whose disposition is the default at that moment: it connects to the supervisor, which hangs
 * up when the clients have been ended, waits PATIENCE_MS at most, and dies of the same signal.
 * Whoever handles such a signal, before or after, is left alone; so are SIGINT, by which
 * interpreters decide, and a child that was forked and has no context.
 *
 * Relies on POSIX and dl_iterate_phdr alone, no CUDA, and on nothing that only one libc has:
 * containers bring theirs. A supervisor that is not there costs a refused connect.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "contract.h"

#pragma weak dlsym /* before glibc 2.34 a program without libdl has none, and calls no dlopen */

enum { PATIENCE_MS = 2000 };

static const int ENDS[] = {SIGTERM, SIGHUP, SIGQUIT, SIGXCPU, SIGSEGV,
                           SIGBUS,  SIGFPE, SIGILL,  SIGABRT};
static struct sockaddr_un supervisor = {.sun_family = AF_UNIX};
static volatile pid_t armed; /* the process that has libcuda; a forked child is another */
static void *(*next_dlopen)(const char *, int);

static void tell(void) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct pollfd answer = {fd, POLLIN, 0};
    if (fd >= 0 && !connect(fd, (const struct sockaddr *)&supervisor, sizeof(supervisor)))
        poll(&answer, 1, PATIENCE_MS);
    if (fd >= 0)
        close(fd);
}

/* Also for a fault of the host side: raised again, it arrives before the instruction is repeated.
 */
static void on_end(int number, siginfo_t *info, void *context) {
    struct sigaction plain = {.sa_handler = SIG_DFL};
    int before = errno;
    (void)info;
    (void)context;
    if (armed == getpid())
        tell();
    sigaction(number, &plain, NULL);
    raise(number);
    errno = before;
}

static void arm(void) {
    const char *path = getenv(MPSR_ENV_ENDING_SOCKET);
    struct sigaction ours = {.sa_sigaction = on_end,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    if (armed == getpid() || !path || !*path || strlen(path) >= sizeof(supervisor.sun_path))
        return;
    strcpy(supervisor.sun_path, path);
    sigfillset(&ours.sa_mask);
    armed = getpid();
    for (size_t index = 0; index < sizeof(ENDS) / sizeof(ENDS[0]); index++) {
        struct sigaction present;
        if (!sigaction(ENDS[index], NULL, &present) && !(present.sa_flags & SA_SIGINFO) &&
            present.sa_handler == SIG_DFL)
            sigaction(ENDS[index], &ours, NULL);
    }
}

static bool is_cuda(const char *path) {
    const char *slash = strrchr(path, '/');
    return !strncmp(slash ? slash + 1 : path, "libcuda.so", 10);
}

static int look(struct dl_phdr_info *info, size_t size, void *found) {
    (void)size;
    if (info->dlpi_name && is_cuda(info->dlpi_name))
        *(bool *)found = true;
    return 0;
}

/* A library may have brought libcuda along. */
static void watch(const char *name) {
    bool loaded = name && is_cuda(name);
    if (armed == getpid() || !getenv(MPSR_ENV_ENDING_SOCKET))
        return;
    if (!loaded)
        dl_iterate_phdr(look, &loaded);
    if (loaded)
        arm();
}

/* Must end in a jump (Makefile): the real one looks for libraries as its caller has them. */
__attribute__((visibility("default"))) void *dlopen(const char *name, int mode) {
    watch(name);
    return next_dlopen(name, mode);
}

__attribute__((constructor)) static void begin(void) {
    /* a function is no object to ISO C: through a union, as POSIX advises */
    union {
        void *object;
        void *(*function)(const char *, int);
    } next = {.object = dlsym ? dlsym(RTLD_NEXT, "dlopen") : NULL};
    next_dlopen = next.function;
    watch(NULL);
}
