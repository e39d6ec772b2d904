/* What every driver function does first: refuse before cuInit and after fork, report the sticky
 * error, obey injected failures.
 *
 * The rules of $SIMGPU_DIR/inject are lines `fail <function> <n> <code>`: the n-th call (from 1,
 * counted per process) of that function returns the code and does nothing. The function may be
 * named with or without its _vN. The file is read at the first call and again, at most every 10 ms,
 * when it has changed; a line that is not understood is said once on stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

#define MAX_RULES 64
#define LOOK_EVERY_NS 10000000u

struct rule {
    char function[64];
    unsigned n;
    CUresult code;
};

static struct {
    pthread_mutex_t lock;
    struct rule rule[MAX_RULES];
    int rules;
    _Atomic int any; /* read without the lock: the common case is no rule at all */
    _Atomic uint64_t looked;
    struct timespec changed;
    off_t size;
} inject = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void read_rules(const char *path) {
    FILE *file = fopen(path, "re");
    char line[256];
    inject.rules = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        struct rule rule;
        char verb[16], rest[8];
        if (line[strspn(line, " \t\n")] == '\0' || line[0] == '#' || strncmp(line, "set ", 4) == 0)
            continue;
        if (sscanf(line, "%15s %63s %u %d %7s", verb, rule.function, &rule.n, &rule.code, rest) !=
                4 ||
            strcmp(verb, "fail") != 0 || inject.rules == MAX_RULES) {
            line[strcspn(line, "\n")] = '\0';
            sim_say("simgpu: %s: rule is not understood: %s", path, line);
            continue;
        }
        inject.rule[inject.rules++] = rule;
    }
    if (file != NULL)
        fclose(file);
}

/* Under the lock. */
static void look(void) {
    const char *dir = getenv("SIMGPU_DIR");
    char path[256];
    struct stat file;
    if (dir == NULL || strlen(dir) > 200)
        return;
    snprintf(path, sizeof path, "%s/inject", dir);
    if (stat(path, &file) < 0)
        memset(&file, 0, sizeof file);
    if (file.st_mtim.tv_sec == inject.changed.tv_sec &&
        file.st_mtim.tv_nsec == inject.changed.tv_nsec && file.st_size == inject.size)
        return;
    inject.changed = file.st_mtim;
    inject.size = file.st_size;
    read_rules(path);
    atomic_store(&inject.any, inject.rules);
}

static bool names(const char *rule, const char *function) {
    const size_t n = strlen(rule);
    return strncmp(rule, function, n) == 0 &&
           (function[n] == '\0' ||
            (function[n] == '_' && function[n + 1] == 'v' && function[n + 3] == '\0'));
}

static CUresult injected(const struct sim_site *site, unsigned call) {
    const uint64_t now = sim_now_ns();
    const uint64_t looked = atomic_load(&inject.looked);
    if (looked != 0 && now - looked < LOOK_EVERY_NS && atomic_load(&inject.any) == 0)
        return CUDA_SUCCESS;
    CUresult code = CUDA_SUCCESS;
    pthread_mutex_lock(&inject.lock);
    if (looked == 0 || now - looked >= LOOK_EVERY_NS) {
        look();
        atomic_store(&inject.looked, now);
    }
    for (int i = 0; i < inject.rules; i++)
        if (inject.rule[i].n == call && names(inject.rule[i].function, site->name))
            code = inject.rule[i].code;
    pthread_mutex_unlock(&inject.lock);
    return code;
}

CUresult sim_enter(struct sim_site *site, enum sim_need need) {
    const unsigned call = atomic_fetch_add(&site->calls, 1) + 1;
    const int state = atomic_load_explicit(&sim.state, memory_order_acquire);
    if (need != NEED_NOTHING && state != SIM_READY)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (state != SIM_FORKED) { /* after fork another thread may have held the lock */
        const CUresult code = injected(site, call);
        if (code != CUDA_SUCCESS)
            return code;
    }
    return need == NEED_HEALTH ? sim_sticky() : CUDA_SUCCESS;
}
