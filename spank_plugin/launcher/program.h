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

enum { PROGRAM_DIGEST = 17 }; /* 16 hexadecimal digits */

void program_digest(char *const command[], char digest[PROGRAM_DIGEST]);

#endif
