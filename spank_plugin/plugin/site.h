/* The admin's choices, as the plugin's arguments in plugstack.conf:
 *   default.<key>=<value>   what holds when a user says nothing
 *   lock=<key>[,<key>…]     users cannot change it
 *   forbid=<key>=<value>    refused; for a list: refused when it contains the word (repeatable)
 *   launcher=<path> run=<dir> prolog=<path>
 *   mpsr=<path>             the command, whose directory comes last on the PATH of batch scripts
 *   batch_hint=on|off       a batch script that starts its programs unsupervised is told; on
 *   apptainer=on|off        add run to APPTAINER_BIND and SINGULARITY_BIND of jobs that asked; on
 *
 * A bad argument is told once; from then on the plugin refuses every request for MPS and leaves all
 * other jobs alone.
 */
#ifndef MPSR_SITE_H
#define MPSR_SITE_H

#include "shared/lease.h"
#include "shared/options.h"

enum { MPSR_SITE_FORBIDDEN = 32 }; /* more than there are values to forbid */

struct mpsr_site {
    struct mpsr_options defaults;
    bool locked[MPSR_OPTIONS];
    int forbidden;
    struct {
        int index;
        char value[MPSR_VALUE_BYTES];
    } forbid[MPSR_SITE_FORBIDDEN];
    char launcher[MPSR_LEASE_PATH];
    char run[MPSR_LEASE_PATH];
    char prolog[MPSR_LEASE_PATH]; /* the site's hook; empty: a skipped prolog stays skipped */
    char mpsr[MPSR_LEASE_PATH];   /* the command; empty: PATH stays as it is */
    bool apptainer;
    bool hint;
    bool broken;
    char why[MPSR_WHY_BYTES]; /* the bad argument, when broken */
};

void mpsr_site_read(struct mpsr_site *site, int count, char **arguments);

/* May a user ask for this canonical value? False: `why` says what the admin decided. */
bool mpsr_site_allows(const struct mpsr_site *site, int index, const char *value,
                      char why[MPSR_WHY_BYTES]);

#endif
