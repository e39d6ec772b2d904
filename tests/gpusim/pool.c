/* Physical GPU memory: a file each in $SIMGPU_DIR/mem/<minor>/, locked for as long as anybody holds
 * it.
 *
 * The lock (flock) belongs to the open file description, so it lives exactly as long as the last
 * descriptor, copy of it in a socket, or mapping, in whatever process, and also ends with SIGKILL.
 * A file whose lock can be had is therefore free memory. No daemon keeps the books and no crash can
 * falsify them.
 *
 * Every change and every count happens under the lock file .lock of the GPU: two processes can
 * never both take the last megabyte, and nobody takes a file that its creator has not locked yet
 * for a left-over. A file's last 4096 bytes say what it is; they are never mapped. The name begins
 * with the creator's pid: NVML counts memory by process from it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

#define TRAILER_BYTES 4096
#define TRAILER_MAGIC "simgpu memory 1"

struct trailer {
    char magic[16];
    uint64_t size;
    int32_t minor;
};

static int take_lock(const char *dir) {
    char path[256];
    snprintf(path, sizeof path, "%s/.lock", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            fchmod(fd, 0666); /* the umask must not shut other users out */
        else if (errno == EEXIST)
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    while (fd >= 0 && flock(fd, LOCK_EX) < 0)
        if (errno != EINTR) {
            close(fd);
            return -1;
        }
    return fd;
}

/* Under the lock: the files that somebody holds, with their maker and their bytes. */
static void each(const char *dir, void (*take)(void *, pid_t, uint64_t), void *with) {
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        struct stat file;
        if (entry->d_name[0] == '.')
            continue;
        const int fd = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(entries), entry->d_name,
                     0); /* of another user: stays, but counts nothing */
        else if (fstat(fd, &file) == 0 && file.st_size > TRAILER_BYTES)
            take(with, atoi(entry->d_name), (uint64_t)file.st_size - TRAILER_BYTES);
        close(fd);
    }
    closedir(entries);
}

static void add(void *sum, pid_t pid, uint64_t bytes) {
    (void)pid;
    *(uint64_t *)sum += bytes;
}

static uint64_t count(const char *dir) {
    uint64_t used = 0;
    each(dir, add, &used);
    return used;
}

void pool_each(const struct sim_host *host, int minor, void (*take)(void *, pid_t, uint64_t),
               void *with) {
    char dir[240];
    snprintf(dir, sizeof dir, "%s/mem/%d", host->dir, minor);
    const int lock = take_lock(dir);
    each(dir, take, with);
    if (lock >= 0)
        close(lock);
}

uint64_t pool_used(const struct sim_host *host, int minor) {
    uint64_t used = 0;
    pool_each(host, minor, add, &used);
    return used;
}

int pool_create(const struct sim_host *host, const struct sim_gpu *gpu, uint64_t size, int *out) {
    static _Atomic unsigned serial;
    char dir[240], path[300];
    snprintf(dir, sizeof dir, "%s/mem/%d", host->dir, gpu->minor);
    const int lock = take_lock(dir);
    if (lock < 0) {
        sim_say("simgpu: %s/.lock: cannot be locked: %s", dir, strerror(errno));
        return errno;
    }
    const uint64_t used = count(dir);
    int error = size > gpu->memory || used > gpu->memory - size ? ENOMEM : 0;
    int fd = -1;
    if (error == 0) {
        snprintf(path, sizeof path, "%s/%d.%u.%llx", dir, sim_pid(), atomic_fetch_add(&serial, 1),
                 (unsigned long long)sim_now_ns());
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        struct trailer trailer = {.magic = TRAILER_MAGIC, .size = size, .minor = gpu->minor};
        if (fd < 0 || fchmod(fd, 0644) < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ||
            ftruncate(fd, (off_t)(size + TRAILER_BYTES)) < 0 ||
            pwrite(fd, &trailer, sizeof trailer, (off_t)size) != (ssize_t)sizeof trailer) {
            error = errno == 0 ? EIO : errno;
            sim_say("simgpu: %s: cannot be created: %s", path, strerror(error));
            if (fd >= 0)
                close(fd);
            unlink(path);
        }
    }
    close(lock);
    *out = fd;
    return error;
}

int pool_describe(int fd, uint64_t *size, int *minor) {
    struct stat file;
    struct trailer trailer;
    if (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) || file.st_size <= TRAILER_BYTES ||
        pread(fd, &trailer, sizeof trailer, file.st_size - TRAILER_BYTES) !=
            (ssize_t)sizeof trailer ||
        memcmp(trailer.magic, TRAILER_MAGIC, sizeof trailer.magic) != 0 ||
        trailer.size != (uint64_t)file.st_size - TRAILER_BYTES)
        return EINVAL;
    *size = trailer.size;
    *minor = trailer.minor;
    return 0;
}
