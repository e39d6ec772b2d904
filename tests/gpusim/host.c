/* The simulated host: reads $SIMGPU_DIR/host.conf, picks the visible GPUs, writes what a driver
 * would log.
 *
 * Relies on tests/gpusim/host.py, which prepares the directory. A broken file is one line on stderr
 * and false: the libraries then answer like a machine without a GPU. kmsg and events are appended
 * with one write(2) a line, so that lines of many processes never mix; a log that cannot be written
 * is said on stderr and otherwise ignored, as a driver would.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

void sim_say(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof line - 1 ? (size_t)n : sizeof line - 2;
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0)
        return;
}

void sim_sleep_ms(int ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

uint64_t sim_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool number(const char *text, long long low, long long high, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *out >= low && *out <= high;
}

static bool parse_uuid(struct sim_gpu *gpu, const char *text) {
    if (strncmp(text, "GPU-", 4) != 0 || strlen(text) != 40)
        return false;
    size_t digits = 0;
    for (const char *p = text + 4; *p != '\0'; p++) {
        const size_t at = (size_t)(p - text - 4);
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            if (*p != '-')
                return false;
            continue;
        }
        const char *hex = "0123456789abcdef";
        const char *digit = strchr(hex, *p);
        if (digit == NULL)
            return false;
        unsigned char *byte = &gpu->uuid_bytes[digits++ / 2];
        *byte = (unsigned char)(*byte << 4 | (digit - hex));
    }
    memcpy(gpu->uuid, text, 41);
    return true;
}

static bool gpu_word(struct sim_gpu *gpu, const char *key, const char *value) {
    long long n;
    if (strcmp(key, "gpu") == 0) {
        if (!number(value, 0, 255, &n))
            return false;
        gpu->minor = (int)n;
    } else if (strcmp(key, "uuid") == 0) {
        return parse_uuid(gpu, value);
    } else if (strcmp(key, "memory") == 0) {
        if (!number(value, 2, 1000000, &n))
            return false;
        gpu->memory = (uint64_t)n << 20;
    } else if (strcmp(key, "name") == 0) {
        snprintf(gpu->name, sizeof gpu->name, "%s", value);
        for (char *p = gpu->name; *p != '\0'; p++)
            if (*p == '_')
                *p = ' ';
    } else if (strcmp(key, "bus") == 0) {
        unsigned function;
        char end;
        if (strlen(value) != 12 || sscanf(value, "%x:%x:%x.%u%c", &gpu->domain, &gpu->bus,
                                          &gpu->device, &function, &end) != 4)
            return false;
        snprintf(gpu->bus_id, sizeof gpu->bus_id, "%s", value);
    } else if (strcmp(key, "compute_mode") == 0) {
        if (!number(value, 0, 3, &n))
            return false;
        gpu->compute_mode = (int)n;
    } else if (strcmp(key, "recovery_action") == 0) {
        if (!number(value, 0, 7, &n))
            return false;
        gpu->recovery_action = (int)n;
    }
    return true; /* keys for others are none of our business */
}

static bool host_word(struct sim_host *host, const char *key, const char *value) {
    const struct {
        const char *key;
        int *to;
    } numbers[] = {
        {"cuda", &host->cuda},   {"context_ms", &host->context_ms}, {"cuinit_ms", &host->cuinit_ms},
        {"guard", &host->guard}, {"assert_xid", &host->assert_xid},
    };
    if (strcmp(key, "driver") == 0)
        snprintf(host->driver, sizeof host->driver, "%s", value);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        long long n;
        if (strcmp(key, numbers[i].key) != 0)
            continue;
        if (!number(value, 0, 1000000, &n))
            return false;
        *numbers[i].to = (int)n;
    }
    return true;
}

static bool parse_line(struct sim_host *host, char *line) {
    struct sim_gpu *gpu = NULL;
    char *rest;
    for (char *word = strtok_r(line, " \t\n", &rest); word != NULL;
         word = strtok_r(NULL, " \t\n", &rest)) {
        if (word[0] == '#')
            break;
        char *equals = strchr(word, '=');
        if (equals == NULL)
            return false;
        *equals = '\0';
        if (strcmp(word, "gpu") == 0) {
            if (host->gpus == SIM_MAX_GPUS || gpu != NULL)
                return false;
            gpu = &host->gpu[host->gpus++];
        }
        if (!(gpu != NULL ? gpu_word(gpu, word, equals + 1) : host_word(host, word, equals + 1)))
            return false;
    }
    return gpu == NULL || (gpu->uuid[0] != '\0' && gpu->memory != 0 && gpu->bus_id[0] != '\0');
}

