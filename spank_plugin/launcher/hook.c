/* See hook.h. */
#include "hook.h"

#include "shared/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char LIBRARY[] = "libmpsr-ending.so"; /* beside us */

/* `more` at the end of a list with colons. */
static void append(const char *name, const char *more) {
    static char list[2 * MPSR_LEASE_PATH];
    const char *own = getenv(name);
    if (!own || !*own)
        setenv(name, more, 1);
    else if (!strstr(own, more) && mpsr_format(list, sizeof(list), "%s:%s", own, more))
        setenv(name, list, 1);
}

void hook_environment(const struct task *task) {
    char path[MPSR_LEASE_PATH], file[MPSR_LEASE_PATH], socket[MPSR_LEASE_PATH];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *slash = NULL;
    if (length > 0) {
        path[length] = '\0';
        slash = strrchr(path, '/');
    }
    if (!slash)
        return;
    *slash = '\0';
    if (!mpsr_format(file, sizeof(file), "%s/%s", path, LIBRARY) || access(file, R_OK) ||
        strpbrk(file, ": ") || /* what the loader parts the list at */
        !mpsr_format(socket, sizeof(socket), "%s/e%ld.%ld", task->job_dir, task->step, task->rank))
        return;
    setenv(MPSR_ENV_ENDING_SOCKET, socket, 1);
    setenv(MPSR_ENV_ENDING_LIBRARY, file, 1);
    if (strcmp(task->options.value[MPSR_OPTION_ENDINGS], "safe") != 0)
        return;
    append("LD_PRELOAD", file);
    append("ASAN_OPTIONS", "verify_asan_link_order=0"); /* else it refuses any preloaded library */
}
