/* Which of its job's GPUs a task has, in Slurm's order, and what CUDA is told of them.
 *
 * Slurm tells a task its GPUs twice: CUDA_VISIBLE_DEVICES counts among what the task may open
 * (ConstrainDevices) or among the node's GPUs, SLURM_STEP_GPUS always among the node's. Both name
 * the task's own since 22.05. Neither is there with --gpu-bind=none: the task has all of them.
 */
#ifndef MPSR_VISIBLE_H
#define MPSR_VISIBLE_H

#include "lease.h"

struct mpsr_visible {
    int count;
    int gpu[MPSR_LEASE_GPUS]; /* indices into lease.gpu */
};

enum { MPSR_VISIBLE_BYTES = MPSR_LEASE_GPUS * MPSR_VALUE_BYTES };

/* What Slurm gave, from `cuda` (CUDA_VISIBLE_DEVICES) and `slurm` (SLURM_STEP_GPUS); NULL: not set.
 * What names no GPU of the job is taken for all of them. */
void mpsr_visible_given(const struct mpsr_lease *lease, const char *cuda, const char *slurm,
                        struct mpsr_visible *visible);

/* What a process can have of that: all, or one of them where each GPU has servers of its own,
 * spread by local rank. */
void mpsr_visible_joined(const struct mpsr_lease *lease, long local, struct mpsr_visible *visible);

/* The UUIDs, with commas. */
void mpsr_visible_uuids(const struct mpsr_lease *lease, const struct mpsr_visible *visible,
                        char text[MPSR_VISIBLE_BYTES]);

/* Their places at their server, with commas. */
void mpsr_visible_places(const struct mpsr_visible *visible, char text[MPSR_VISIBLE_BYTES]);

/* CUDA_MPS_PINNED_DEVICE_MEM_LIMIT: `memory` MiB on each of them. */
void mpsr_visible_limits(const struct mpsr_visible *visible, const char *memory,
                         char text[MPSR_VISIBLE_BYTES]);

#endif
