/* See ranks.h. Relies on /proc/<pid>/maps of our own children, and for PMI-2 on the socket PMI_FD,
 * which we share with the program: when slurmstepd has read what the program wrote, the socket has
 * room anew, which an edge-triggered epoll tells whoever watches it (unix_write_space in Linux).
 */
#include "ranks.h"

#include "family.h"
#include "shared/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST_MS = 250,  /* from one look to the next, at first */
    SPREAD = 8,      /* later: this part of the time since the start */
    LAST_MS = 60000, /* and at most: a look reads every mapping of the task */
};

/* MPICH, Intel MPI, MVAPICH, Open MPI, Cray MPICH; PMI-1, PMI-2, PMIx; NVSHMEM's bootstraps. */
static const char *const LIBRARIES[] = {"libmpi.",
                                        "libmpi_",
                                        "libmpi-",
                                        "libmpich",
                                        "libmpicxx",
                                        "libmpifort",
                                        "libpmi",
                                        "nvshmem_bootstrap_mpi",
                                        "nvshmem_bootstrap_pmi"};
/* Of mpiexec and mpirun on each node: their ranks are below them. */
static const char *const DAEMONS[] = {"hydra_pmi_proxy", "hydra_bstrap_proxy", "orted", "prted"};

static bool pmi_environment(void) {
    static const char *const NAMES[] = {"PMI_RANK", "PMI_FD", "PMI_ID", "PMIX_RANK",
                                        "PMIX_NAMESPACE"};
    for (size_t index = 0; index < sizeof(NAMES) / sizeof(NAMES[0]); index++)
        if (getenv(NAMES[index]))
            return true;
    return false;
}

static int watch(void) {
    const char *text = getenv("PMI_FD");
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    long fd = -1;
    int domain = 0;
    socklen_t size = sizeof(domain);
    if (!text || !mpsr_number(text, 0, INT_MAX, &fd) ||
        getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) || domain != AF_UNIX)
        return -1;
    int wire = epoll_create1(EPOLL_CLOEXEC);
    if (wire < 0)
        return -1;
    if (epoll_ctl(wire, EPOLL_CTL_ADD, (int)fd, &event)) {
        close(wire);
        return -1;
    }
    epoll_wait(wire, &event, 1, 0); /* that there is room now is no news */
    return wire;
}

void ranks_prepare(struct ranks *ranks, const char *wish) {
    memset(ranks, 0, sizeof(*ranks));
    ranks->wire = -1;
    ranks->mpi = !strcmp(wish, "together");
    ranks->fixed = ranks->mpi || !strcmp(wish, "independent");
    if (ranks->fixed)
        return;
    ranks->wired = pmi_environment();
    ranks->wire = watch();
}

void ranks_begin(struct ranks *ranks, long long now) {
    if (ranks->fixed || ranks->began)
        return;
    ranks->began = now;
    ranks->look_at = now + FIRST_MS;
}

bool ranks_together(const struct ranks *ranks) {
    return ranks->mpi || (ranks->wired && !ranks->settled);
}

/* Once it is, it stays so: what has met others cannot do it again. */
static void is_mpi(struct ranks *ranks) {
    ranks->mpi = true;
    ranks->look_at = 0;
    if (ranks->wire >= 0)
        close(ranks->wire);
    ranks->wire = -1;
}

void ranks_listen(struct ranks *ranks) {
    struct epoll_event event;
    if (ranks->wire >= 0 && epoll_wait(ranks->wire, &event, 1, 0) > 0)
        is_mpi(ranks);
}

static bool begins(const char *name, const char *const *words, size_t count) {
    for (size_t index = 0; index < count; index++)
        if (!strncmp(name, words[index], strlen(words[index])))
            return true;
    return false;
}

/* A process that may not be looked at, or is just ending, shows nothing. */
static void look_into(pid_t pid, bool *mpi, bool *driver) {
    char path[32], line[PATH_MAX + 128];
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        const char *slash = strrchr(line, '/'), *name = slash ? slash + 1 : "";
        *mpi |= begins(name, LIBRARIES, sizeof(LIBRARIES) / sizeof(LIBRARIES[0])) ||
                begins(name, DAEMONS, sizeof(DAEMONS) / sizeof(DAEMONS[0]));
        *driver |= !strncmp(name, "libcuda.so", strlen("libcuda.so"));
    }
    if (file)
        fclose(file);
}

void ranks_look(struct ranks *ranks, pid_t root, long long now) {
    static struct family family;
    bool mpi = false, driver = false;
    if (ranks->fixed || ranks->mpi)
        return;
    family.count = 0;
    family_gather(&family, root);
    for (int index = 0; index < family.count && !mpi; index++)
        look_into(family.member[index].pid, &mpi, &driver);
    ranks->settled |= driver;
    long long pause = (now - ranks->began) / SPREAD;
    ranks->look_at = now + (pause < FIRST_MS ? FIRST_MS : pause > LAST_MS ? LAST_MS : pause);
    if (mpi)
        is_mpi(ranks);
}
