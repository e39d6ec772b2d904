/* What was asked for, and what is in force: the layers command line > environment twin > admin >
 * contract.
 *
 * Slurm carries an option's text, as given, from submission to every step and node. A twin
 * (MPSR_DOMAIN, …) joins that stream at submission as the text `env:<value>`: so each later place
 * knows the layer that a value came from.
 */
#ifndef MPSR_ASKED_H
#define MPSR_ASKED_H

#include "site.h"

#define MPSR_FROM_ENV "env:"

enum mpsr_layer { MPSR_LAYER_NONE, MPSR_LAYER_ENV, MPSR_LAYER_COMMAND };

struct mpsr_asked {
    enum mpsr_layer layer[MPSR_OPTIONS];
    struct mpsr_options options;
};

/* Take one option's text as Slurm hands it over (NULL for a bare flag). False: `line` is the whole
 * message. */
bool mpsr_ask(struct mpsr_asked *asked, const struct mpsr_site *site, int index, const char *text,
              char line[2 * MPSR_WHY_BYTES]);

/* The options in force. An option on the command line means that MPS is wanted, unless --mps says
 * otherwise. */
void mpsr_in_force(const struct mpsr_asked *asked, const struct mpsr_site *site,
                   struct mpsr_options *options);

/* Whether MPS was asked for, and is not a default of the site's or the partition's alone. */
bool mpsr_asked_itself(const struct mpsr_asked *asked);

/* The canonical string of what was asked for alone, which begins with mps=on or mps=off: what the
 * site leaves open is decided on the node, where the job's partition is known. */
void mpsr_asked_serialize(const struct mpsr_asked *asked, const struct mpsr_options *force,
                          char out[MPSR_WIRE_MAX_BYTES + 1]);

#endif
