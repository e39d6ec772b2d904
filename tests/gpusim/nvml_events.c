/* NVML's events: the lines of the file `events`, which the simulated driver appends to, watched
 * with inotify. Only Xids, as nobody asks for others. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "sim_nvml.h"

#define EVENT_XID 0x8ull

struct nvml_event {
    struct sim_gpu *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct event_set {
    pthread_mutex_t lock;
    int file, watch;
    bool registered[SIM_MAX_GPUS];
    char line[128]; /* a line that is not complete yet */
    size_t length;
};

SIM_EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(const struct sim_gpu *device,
                                                         unsigned long long *types) {
    NVML_CHECK(nvml_device_ok(device) && types != NULL);
    *types = EVENT_XID;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetCreate(struct event_set **out) {
    char path[240];
    NVML_CHECK(out != NULL);
    struct event_set *set = calloc(1, sizeof *set);
    if (set == NULL)
        return NVML_ERROR_MEMORY;
    pthread_mutex_init(&set->lock, NULL);
    snprintf(path, sizeof path, "%s/events", nvml_host.dir);
    set->file = open(path, O_RDONLY | O_CLOEXEC);
    set->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (set->file < 0 || set->watch < 0 || inotify_add_watch(set->watch, path, IN_MODIFY) < 0) {
        sim_say("simgpu: %s: cannot be watched: %s", path, strerror(errno));
        if (set->file >= 0)
            close(set->file);
        if (set->watch >= 0)
            close(set->watch);
        free(set);
        return NVML_ERROR_UNKNOWN;
    }
    lseek(set->file, 0, SEEK_END); /* what happened before is not told */
    *out = set;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(const struct sim_gpu *device,
                                                 unsigned long long types, struct event_set *set) {
    NVML_CHECK(nvml_device_ok(device) && set != NULL);
    if ((types & ~EVENT_XID) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&set->lock);
    set->registered[device - nvml_host.gpu] = (types & EVENT_XID) != 0;
    pthread_mutex_unlock(&set->lock);
    return NVML_SUCCESS;
}

/* The next complete line of a registered GPU, if there is one now: `<ns> <minor> <xid> <pid>`. */
static bool next_event(struct event_set *set, struct nvml_event *event) {
    for (;;) {
        char byte;
        if (read(set->file, &byte, 1) != 1)
            return false;
        if (byte != '\n') {
            if (set->length < sizeof set->line - 1)
                set->line[set->length++] = byte;
            continue;
        }
        int minor;
        unsigned long long when, xid;
        set->line[set->length] = '\0';
        set->length = 0;
        if (sscanf(set->line, "%llu %d %llu", &when, &minor, &xid) != 3) {
            sim_say("simgpu: %s/events: line is not understood: %s", nvml_host.dir, set->line);
            continue;
        }
        for (int i = 0; i < nvml_host.gpus; i++)
            if (nvml_host.gpu[i].minor == minor && set->registered[i]) {
                *event = (struct nvml_event){
                    .device = &nvml_host.gpu[i], .type = EVENT_XID, .data = xid};
                event->gpu_instance = event->compute_instance = NVML_NO_INSTANCE;
                return true;
            }
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait_v2(struct event_set *set, struct nvml_event *event,
                                            unsigned timeout_ms) {
    char changes[4096];
    NVML_CHECK(set != NULL && event != NULL);
    const uint64_t end = sim_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        pthread_mutex_lock(&set->lock);
        const bool found = next_event(set, event);
        pthread_mutex_unlock(&set->lock);
        if (found)
            return NVML_SUCCESS;
        const uint64_t now = sim_now_ns();
        if (now >= end)
            return NVML_ERROR_TIMEOUT;
        struct pollfd changed = {.fd = set->watch, .events = POLLIN};
        const uint64_t left_ms = (end - now + 999999u) / 1000000u;
        if (poll(&changed, 1, left_ms > 0x7fffffffu ? 0x7fffffff : (int)left_ms) > 0)
            while (read(set->watch, changes, sizeof changes) > 0)
                ;
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetFree(struct event_set *set) {
    NVML_CHECK(set != NULL);
    close(set->file);
    close(set->watch);
    pthread_mutex_destroy(&set->lock);
    free(set);
    return NVML_SUCCESS;
}
