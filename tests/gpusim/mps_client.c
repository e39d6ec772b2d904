/* A process as client of a simulated MPS server.
 *
 * cuInit asks the control daemon at $CUDA_MPS_PIPE_DIRECTORY/control for a server and attaches to
 * that. Nobody listening means no MPS, silently, as with the real driver; a daemon that says
 * nothing for 2 s is error 805. The server hands over one page that all its clients map: the
 * faulting client writes the sticky error there (the GPU and the kernel driver do that on hardware)
 * and every other client sees it at its next call.
 *
 * Two threads serve an attached client: one reads the server's connection (`terminate` → 810, end
 * of the connection → 806), one sleeps on the page and interrupts this client's work when the
 * sticky error appears. Messages: text packets, a verb and key=value words; the other side is the
 * simulated MPS of this directory.
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define CONTROL_PATIENCE_MS                                                                        \
    2000 /* no answer of the control daemon for this long is a failed connection */
#define SERVER_PATIENCE_MS 10000 /* the server may still be building contexts */
#define PAGE_BYTES 4096
#define WATCH_AGAIN_S                                                                              \
    1 /* a server that cannot wake us is noticed after this long even when we wait for nothing */

static struct {
    int fd;
    struct sim_shared_page *page;
    char limits[256]; /* `<ordinal>:<bytes>,…` of the server, which counts its own GPUs */
    int minors[SIM_MAX_GPUS], n_minors, slot;
} mps = {.fd = -1};

uint32_t mps_sticky(void) {
    const struct sim_shared_page *page = mps.page;
    if (page == NULL)
        return 0;
    const uint32_t sticky = atomic_load_explicit(&page->sticky, memory_order_relaxed);
    const uint32_t hurt = mps_hurt();
    return sticky != 0 ? sticky : hurt > SIM_WRONG_BYTES ? hurt : 0;
}

void mps_work(int more) {
    if (mps.page != NULL)
        atomic_fetch_add(&mps.page->client[mps.slot].busy, more);
}

uint32_t mps_hurt(void) {
    const struct sim_shared_page *page = mps.page;
    return page == NULL ? SIM_UNHURT
                        : atomic_load_explicit(&page->client[mps.slot].hurt, memory_order_relaxed);
}

