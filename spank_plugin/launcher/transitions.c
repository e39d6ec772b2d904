/* See transitions.h. A cell {ACTION, next, otherwise}; `stay` spells "nothing, and the state
 * remains".
 */
#include "transitions.h"

#define stay(state)                                                                                \
    { NOTHING, state, state }
#define leave(state)                                                                               \
    { LEAVE, state, LEAVING }
#define to(action, state)                                                                          \
    { action, state, state }
#define KILL                                                                                       \
    { END_NOW, KILLED, ENDING }
#define FAILED                                                                                     \
    { FAIL, FAILING, LEAVING }

const enum patience verdict_patience[STATES] = {
    [PLACING] = FOR_PLACE,   [RUNNING] = FOR_PROGRAM, [ARMED] = FOR_PROGRAM,
    [FAULTED] = FOR_VERDICT, [ENDED] = FOR_VERDICT,   [ENDING] = FOR_GRACE,
    [KILLED] = FOR_KILL,     [SPILLING] = FOR_SPILL,  [PARKED] = FOR_SLURM,
    [FAILING] = FOR_PROGRAM, [LEAVING] = FOR_ACCOUNT,
};

/* clang-format off */
const struct cell verdict_table[STATES][EVENTS] = {
    [PLACING] = {
        [ON_PLACED] = to(START, RUNNING),        [ON_REFUSED] = to(REFUSE, PLACING),
        [ON_FAULT] = stay(PLACING),              [ON_EXIT_OK] = stay(PLACING),
        [ON_EXIT_BAD] = stay(PLACING),           [ON_EXIT_TOLD] = stay(PLACING),
        [ON_NONE] = stay(PLACING),               [ON_PROMOTE] = stay(PLACING),
        [ON_RESTORE] = stay(PLACING),            [ON_RELAUNCH] = stay(PLACING),
        [ON_REQUEUE] = stay(PLACING),            [ON_FAIL] = stay(PLACING),
        [ON_DEADLINE] = to(START_ALONE, RUNNING), [ON_SPILLED] = stay(PLACING),
        [ON_TERM] = to(END_TERM, PLACING),       [ON_RELEASED] = stay(PLACING),
    },
    [RUNNING] = {
        [ON_PLACED] = stay(RUNNING),             [ON_REFUSED] = stay(RUNNING),
        [ON_FAULT] = to(ASK, FAULTED),           [ON_EXIT_OK] = leave(RUNNING),
        [ON_EXIT_BAD] = to(ASK, ENDED),          [ON_EXIT_TOLD] = to(PASS, RUNNING),
        [ON_NONE] = stay(RUNNING),               [ON_PROMOTE] = stay(ARMED),
        [ON_RESTORE] = KILL,      [ON_RELAUNCH] = to(LET_END, ENDING),
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(LATE, RUNNING),       [ON_SPILLED] = stay(RUNNING),
        [ON_TERM] = stay(RUNNING),               [ON_RELEASED] = stay(RUNNING),
    },
    [ARMED] = {
        [ON_PLACED] = stay(ARMED),               [ON_REFUSED] = stay(ARMED),
        [ON_FAULT] = {PROMOTE, RUNNING, FAULTED}, [ON_EXIT_OK] = leave(ARMED),
        [ON_EXIT_BAD] = {PROMOTE, RUNNING, ENDED}, [ON_EXIT_TOLD] = to(PASS, ARMED),
        [ON_NONE] = stay(RUNNING),               [ON_PROMOTE] = stay(ARMED),
        [ON_RESTORE] = KILL,      [ON_RELAUNCH] = to(LET_END, ENDING),
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(LATE, ARMED),         [ON_SPILLED] = stay(ARMED),
        [ON_TERM] = stay(ARMED),                 [ON_RELEASED] = stay(ARMED),
    },
    [FAULTED] = {
        [ON_PLACED] = to(ASK, FAULTED),          [ON_REFUSED] = stay(FAULTED),
        [ON_FAULT] = stay(FAULTED),              [ON_EXIT_OK] = leave(FAULTED),
        [ON_EXIT_BAD] = to(ASK, ENDED),          [ON_EXIT_TOLD] = to(PASS, FAULTED),
        [ON_NONE] = to(TELL, FAILING),           [ON_PROMOTE] = {PROMOTE, RUNNING, FAULTED},
        [ON_RESTORE] = KILL,      [ON_RELAUNCH] = KILL,
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(TELL, FAILING),       [ON_SPILLED] = stay(FAULTED),
        [ON_TERM] = stay(FAULTED),               [ON_RELEASED] = stay(FAULTED),
    },
    [ENDED] = {
        [ON_PLACED] = to(ASK, ENDED),            [ON_REFUSED] = leave(ENDED),
        [ON_FAULT] = stay(ENDED),                [ON_EXIT_OK] = stay(ENDED),
        [ON_EXIT_BAD] = stay(ENDED),             [ON_EXIT_TOLD] = stay(ENDED),
        [ON_NONE] = leave(ENDED),                [ON_PROMOTE] = {PROMOTE, RUNNING, ENDED},
        [ON_RESTORE] = to(RESTART, RUNNING),     [ON_RELAUNCH] = to(RESTART, RUNNING),
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = leave(ENDED),            [ON_SPILLED] = stay(ENDED),
        [ON_TERM] = to(PASS, ENDED),             [ON_RELEASED] = stay(ENDED),
    },
    [ENDING] = {
        [ON_PLACED] = stay(ENDING),              [ON_REFUSED] = stay(ENDING),
        [ON_FAULT] = KILL,        [ON_EXIT_OK] = leave(ENDING),
        [ON_EXIT_BAD] = to(RESTART, RUNNING),    [ON_EXIT_TOLD] = to(PASS, ENDING),
        [ON_NONE] = stay(ENDING),                [ON_PROMOTE] = {PROMOTE, RUNNING, ENDING},
        [ON_RESTORE] = KILL,      [ON_RELAUNCH] = stay(ENDING),
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = KILL,     [ON_SPILLED] = stay(ENDING),
        [ON_TERM] = to(END_TERM, ENDING),        [ON_RELEASED] = stay(ENDING),
    },
    [KILLED] = {
        [ON_PLACED] = stay(KILLED),              [ON_REFUSED] = stay(KILLED),
        [ON_FAULT] = stay(KILLED),               [ON_EXIT_OK] = leave(KILLED),
        [ON_EXIT_BAD] = to(RESTART, RUNNING),    [ON_EXIT_TOLD] = to(PASS, KILLED),
        [ON_NONE] = stay(KILLED),                [ON_PROMOTE] = {PROMOTE, RUNNING, KILLED},
        [ON_RESTORE] = stay(KILLED),             [ON_RELAUNCH] = stay(KILLED),
        [ON_REQUEUE] = to(SPILL, SPILLING),      [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(GIVE_UP, KILLED),     [ON_SPILLED] = stay(KILLED),
        [ON_TERM] = to(END_TERM, KILLED),        [ON_RELEASED] = stay(KILLED),
    },
    [SPILLING] = {
        [ON_PLACED] = stay(SPILLING),            [ON_REFUSED] = stay(SPILLING),
        [ON_FAULT] = stay(SPILLING),             [ON_EXIT_OK] = leave(SPILLING),
        [ON_EXIT_BAD] = stay(SPILLING),          [ON_EXIT_TOLD] = stay(SPILLING),
        [ON_NONE] = stay(SPILLING),              [ON_PROMOTE] = stay(SPILLING),
        [ON_RESTORE] = stay(SPILLING),           [ON_RELAUNCH] = stay(SPILLING),
        [ON_REQUEUE] = stay(SPILLING),           [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(PARK, PARKED),        [ON_SPILLED] = to(PARK, PARKED),
        [ON_TERM] = stay(SPILLING),              [ON_RELEASED] = stay(SPILLING),
    },
    [PARKED] = {
        [ON_PLACED] = to(PARK, PARKED),          [ON_REFUSED] = stay(PARKED),
        [ON_FAULT] = stay(PARKED),               [ON_EXIT_OK] = leave(PARKED),
        [ON_EXIT_BAD] = stay(PARKED),            [ON_EXIT_TOLD] = to(PASS, PARKED),
        [ON_NONE] = stay(PARKED),                [ON_PROMOTE] = {PROMOTE, RUNNING, PARKED},
        [ON_RESTORE] = KILL,      [ON_RELAUNCH] = to(LET_END, ENDING),
        [ON_REQUEUE] = to(PARK, PARKED),         [ON_FAIL] = FAILED,
        [ON_DEADLINE] = to(GIVE_UP, PARKED),     [ON_SPILLED] = stay(PARKED),
        [ON_TERM] = to(END_TERM, PARKED),        [ON_RELEASED] = stay(PARKED),
    },
    [LEAVING] = {
        [ON_PLACED] = to(PASS, LEAVING),         [ON_REFUSED] = to(PASS, LEAVING),
        [ON_FAULT] = stay(LEAVING),              [ON_EXIT_OK] = stay(LEAVING),
        [ON_EXIT_BAD] = stay(LEAVING),           [ON_EXIT_TOLD] = stay(LEAVING),
        [ON_NONE] = stay(LEAVING),               [ON_PROMOTE] = stay(LEAVING),
        [ON_RESTORE] = stay(LEAVING),            [ON_RELAUNCH] = stay(LEAVING),
        [ON_REQUEUE] = stay(LEAVING),            [ON_FAIL] = stay(LEAVING),
        [ON_DEADLINE] = to(PASS, LEAVING),       [ON_SPILLED] = stay(LEAVING),
        [ON_TERM] = to(PASS, LEAVING),           [ON_RELEASED] = to(PASS, LEAVING),
    },
    [FAILING] = {
        [ON_PLACED] = stay(FAILING),             [ON_REFUSED] = stay(FAILING),
        [ON_FAULT] = to(TELL, FAILING),          [ON_EXIT_OK] = leave(FAILING),
        [ON_EXIT_BAD] = leave(FAILING),       [ON_EXIT_TOLD] = to(PASS, FAILING),
        [ON_NONE] = stay(FAILING),               [ON_PROMOTE] = stay(FAILING),
        [ON_RESTORE] = stay(FAILING),            [ON_RELAUNCH] = stay(FAILING),
        [ON_REQUEUE] = stay(FAILING),            [ON_FAIL] = stay(FAILING),
        [ON_DEADLINE] = stay(FAILING),           [ON_SPILLED] = stay(FAILING),
        [ON_TERM] = stay(FAILING),               [ON_RELEASED] = stay(FAILING),
    },
};
/* clang-format on */
