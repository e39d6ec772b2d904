/* What a batch job asks for in words that only sbatch would have read: the twins in its environment
 * (MPSR_MPS=on) and the #SBATCH lines of its script. A job that came by slurmrestd, or was changed
 * by job_submit.lua, has them still.
 *
 * Only what nobody has asked for otherwise is looked at: of a job of sbatch's nothing new comes of
 * it. What cannot be had refuses the job, in task_init. The job's prolog knew of nothing: late.c
 * has it done, on the job's other nodes as well (SLURM_SPANK_MPSR goes with the steps).
 */
#include "plugin.h"
#include "script.h"
#include "shared/text.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SCRIPT_BYTES = 65536 };

static bool given[MPSR_OPTIONS]; /* by Slurm: what sbatch has read already */

static bool ask(int index, const char *text) {
    return given[index] ||
           mpsr_ask(&mpsr_plugin.asked, &mpsr_plugin.site, index, text, mpsr_plugin.problem);
}

/* The steps of the script are to have them, too: as Slurm hands a job's options on. */
static void hand_on(spank_t spank) {
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        char name[MPSR_WHY_BYTES], text[MPSR_VALUE_BYTES + sizeof(MPSR_FROM_ENV)];
        enum mpsr_layer layer = mpsr_plugin.asked.layer[index];
        if (layer != MPSR_LAYER_NONE && mpsr_option_variable(index, name, sizeof(name)) &&
            mpsr_format(text, sizeof(text), "%s%s", layer == MPSR_LAYER_ENV ? MPSR_FROM_ENV : "",
                        mpsr_plugin.asked.options.value[index]))
            spank_setenv(spank, name, text, 1);
    }
}

static bool ask_twins(spank_t spank) {
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        char twin[MPSR_VALUE_BYTES * 2], offer[sizeof(twin) + sizeof(MPSR_FROM_ENV)];
        spank_err_t answer = spank_getenv(spank, mpsr_option_specs[index].env, twin, sizeof(twin));
        if (answer != ESPANK_SUCCESS || !*twin)
            continue;
        mpsr_format(offer, sizeof(offer), MPSR_FROM_ENV "%s", twin);
        if (!ask(index, offer))
            return false;
    }
    return true;
}

static bool ask_of_script(void *nothing, int index, const char *value) {
    (void)nothing;
    return ask(index, value);
}

static void ask_script(const char *path) {
    static char text[SCRIPT_BYTES];
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return;
    text[length] = '\0';
    mpsr_script_options(text, ask_of_script, NULL);
}

/* What sbatch would have handed on of them (SLURM_SPANK_MPSR), in a job that it has not read: who
 * puts that into its environment by hand means it. */
static bool ask_wire(char *wire) {
    char *rest = NULL;
    for (char *pair = strtok_r(wire, ";", &rest); pair; pair = strtok_r(NULL, ";", &rest)) {
        char *value = strchr(pair, '=');
        if (value)
            *value++ = '\0';
        int index = value ? mpsr_option_of_key(pair) : -1;
        if (index < 0) {
            snprintf(mpsr_plugin.problem, sizeof(mpsr_plugin.problem),
                     MPSR_TAG ": " MPSR_ENV_JOB_CONTROL_STEP ": not key=value: %.120s", pair);
            mpsr_one_line(mpsr_plugin.problem);
            return false;
        }
        if ((*value || !*mpsr_option_specs[index].fallback) && !ask(index, value))
            return false;
    }
    return true;
}

void mpsr_batch_options(spank_t spank) {
    struct mpsr_options options;
    char wire[MPSR_WIRE_MAX_BYTES + 1];
    int count = 0;
    char **arguments = NULL;
    bool any = false;
    for (int index = 0; index < MPSR_OPTIONS; index++)
        any |= given[index] = mpsr_plugin.asked.layer[index] != MPSR_LAYER_NONE;
    bool read =
        spank_getenv(spank, MPSR_ENV_JOB_CONTROL_STEP, wire, sizeof(wire)) == ESPANK_SUCCESS;
    if (read ? any || !ask_wire(wire) : !ask_twins(spank))
        return; /* `any`: sbatch has read it */
    if (!read && spank_get_item(spank, S_JOB_ARGV, &count, &arguments) == ESPANK_SUCCESS &&
        count > 0)
        ask_script(arguments[0]);
    mpsr_in_force(&mpsr_plugin.asked, &mpsr_plugin.site, &options);
    if (!mpsr_options_on(&options, MPSR_OPTION_MPS))
        return;
    mpsr_asked_serialize(&mpsr_plugin.asked, &options, wire);
    spank_setenv(spank, MPSR_ENV_JOB_CONTROL_STEP, wire, 1);
    hand_on(spank);
}
