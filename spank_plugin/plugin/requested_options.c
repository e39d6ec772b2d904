/* See requested_options.h. Pure: no Slurm, no environment. */
#include "requested_options.h"

#include "shared/text.h"

#include <stdio.h>
#include <string.h>

/* Slurm turns a bare optional argument into NULL, "" or "(null)", as it travels (tried on 22.05).
 */
static bool bare(const char *text) {
    return !text || !*text || !strcmp(text, "(null)");
}

bool mpsr_ask(struct mpsr_asked *asked, const struct mpsr_site *site, int index, const char *text,
              char line[2 * MPSR_WHY_BYTES]) {
    const struct mpsr_option_spec *spec = &mpsr_option_specs[index];
    size_t prefix = strlen(MPSR_FROM_ENV);
    bool twin = text && !strncmp(text, MPSR_FROM_ENV, prefix);
    char value[MPSR_VALUE_BYTES], why[MPSR_WHY_BYTES];
    if (twin)
        text += prefix;
    else if (spec->kind == MPSR_KIND_FLAG && bare(text))
        text = "on";
    else if (!text)
        text = "";
    bool good =
        mpsr_option_check(index, text, value, why) && mpsr_site_allows(site, index, value, why);
    if (good && !twin && index != MPSR_OPTION_MPS &&
        asked->layer[MPSR_OPTION_MPS] != MPSR_LAYER_COMMAND)
        good =
            mpsr_site_allows(site, MPSR_OPTION_MPS, "on", why); /* asking for a part asks for MPS */
    if (!good) {
        snprintf(line, 2 * MPSR_WHY_BYTES, MPSR_TAG ": %s%s: %s: %.120s", twin ? "" : "--",
                 twin ? spec->env : spec->option, why, text);
        mpsr_one_line(line);
        return false;
    }
    if (twin && asked->layer[index] == MPSR_LAYER_COMMAND)
        return true;
    asked->layer[index] = twin ? MPSR_LAYER_ENV : MPSR_LAYER_COMMAND;
    return mpsr_copy(asked->options.value[index], MPSR_VALUE_BYTES, value);
}

void mpsr_in_force(const struct mpsr_asked *asked, const struct mpsr_site *site,
                   struct mpsr_options *options) {
    bool wanted = false;
    *options = site->rules.defaults;
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        if (asked->layer[index] != MPSR_LAYER_NONE)
            mpsr_copy(options->value[index], MPSR_VALUE_BYTES, asked->options.value[index]);
        wanted |= index != MPSR_OPTION_MPS && asked->layer[index] == MPSR_LAYER_COMMAND;
    }
    if (wanted && asked->layer[MPSR_OPTION_MPS] != MPSR_LAYER_COMMAND)
        mpsr_copy(options->value[MPSR_OPTION_MPS], MPSR_VALUE_BYTES, "on");
    if (site->broken)
        mpsr_copy(options->value[MPSR_OPTION_MPS], MPSR_VALUE_BYTES, "off");
}

bool mpsr_asked_itself(const struct mpsr_asked *asked) {
    for (int index = 0; index < MPSR_OPTIONS; index++)
        if (asked->layer[index] == MPSR_LAYER_COMMAND)
            return true;
    return asked->layer[MPSR_OPTION_MPS] != MPSR_LAYER_NONE;
}

void mpsr_asked_serialize(const struct mpsr_asked *asked, const struct mpsr_options *force,
                          char out[MPSR_WIRE_MAX_BYTES + 1]) {
    size_t used = 0;
    for (int index = 0; index < MPSR_OPTIONS && used < MPSR_WIRE_MAX_BYTES; index++)
        if (index == MPSR_OPTION_MPS || asked->layer[index] != MPSR_LAYER_NONE)
            used += (size_t)snprintf(out + used, MPSR_WIRE_MAX_BYTES + 1 - used, "%s%s=%s",
                                     used ? ";" : "", mpsr_option_specs[index].key,
                                     force->value[index]);
}
