/* A process together with all that it has started: a task is often a shell round the program, and
 * both have to go.
 *
 * Relies on /proc/<pid>/stat and, where the kernel has it, /proc/<pid>/task/<tid>/children: a node
 * may run thousands of processes that are none of ours. Processes are remembered with their start
 * time, so that a number used again is never signalled.
 */
#ifndef MPSR_FAMILY_H
#define MPSR_FAMILY_H

#include <stdbool.h>
#include <sys/types.h>

enum {
    FAMILY_MEMBERS = 512
}; /* beyond that Slurm's own cleanup at the end of the step has to do */

struct family {
    int count;
    struct {
        pid_t pid;
        unsigned long long starttime;
    } member[FAMILY_MEMBERS];
};

/* Field 22 of /proc/<pid>/stat, 0 when the process is gone. */
unsigned long long process_starttime(pid_t pid);

/* Add `root` and its descendants to the family. */
void family_gather(struct family *family, pid_t root);

/* Is it, or anything that it has started, stopped by a signal or a debugger? */
bool family_stopped(pid_t root);

bool family_has(const struct family *family, pid_t pid);

/* Add what members have started since. */
void family_complete(struct family *family);

/* No member lives any more. */
bool family_gone(const struct family *family);

/* SIGKILL every member that still lives, and all that they have started since. */
void family_kill(struct family *family);

#endif
