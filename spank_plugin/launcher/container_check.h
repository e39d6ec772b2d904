/* Does what the task has started know its pipe directory, and see it? A container may not show it,
 * a container, `env -i` or an old script not hand the environment on, and CUDA then runs outside
 * MPS without a word: so we say it.
 *
 * Looked at a few times after the start, as an image may take its time, and each minute later; said
 * once, of a process that was found so twice, as a container that is just being made sees nothing
 * at all. Without a container only a process that has loaded CUDA counts. Nobody is ended: not
 * every process computes.
 */
#ifndef MPSR_SIGHT_H
#define MPSR_SIGHT_H

#include "task.h"

#include <stdbool.h>
#include <sys/types.h>

struct sight {
    long long began;   /* 0: not yet */
    long long look_at; /* 0: no more */
    pid_t suspect;
};

void sight_begin(struct sight *sight, long long now);
/* `root` is the task's process, `pipe` its pipe directory. */
void sight_look(struct sight *sight, const struct task *task, pid_t root, const char *pipe,
                long long now);

#endif
