/* mpsr-launch: the supervisor of one task, in its place since the plugin swapped argv[0], or put
 * there by hand:
 *
 *     srun --mps ./app …            the plugin does it
 *     srun mpsr-launch ./app …      without the plugin
 *
 * It runs the program, tells the node agent how it fares, does what the agent's verdicts say, and
 * ends as the program does. What it cannot run under MPS it does not run at all: one line, exit
 * status `refused`.
 */
#include "signals.h"
#include "supervisor.h"

#include <stdlib.h>
#include <string.h>

/* Said once a step. */
static void tell_of_gpus(const struct task *task) {
    if (task->given > task->visible.count && task->rank == 0)
        say("gpus: each task sees one of its %d GPUs, which have MPS servers of their own (sbatch "
            "--mps-servers=job: one over all of them)",
            task->given);
}

int main(int count, char **arguments) {
    static struct supervisor self;
    char why[MPSR_WHY_BYTES] = "";
    if (count == 2 && !getenv(MPSR_ENV_ARGV0) && !strcmp(arguments[1], "--help")) {
        say("usage: mpsr-launch PROGRAM [ARGUMENT...]");
        return MPSR_EXIT_OK;
    }
    int status = task_read(&self.task, count, arguments, why);
    if (status != TASK_OK) {
        say("task: %s", why);
        return status;
    }
    tell_of_gpus(&self.task);
    int signals = signals_take();
    if (signals < 0) {
        say("task: no descriptor for signals");
        return MPSR_EXIT_FAILED;
    }
    self.agent.fd = self.active.socket = self.standby.socket = -1;
    self.keeper.errors.fd = self.spiller.answer.fd = -1;
    for (int index = 0; index < RETIRED; index++)
        self.retired[index].socket = -1;
    ranks_prepare(&self.ranks, self.task.options.value[MPSR_OPTION_RANKS]);
    dying_listen(&self.dying, &self.task);
    sigemptyset(&self.told);
    supervise(&self, signals);
}
