/* The lease of a job on this node (docs/reference/protocols.md §3): reading it, and deciding
 * whether to trust the file.
 *
 * Trusted is a regular file that root owns and nobody else may write, below directories of which
 * the same is true (a directory others may write is accepted with the sticky bit, as in munge:
 * nobody can then replace root's entries in it). In a user namespace of one user (a rootless
 * container) root is seen as nobody, and the tree above is the user's own: trusted is then a file
 * that he neither owns nor may write. Whoever reads it there has the user's rights and no more.
 */
#ifndef MPSR_LEASE_H
#define MPSR_LEASE_H

#include "options.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    MPSR_LEASE_BYTES = 65536, /* four paths as long as may be, each byte as %XX, and 64 GPUs */
    MPSR_LEASE_GPUS = 64,     /* more than any node has */
    MPSR_LEASE_PATH = PATH_MAX,
    MPSR_LEASE_WORD = 256,
    MPSR_LEASE_SLOTS = 64, /* SM partitions of a GPU: more chunks than any has */
};

struct mpsr_lease_gpu {
    long minor;
    long number; /* Slurm's own, as SLURM_STEP_GPUS has it; -1: not known */
    char uuid[MPSR_VALUE_BYTES];
};

struct mpsr_lease_slot {
    long minor;
    long slot; /* which of a server's SM partitions is the job's, counted from 1 */
};

struct mpsr_lease {
    long job;
    uid_t uid;
    bool open;
    bool without; /* no GPU, and MPS is a default alone: as without us unless asked */
    char reason[MPSR_LEASE_PATH];
    struct mpsr_options options;
    char node[MPSR_LEASE_WORD];
    char domain[MPSR_LEASE_WORD];
    char isolation[MPSR_LEASE_WORD];
    char colors[MPSR_LEASE_WORD];
    char run[MPSR_LEASE_PATH];
    char agent[MPSR_LEASE_PATH];
    char python[MPSR_LEASE_PATH];
    char spill[MPSR_LEASE_PATH];
    char partition[MPSR_LEASE_WORD]; /* Slurm's, whose rules hold; empty: not known */
    int slots;                       /* 0: the job has no SM partitions */
    struct mpsr_lease_slot slot[MPSR_LEASE_GPUS];
    int numbers; /* as many as there are GPUs, or 0 */
    int gpus;
    struct mpsr_lease_gpu gpu[MPSR_LEASE_GPUS];
};

enum mpsr_lease_answer {
    MPSR_LEASE_OK,
    MPSR_LEASE_ABSENT,
    MPSR_LEASE_HIDDEN, /* not even the directory of leases is there: a container without it */
    MPSR_LEASE_BAD,
};

/* `text` is taken apart in place. False: `why` names the line or the key. */
bool mpsr_lease_parse(char *text, struct mpsr_lease *lease, char why[MPSR_WHY_BYTES]);

/* Read, trust and parse the file; whatever is not MPSR_LEASE_OK is explained in `why`. */
enum mpsr_lease_answer mpsr_lease_load(const char *path, struct mpsr_lease *lease,
                                       char why[MPSR_WHY_BYTES]);

/* Is one pair of servers over all GPUs of the job, so that a task can use several of them? */
bool mpsr_lease_together(const struct mpsr_lease *lease);

/* Colour of the server that new tasks of this GPU join, from the `active` file; false when it
 * cannot be told. */
bool mpsr_lease_active(const struct mpsr_lease *lease, int gpu, char color[MPSR_VALUE_BYTES]);

/* What CUDA_MPS_SM_PARTITION is to be on one colour's server: the job's partition there. Empty
 * where the job has none, and on a quarantine server, which has no partitions. False when it cannot
 * be told: the server is not there, or was never cut. */
bool mpsr_lease_partition(const struct mpsr_lease *lease, int gpu, const char *color,
                          char partition[MPSR_LEASE_WORD]);

/* Pipe directory of one colour of one of the lease's GPUs. */
bool mpsr_lease_pipe(const struct mpsr_lease *lease, int gpu, const char *color,
                     char pipe[MPSR_LEASE_PATH]);

#endif
