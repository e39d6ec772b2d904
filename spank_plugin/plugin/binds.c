/* APPTAINER_BIND and SINGULARITY_BIND of a job that asked: our directories are added to what the
 * user wants to see in containers that the task starts. Without the runtime directory the pipe
 * directory is missing there, and CUDA runs outside MPS without a word; the supervisor's directory
 * has the library that ends a process's MPS clients before a signal ends the process.
 *
 * A variable that is unset begins as the other one: Apptainer reads the old name only where the new
 * one is not set, and says so on standard error when they differ.
 */
#include "plugin.h"
#include "shared/text.h"

#include <stdio.h>
#include <string.h>

static const char *const NAMES[] = {"APPTAINER_BIND", "SINGULARITY_BIND"};
enum { BINDS = 2, BIND_BYTES = 65536 }; /* half of what Linux lets one variable have */

/* `element` or `element:…` among those that commas part; NULL when it is not there. */
static char *find(char *list, const char *element) {
    size_t length = strlen(element);
    for (char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, element, length) && strchr(",:", at[length]))
            return at; /* strchr finds the end of the text, too */
    return NULL;
}

static void add(spank_t spank, const char *directory) {
    static char value[BINDS][BIND_BYTES], more[BIND_BYTES];
    bool set[BINDS];
    for (int index = 0; index < BINDS; index++) {
        spank_err_t answer = spank_getenv(spank, NAMES[index], value[index], BIND_BYTES);
        if (answer == ESPANK_NOSPACE) {
            slurm_error(MPSR_TAG ": %s: too long to add %s to it", NAMES[index], directory);
            return;
        }
        set[index] = answer == ESPANK_SUCCESS && *value[index];
    }
    for (int index = 0; index < BINDS; index++) {
        char *own = set[index] ? value[index] : value[1 - index];
        bool any = set[index] || set[1 - index];
        if (any && find(own, directory))
            mpsr_copy(more, sizeof(more), own);
        else if (!mpsr_format(more, sizeof(more), "%s%s%s", any ? own : "", any ? "," : "",
                              directory))
            continue;
        spank_setenv(spank, NAMES[index], more, 1);
    }
}

static void withdraw(spank_t spank, const char *directory) {
    static char value[BIND_BYTES];
    for (int index = 0; index < BINDS; index++) {
        char *at = NULL;
        if (spank_getenv(spank, NAMES[index], value, sizeof(value)) != ESPANK_SUCCESS ||
            !(at = find(value, directory)))
            continue;
        char *rest = strchr(at, ',');
        if (rest)
            memmove(at, rest + 1, strlen(rest));
        else
            *(at == value ? at : at - 1) = '\0';
        if (*value)
            spank_setenv(spank, NAMES[index], value, 1);
        else
            spank_unsetenv(spank, NAMES[index]);
    }
}

/* Of the supervisor: the library lies beside it. */
static const char *library_directory(void) {
    static char path[MPSR_LEASE_PATH];
    mpsr_copy(path, sizeof(path), mpsr_plugin.site.launcher);
    *strrchr(path, '/') = '\0'; /* it is absolute */
    return path;
}

void mpsr_binds_add(spank_t spank) {
    add(spank, mpsr_plugin.site.run);
    if (*library_directory())
        add(spank, library_directory());
}

void mpsr_binds_remove(spank_t spank) {
    withdraw(spank, mpsr_plugin.site.run);
    if (*library_directory())
        withdraw(spank, library_directory());
}
