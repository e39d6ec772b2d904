/* Which program a supervisor was given: a digest by which the state that it kept is found again
 * after a requeue, whatever number its step has then.
 *
 * It is made of the working directory, the file that is run and every argument; all three are the
 * same on another node and in the job's next run. A file that `srun --bcast` has copied has a name
 * with the step's number in it: its content stands for it. The environment is left out:
 * MASTER_ADDR, TMPDIR and the like differ from node to node.
 */
#ifndef MPSR_PROGRAM_H
#define MPSR_PROGRAM_H

/* By `strike` the node agent counts the faults of a program, whatever its arguments: the tasks of
 * an array are one program, and a file that was changed is another. It is made of the file that is
 * run, its size and time of change; of an interpreter also of its first argument that is no option,
 * of a wrapper (apptainer, env) of all its arguments. Numbers in names count as one: run_1, run_2.
 * Empty for the drill's culprit. */
enum { PROGRAM_DIGEST = 17 }; /* 16 hexadecimal digits */

void program_digest(char *const command[], char digest[PROGRAM_DIGEST]);
void program_strike(char *const command[], char digest[PROGRAM_DIGEST]);

#endif