uint64_t mps_limit(int gpu) {
    int ordinal = -1;
    for (int i = 0; i < mps.n_minors; i++)
        if (mps.minors[i] == sim.host.gpu[gpu].minor)
            ordinal = i;
    for (const char *at = mps.limits; at != NULL && *at != '\0'; at = strchr(at, ',')) {
        unsigned long long bytes;
        int which;
        at += *at == ',';
        if (sscanf(at, "%d:%llu", &which, &bytes) == 2 && which == ordinal)
            return bytes;
    }
    return UINT64_MAX;
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The value of ` key=` in a message, up to the next blank. */
static bool word(const char *message, const char *key, char *value, size_t size) {
    const size_t n = strlen(key);
    for (const char *at = message; (at = strchr(at, ' ')) != NULL;) {
        at++;
        if (strncmp(at, key, n) != 0 || at[n] != '=')
            continue;
        const size_t length = strcspn(at + n + 1, " \n");
        if (length == 0 || length >= size)
            return false;
        memcpy(value, at + n + 1, length);
        value[length] = '\0';
        return true;
    }
    return false;
}

static bool verb(const char *message, const char *expected) {
    const size_t n = strlen(expected);
    return strncmp(message, expected, n) == 0 && (message[n] == ' ' || message[n] == '\0');
}

/* Sends a line and reads the answer, with a descriptor if one comes along. False: no answer. */
static bool talk(int fd, const char *line, int patience_ms, char *answer, size_t size,
                 int *passed) {
    char space[CMSG_SPACE(sizeof(int))];
    struct iovec vector = {.iov_base = answer, .iov_len = size - 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    *passed = -1;
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        return false;
    int n;
    do
        n = poll(&ready, 1, patience_ms);
    while (n < 0 && errno == EINTR);
    const ssize_t length = n == 1 ? recvmsg(fd, &message, MSG_CMSG_CLOEXEC) : -1;
    if (length <= 0)
        return false;
    answer[length] = '\0';
    const struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    if (control != NULL && control->cmsg_type == SCM_RIGHTS)
        memcpy(passed, CMSG_DATA(control), sizeof *passed);
    return true;
}

/* The error in a refusal, or 805 for an answer that nobody understands. */
static CUresult refusal(const char *answer) {
    char value[16];
    const int code =
        verb(answer, "error") && word(answer, "code", value, sizeof value) ? atoi(value) : 0;
    return code > 0 ? code : CUDA_ERROR_MPS_CONNECTION_FAILED;
}

static void *read_server(void *unused) {
    char message[512];
    (void)unused;
    for (;;) {
        const ssize_t n = recv(mps.fd, message, sizeof message - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        message[n] = '\0';
        if (!verb(message, "terminate"))
            continue;
        sim_set_sticky(CUDA_ERROR_MPS_CLIENT_TERMINATED);
        send(mps.fd, "terminated", 10, MSG_NOSIGNAL);
    }
    sim_set_sticky(CUDA_ERROR_MPS_RPC_FAILURE);
    return NULL;
}

static void *watch_page(void *unused) {
    (void)unused;
    const struct timespec again = {.tv_sec = WATCH_AGAIN_S};
    while (mps_sticky() == 0)
        syscall(SYS_futex, &mps.page->sticky, FUTEX_WAIT, 0, &again, NULL, 0);
    sim_stop_work();
    return NULL;
}

static bool start_thread(void *(*body)(void *)) {
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all); /* the program's signals are for the program's threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int error = pthread_create(&thread, NULL, body, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error == 0)
        pthread_detach(thread);
    return error == 0;
}

static bool minors_of(const char *answer, int *minors, int *n) {
    char list[128], *rest;
    if (!word(answer, "minor", list, sizeof list))
        return false;
    *n = 0;
    for (char *one = strtok_r(list, ",", &rest); one != NULL && *n < SIM_MAX_GPUS;
         one = strtok_r(NULL, ",", &rest))
        minors[(*n)++] = atoi(one);
    return *n > 0;
}

static CUresult attach(const char *path, int *minors, int *n) {
    char line[160], answer[512], pid[16], slot[16];
    int page_fd;
    const int fd = dial(path);
    if (fd < 0)
        return CUDA_ERROR_MPS_CONNECTION_FAILED;
    /* CUDA_MPS_SM_PARTITION=<device UUID>/<partition ID>, which may have slashes of its own; the
     * server knows the ids of its GPUs */
    const char *joins = getenv("CUDA_MPS_SM_PARTITION");
    const char *slash = joins == NULL ? NULL : strchr(joins, '/');
    snprintf(line, sizeof line, "attach v=1 pid=%d partition=%.80s", getpid(),
             slash != NULL   ? slash + 1
             : joins != NULL ? joins
                             : "");
    CUresult result = CUDA_ERROR_MPS_CONNECTION_FAILED;
    struct sim_shared_page *page = MAP_FAILED;
    if (talk(fd, line, SERVER_PATIENCE_MS, answer, sizeof answer, &page_fd)) {
        if (!verb(answer, "attached") || !minors_of(answer, minors, n) || page_fd < 0)
            result = refusal(answer);
        else
            page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
        if (page_fd >= 0)
            close(page_fd);
    }
    if (page == MAP_FAILED || page->magic != SIM_PAGE_MAGIC ||
        !word(answer, "slot", slot, sizeof slot)) {
        close(fd);
        return result;
    }
    madvise(page, PAGE_BYTES, MADV_DONTFORK);
    mps.fd = fd;
    mps.slot = atoi(slot);
    mps.page = page;
    mps.n_minors = *n;
    memcpy(mps.minors, minors, sizeof mps.minors);
    if (!word(answer, "limits", mps.limits, sizeof mps.limits))
        mps.limits[0] = '\0';
    if (word(answer, "pid", pid, sizeof pid))
        sim_known_as(atoi(pid));
    return start_thread(read_server) && start_thread(watch_page) ? CUDA_SUCCESS
                                                                 : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult mps_attach(bool *on, int *minors, int *n) {
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char path[256], line[64], answer[512], server[256];
    int passed;
    *on = false;
    snprintf(path, sizeof path, "%s/control",
             dir == NULL || dir[0] == '\0' ? "/tmp/nvidia-mps" : dir);
    const int control = dial(path);
    if (control < 0)
        return CUDA_SUCCESS; /* nobody there: without MPS */
    snprintf(line, sizeof line, "client v=1 pid=%d", getpid());
    const bool answered = talk(control, line, CONTROL_PATIENCE_MS, answer, sizeof answer, &passed);
    close(control);
    if (passed >= 0)
        close(passed);
    if (!answered)
        return CUDA_ERROR_MPS_CONNECTION_FAILED;
    if (!verb(answer, "server") || !word(answer, "path", server, sizeof server))
        return refusal(answer);
    const CUresult result = attach(server, minors, n);
    *on = result == CUDA_SUCCESS;
    return result;
}

void mps_tell_fault(uint32_t code, int xid) {
    char line[64];
    uint32_t healthy = 0;
    if (atomic_load(&mps.page->sticky) == 0)
        atomic_store(&mps.page->culprit, sim_pid());
    if (atomic_compare_exchange_strong(&mps.page->sticky, &healthy, code))
        syscall(SYS_futex, &mps.page->sticky, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
    snprintf(line, sizeof line, "fault code=%u xid=%d pid=%d", code, xid, sim_pid());
    send(mps.fd, line, strlen(line), MSG_NOSIGNAL);
}

void mps_after_fork(void) {
    mps.page = NULL; /* not mapped in the child */
    sim_known_as(0);
    if (mps.fd >= 0)
        close(mps.fd);
}
