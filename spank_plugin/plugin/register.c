/* The options of contract.toml as Slurm options, and their environment twins.
 *
 * Relies on SPANK reading SLURM_SPANK__SLURM_SPANK_OPTION_<plugin>_<option> as an option's value
 * before the command line, and exporting it to the steps of the job (tried on 22.05): a twin is
 * offered there, marked with `env:`.
 */
#include "plugin.h"
#include "shared/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mpsr_plugin mpsr_plugin; /* filled by the callbacks below, first of all files here */

static int take(int index, const char *text, int remote) {
    char line[2 * MPSR_WHY_BYTES];
    if (mpsr_ask(&mpsr_plugin.asked, &mpsr_plugin.site, index, text, line))
        return ESPANK_SUCCESS;
    if (!remote) {
        slurm_error("%s", line);
        return ESPANK_ERROR;
    }
    if (!*mpsr_plugin.problem) /* refusing here would drain the node: task_init does it */
        mpsr_copy(mpsr_plugin.problem, sizeof(mpsr_plugin.problem), line);
    return ESPANK_SUCCESS;
}

int mpsr_register(spank_t spank) {
    static char helps[MPSR_OPTIONS][MPSR_WHY_BYTES];
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        const struct mpsr_option_spec *spec = &mpsr_option_specs[index];
        snprintf(helps[index], sizeof(helps[index]), "[" MPSR_TAG "] %s", spec->help);
        struct spank_option option = {
            .name = (char *)(uintptr_t)spec->option,
            .arginfo = (char *)(uintptr_t)spec->arg,
            .usage = helps[index],
            .has_arg = spec->kind == MPSR_KIND_FLAG ? 2 : 1,
            .val = index,
            .cb = take,
        };
        if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
            slurm_error(MPSR_TAG ": --%s: not registered by Slurm", spec->option);
    }
    return ESPANK_SUCCESS;
}

bool mpsr_option_variable(int index, char *name, size_t size) {
    if (!mpsr_format(name, size, "SLURM_SPANK__SLURM_SPANK_OPTION_" MPSR_TAG "_%s",
                     mpsr_option_specs[index].option))
        return false;
    for (char *at = name; *at; at++)
        if (*at == '-')
            *at = '_';
    return true;
}

void mpsr_offer_twins(void) {
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        char name[MPSR_WHY_BYTES], offer[MPSR_WHY_BYTES];
        const char *twin = getenv(mpsr_option_specs[index].env);
        if (!twin || !*twin || !mpsr_option_variable(index, name, sizeof(name)))
            continue;
        const char *inherited =
            getenv(name); /* the job's own command line beats a twin in its script */
        if (inherited && strncmp(inherited, MPSR_FROM_ENV, strlen(MPSR_FROM_ENV)) != 0)
            continue;
        mpsr_format(offer, sizeof(offer), MPSR_FROM_ENV "%s",
                    twin); /* a cut value is a bad one still */
        setenv(name, offer, 1);
    }
}

/* A job that did not ask is to carry nothing of ours. The twin of --mps itself stays: it may be
 * what switched MPS off. */
void mpsr_withdraw_twins(void) {
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        char name[MPSR_WHY_BYTES];
        if (index == MPSR_OPTION_MPS || !mpsr_option_variable(index, name, sizeof(name)))
            continue;
        const char *offer = getenv(name);
        if (offer && !strncmp(offer, MPSR_FROM_ENV, strlen(MPSR_FROM_ENV)))
            unsetenv(name);
    }
}
