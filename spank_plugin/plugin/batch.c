/* What a batch script gets beside the environment of MPS: the command `mpsr` on its PATH, after all
 * that its user has there, and a line when it starts its programs in a way that nobody recovers, or
 * cannot use all GPUs of the job. A script of which not all can be read is left alone.
 */
#include "plugin.h"
#include "script.h"
#include "shared/text.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 65536, SCRIPT_BYTES = 262144 };

/* `directory` is an element of `list`. */
static bool listed(const char *list, const char *directory) {
    size_t length = strlen(directory);
    for (const char *at = list; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL)
        if (!strncmp(at, directory, length) && strchr(":", at[length]))
            return true; /* strchr finds the end of the text, too */
    return false;
}

static void add_to_path(spank_t spank) {
    static char path[PATH_BYTES], more[PATH_BYTES + MPSR_LEASE_PATH];
    char directory[MPSR_LEASE_PATH];
    mpsr_copy(directory, sizeof(directory), mpsr_plugin.site.mpsr);
    char *last = strrchr(directory, '/');
    if (!last || last == directory)
        return;
    *last = '\0';
    if (spank_getenv(spank, "PATH", path, sizeof(path)) == ESPANK_SUCCESS && *path &&
        !listed(path, directory) && mpsr_format(more, sizeof(more), "%s:%s", path, directory))
        spank_setenv(spank, "PATH", more, 1);
}

static bool read_script(const char *path, char text[SCRIPT_BYTES]) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t length = 0, more = 0;
    while (fd >= 0 && length < SCRIPT_BYTES &&
           (more = read(fd, text + length, (size_t)(SCRIPT_BYTES - length))) > 0)
        length += more;
    if (fd < 0)
        return false;
    close(fd);
    if (more < 0 || length == SCRIPT_BYTES)
        return false;
    text[length] = '\0';
    return true;
}

void mpsr_batch_script(spank_t spank, bool script, int unseen) {
    static char text[SCRIPT_BYTES];
    int count = 0;
    char **arguments = NULL;
    add_to_path(spank);
    if (!script || !mpsr_plugin.site.hint ||
        spank_get_item(spank, S_JOB_ARGV, &count, &arguments) != ESPANK_SUCCESS || count < 1 ||
        !read_script(arguments[0], text))
        return;
    bool mpiexec = mpsr_script_mpiexec(text), supervised = mpsr_script_supervised(text);
    if (!supervised)
        slurm_error(MPSR_TAG ": batch script: its programs run under MPS, but a program without "
                             "resilience.session() is not recovered after a fault (put srun, or "
                             "mpsr run, before it)");
    if (unseen && mpiexec)
        slurm_error(MPSR_TAG ": batch script: ranks of mpiexec share one of the job's %d GPUs on "
                             "each node (mpsr run before their program: each has the GPU of its "
                             "place; sbatch --mps-servers=job: each sees all)",
                    unseen + 1);
    else if (unseen && !supervised)
        slurm_error(MPSR_TAG ": batch script: its programs see one of the job's %d GPUs, which "
                             "have MPS servers of their own (sbatch --mps-servers=job: one over "
                             "all of them)",
                    unseen + 1);
}
