/* The Python processes that serve one task: the keeper of its kept state, the spiller before a
 * requeue, and the wiper after the end.
 *
 * They are started on the first need, are ended with the supervisor, and are out of reach of the
 * signals that Slurm sends to the step. A keeper that dies is started anew, at most KEEPER_DEATHS
 * times in KEEPER_WINDOW_MS; then there is none, and the program goes on without the chance to be
 * restored.
 */
#ifndef MPSR_HELPERS_H
#define MPSR_HELPERS_H

#include "task.h"

enum {
    KEEPER_DEATHS = 5,
    KEEPER_WINDOW_MS = 60000, /* a keeper that dies five times a minute is broken, not unlucky */
    KEEPER_LOOK_MS = 20,      /* between two looks for its socket; it takes about 40 ms to appear */
    HELPER_LINE = 512,
};

/* Lines from a helper, put together from what has been read. */
struct lines {
    int fd; /* -1: none */
    size_t used;
    char text[HELPER_LINE];
};

struct keeper {
    pid_t pid; /* 0: none */
    bool wanted, up;
    int deaths;
    long long first_death, look_at;
    struct lines errors;
};

struct spiller {
    pid_t pid;
    long long seq; /* what is on disk; -1: nothing */
    struct lines answer;
};

/* Their interpreter. */
const char *helper_python(const struct task *task);

bool keeper_start(struct keeper *keeper, const struct task *task, long long now);
/* It has been reaped. False: it is not to be started again. */
bool keeper_died(struct keeper *keeper, long long now);
/* Has its socket appeared since the last look? */
bool keeper_appeared(struct keeper *keeper, const struct task *task, long long now);

bool spiller_start(struct spiller *spiller, const struct task *task, const char *pipe,
                   const char *partition);
/* What overwrites the kept state of a task that ended badly, on the server of `pipe`; 0: it cannot
 * be started. It writes nothing into `silent`. */
pid_t wiper_start(struct lines *silent, const struct task *task, const char *pipe,
                  const char *partition);
void spiller_line(struct spiller *spiller, const char *line);

/* Read what is there; calls `take` for each whole line. False at the end of the stream. */
bool lines_read(struct lines *lines, void (*take)(void *context, const char *line), void *context);
void lines_close(struct lines *lines);

#endif
