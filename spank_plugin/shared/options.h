/* The values of the `--mps…` options: checking one, and the canonical string that carries all of
 * them.
 *
 * Relies on contract.h for the table of options. resilience/parse/options.py is the twin in Python;
 * tests compare the two. Pure: no environment, no files, no Slurm.
 */
#ifndef MPSR_OPTIONS_H
#define MPSR_OPTIONS_H

#include "contract.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    MPSR_VALUE_BYTES = 64, /* longest canonical value is the list of all rungs, 32 bytes */
    MPSR_WHY_BYTES = 256,  /* one line of explanation; the observed value is cut to fit */
};

struct mpsr_option_spec {
    const char *option; /* as in --<option> */
    const char *key;
    const char *env;
    enum mpsr_kind kind;
    const char *choices; /* joined by ',' */
    long max;
    const char *fallback; /* the contract's default */
    const char *arg;
    const char *help;
};

extern const struct mpsr_option_spec mpsr_option_specs[MPSR_OPTIONS];

/* Canonical values by enum mpsr_option: sizes in MiB, flags as on/off, empty where no limit is set.
 */
struct mpsr_options {
    char value[MPSR_OPTIONS][MPSR_VALUE_BYTES];
};

/* Index of the option with this key, or -1. */
int mpsr_option_of_key(const char *key);

/* The canonical form of `text` for one option. False: `why` says what is wrong, without the value.
 */
bool mpsr_option_check(int index, const char *text, char value[MPSR_VALUE_BYTES],
                       char why[MPSR_WHY_BYTES]);

void mpsr_options_default(struct mpsr_options *options);
bool mpsr_options_parse(const char *text, struct mpsr_options *options, char why[MPSR_WHY_BYTES]);

/* The canonical string: every key, in the contract's order. */
void mpsr_options_serialize(const struct mpsr_options *options, char out[MPSR_WIRE_MAX_BYTES + 1]);

bool mpsr_options_on(const struct mpsr_options *options, int index);

/* Is `word` one of the words that `list` joins by ','? */
bool mpsr_list_has(const char *list, const char *word);

#endif
