/* What the supervisor does, as data: for each state and each event one action and the state after
 * it.
 *
 * The table is total: a cell that does nothing says so. The supervisor (loop.c) supplies the
 * actions; an action may fail (a standby that is not ready cannot be promoted), then the cell's
 * other state holds. docs/reference/protocols.md §5, §6.
 *
 * No state waits for ever: each has a patience, which begins when it is entered, and ON_DEADLINE
 * leads from it to the task's end or to a state in which the program runs. Those end with the
 * program, which is Slurm's to limit.
 */
#ifndef MPSR_VERDICTS_H
#define MPSR_VERDICTS_H

enum state {
    PLACING,  /* no process yet; the agent is asked where to start */
    RUNNING,  /* the active process runs */
    ARMED,    /* as RUNNING, and the agent has said: promote when it reports a fault or goes */
    FAULTED,  /* the active process has reported a fault and waits for the verdict */
    ENDED,    /* the active process has gone badly; the verdict is awaited */
    ENDING,   /* the active process is to end by itself; the program is then started again */
    KILLED,   /* the same, and it has been sent SIGKILL: a driver may hold it even then */
    SPILLING, /* kept state is being written to disk */
    PARKED,   /* Slurm is to end this job and to start it again */
    FAILING,  /* nothing more will be done; the active process's exit is passed on */
    LEAVING,  /* it has gone; the agent still tells Slurm of this job, which must not end before */
    STATES
};

enum event {
    ON_PLACED,
    ON_REFUSED,
    ON_FAULT,
    ON_EXIT_OK,
    ON_EXIT_BAD,
    ON_EXIT_TOLD, /* ended by the very signal that Slurm has sent to the supervisor too */
    ON_NONE,
    ON_PROMOTE,
    ON_RESTORE,
    ON_RELAUNCH,
    ON_REQUEUE,
    ON_FAIL,
    ON_DEADLINE,
    ON_SPILLED,
    ON_TERM,     /* SIGTERM: Slurm ends the step, or a user signals it */
    ON_RELEASED, /* the agent has told Slurm what it had to */
    EVENTS
};

enum action {
    NOTHING,
    START,       /* on the server that the agent named */
    START_ALONE, /* on the active server; there is no agent */
    REFUSE,      /* say the reason, exit `refused` */
    ASK,         /* tell the agent, start the clock for its verdict */
    PROMOTE,
    END_NOW,  /* end the active process at once; one that is stopped, as soon as it goes on */
    LET_END,  /* give it time to end by itself, then end it */
    RESTART,  /* it has gone: start the program again */
    SPILL,    /* have kept state written to disk */
    PARK,     /* tell the agent that it is, wait for Slurm */
    TELL,     /* let the program raise its error */
    FAIL,     /* say the reason; tell a living program, else exit badly */
    LATE,     /* no step within the time: tell the agent */
    PASS,     /* exit as the active process did */
    LEAVE,    /* the same, unless the agent has asked us to stay a moment */
    GIVE_UP,  /* say why, exit `recovery_failed` */
    END_TERM, /* die by SIGTERM */
};

/* What a state waits for, and so how long (clock.c). */
enum patience {
    FOR_PROGRAM, /* as long as it runs; a deadline, if any, is the recovery's */
    FOR_PLACE,
    FOR_VERDICT,
    FOR_GRACE,
    FOR_KILL,
    FOR_SPILL,
    FOR_SLURM,
    FOR_ACCOUNT,
};

struct cell {
    enum action action;
    enum state next;
    enum state otherwise; /* when the action could not be done */
};

extern const struct cell verdict_table[STATES][EVENTS];
extern const enum patience verdict_patience[STATES];

#endif
