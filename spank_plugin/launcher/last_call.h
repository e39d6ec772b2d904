/* The last moment before Slurm's SIGKILL: a program that handles SIGTERM and goes on has its MPS
 * clients ended then, so that SIGKILL finds no work in flight.
 *
 * The agent says how long Slurm waits between the two signals (`kill_wait`, asked of Slurm). So
 * long after a SIGTERM, less LEAD_MS, we ask whether SIGKILL is to come at all (`kill_when`): a
 * user may have sent that SIGTERM, or Slurm as a warning of a preemption or of a time limit.
 * Without an answer nothing is ended. Only for programs that the client hook is for:
 * --mps-endings=safe, or a session.
 */
#ifndef MPSR_LAST_CALL_H
#define MPSR_LAST_CALL_H

#include "packet.h"

enum { LEAD_MS = 3000 }; /* before SIGKILL: to ask Slurm, then the control daemon */

struct last_call {
    long wait;      /* milliseconds from SIGTERM to SIGKILL; 0: not known */
    long long at;   /* when the agent is to be asked; 0: no SIGTERM */
    long long next; /* the same, for the last SIGTERM since; 0: none */
    int terms;      /* SIGTERMs so far */
    bool made;      /* the clients are ended: what the program suffers now is its end */
};

struct supervisor;

/* The agent's word `kill_wait`. */
void last_call_learn(struct supervisor *self, const struct words *words);
/* SIGTERM has come. */
void last_call_told(struct supervisor *self);
/* Ask, if it is time. */
void last_call_due(struct supervisor *self);
/* The agent's word `kill_in`. */
void last_call_answered(struct supervisor *self, const struct words *words);

#endif
