/* NVML's lists of processes: a locked file in procs/ is a process with a context on a GPU. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "sim_nvml.h"

struct nvml_process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

struct list {
    unsigned n;
    struct nvml_process *process;
};

static void add_used(void *with, pid_t pid, uint64_t bytes) {
    const struct list *all = with;
    for (unsigned index = 0; index < all->n; index++)
        if (all->process[index].pid == (unsigned)pid)
            all->process[index].used += bytes;
}

/* Processes with a context on the GPU, MPS clients or the others; `n` in: room, out: how many. */
static nvmlReturn_t processes(const struct sim_gpu *device, bool mps, unsigned *n,
                              struct nvml_process *list) {
    char path[240];
    unsigned found = 0;
    snprintf(path, sizeof path, "%s/procs", nvml_host.dir);
    DIR *entries = opendir(path);
    if (entries == NULL)
        return NVML_ERROR_UNKNOWN;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int minor;
        unsigned pid;
        char text[64] = "";
        if (sscanf(entry->d_name, "%d.%u", &minor, &pid) != 2 || minor != device->minor)
            continue;
        const int fd = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            unlinkat(dirfd(entries), entry->d_name, 0); /* its process has gone */
        } else if (read(fd, text, sizeof text - 1) > 0 && (strncmp(text, "mps=1", 5) == 0) == mps) {
            if (list != NULL && found < *n)
                list[found] = (struct nvml_process){.pid = pid,
                                                    .gpu_instance = NVML_NO_INSTANCE,
                                                    .compute_instance = NVML_NO_INSTANCE};
            found++;
        }
        close(fd);
    }
    closedir(entries);
    if (list != NULL)
        pool_each(&nvml_host, device->minor, add_used,
                  &(struct list){.n = found < *n ? found : *n, .process = list});
    const bool room = found <= *n && (list != NULL || found == 0);
    *n = found;
    return room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(const struct sim_gpu *device,
                                                                unsigned *n,
                                                                struct nvml_process *list) {
    NVML_CHECK(nvml_device_ok(device) && n != NULL);
    return processes(device, false, n, list);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(const struct sim_gpu *device,
                                                                   unsigned *n,
                                                                   struct nvml_process *list) {
    NVML_CHECK(nvml_device_ok(device) && n != NULL);
    return processes(device, true, n, list);
}
