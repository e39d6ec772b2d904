/* The supervisor's file, found from inside whatever container a task is put into.
 *
 * A plugin such as pyxis joins the container in task_init (earlier ones: in task_init_privileged),
 * before Slurm executes the task: the supervisor's path is then looked up in the image, which does
 * not have it. So its directory is held open from slurmstepd's start, before any container, and
 * argv[0] goes through that descriptor. Slurm's execve follows it to the node's own file; it is
 * closed by then (O_CLOEXEC). Relies on /proc in the container, and on a supervisor that needs no
 * library.
 */
#include "plugin.h"
#include "shared/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int directory = -1, trouble = 0;

void mpsr_launcher_hold(void) {
    char path[MPSR_LEASE_PATH];
    mpsr_copy(path, sizeof(path), mpsr_plugin.site.launcher);
    *strrchr(path, '/') = '\0'; /* it is absolute */
    directory = open(*path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 ||
        faccessat(directory, strrchr(mpsr_plugin.site.launcher, '/') + 1, X_OK, 0) != 0)
        trouble = errno;
}

char *mpsr_launcher_path(char line[2 * MPSR_WHY_BYTES]) {
    static char path[MPSR_LEASE_PATH + 32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d%s", directory,
             strrchr(mpsr_plugin.site.launcher, '/'));
    if (!trouble)
        return path;
    snprintf(line, 2 * MPSR_WHY_BYTES, MPSR_TAG ": supervisor: cannot be run: %.160s: %s",
             mpsr_plugin.site.launcher, strerror(trouble));
    return NULL;
}