bool sim_host_load(struct sim_host *host) {
    const char *dir = getenv("SIMGPU_DIR");
    *host = (struct sim_host){.driver = "580.159.04", .cuda = 13000};
    if (dir == NULL || dir[0] == '\0')
        return false; /* no GPU here: silent, like a driver without one */
    if (strlen(dir) >= sizeof host->dir) {
        sim_say("simgpu: SIMGPU_DIR: longer than %zu bytes: %.60s…", sizeof host->dir - 1, dir);
        return false;
    }
    snprintf(host->dir, sizeof host->dir, "%s", dir);
    char path[256];
    snprintf(path, sizeof path, "%s/host.conf", dir);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        sim_say("simgpu: %s: cannot be read: %s", path, strerror(errno));
        return false;
    }
    char line[512];
    bool good = true;
    int lines = 0;
    while (good && fgets(line, sizeof line, file) != NULL) {
        lines++;
        good = parse_line(host, line);
    }
    fclose(file);
    if (!good)
        sim_say("simgpu: %s: line is not understood: %d", path, lines);
    else if (host->gpus == 0)
        sim_say("simgpu: %s: names no GPU: %d lines", path, lines);
    return good && host->gpus > 0;
}

int sim_number(const struct sim_host *host, const char *key, int fallback) {
    char path[256], line[256], name[64];
    long value;
    snprintf(path, sizeof path, "%s/inject", host->dir);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "set %63s %ld", name, &value) == 2 && strcmp(name, key) == 0)
            fallback = (int)value;
    if (file != NULL)
        fclose(file);
    return fallback;
}

int sim_visible(const struct sim_host *host, const char *list, const int *from, int n, int *out) {
    if (list == NULL) {
        memcpy(out, from, (size_t)n * sizeof *out);
        return n;
    }
    int found = 0;
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", list);
    char *rest;
    for (char *word = strtok_r(copy, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        long long ordinal;
        int hit = -1;
        while (*word == ' ')
            word++;
        if (number(word, 0, n - 1, &ordinal))
            hit = from[ordinal];
        for (int i = 0; hit < 0 && i < n && strlen(word) > 4; i++)
            if (strncmp(host->gpu[from[i]].uuid, word, strlen(word)) == 0)
                hit = from[i];
        for (int i = 0; i < found; i++)
            if (out[i] == hit)
                return 0; /* a GPU named twice: the driver shows none at all */
        if (hit < 0 || found == SIM_MAX_GPUS)
            break;
        out[found++] = hit;
    }
    return found;
}

static void append(const struct sim_host *host, const char *name, const char *line) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", host->dir, name);
    const int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, line, strlen(line)) < 0)
        sim_say("simgpu: %s: cannot be written: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static _Atomic pid_t known_as; /* 0: nobody outside has told */

pid_t sim_pid(void) {
    const pid_t pid = known_as;
    return pid != 0 ? pid : getpid();
}

void sim_known_as(pid_t pid) {
    known_as = pid;
}

void sim_log_xid(const struct sim_host *host, const struct sim_gpu *gpu, int xid,
                 const char *text) {
    char name[32] = "unknown", line[512];
    const int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t n = read(fd, name, sizeof name - 1);
        if (n > 0)
            name[name[n - 1] == '\n' ? n - 1 : n] = '\0';
        close(fd);
    }
    char bus[24];
    snprintf(bus, sizeof bus, "%.10s", gpu->bus_id); /* the driver prints no function number */
    snprintf(line, sizeof line, "NVRM: Xid (PCI:%s): %d, pid=%d, name=%s, %s\n", bus, xid,
             sim_pid(), name, text);
    append(host, "kmsg", line);
    snprintf(line, sizeof line, "%" PRIu64 " %d %d %d\n", sim_now_ns(), gpu->minor, xid, sim_pid());
    append(host, "events", line);
}
