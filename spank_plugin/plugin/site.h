/* The admin's choices, as the plugin's arguments in plugstack.conf:
 *   default.<key>=<value>   what holds when a user says nothing
 *   lock=<key>[,<key>…]     users cannot change it; nothing: none is locked
 *   forbid=<key>=<value>    refused; for a list: refused when it contains the word (repeatable);
 *                           nothing: none is forbidden
 *   launcher=<path> run=<dir> prolog=<path>
 *   mpsr=<path>             the command, whose directory comes last on the PATH of batch scripts
 *   batch_hint=on|off       a batch script that starts its programs unsupervised is told; on
 *   apptainer=on|off        add run to APPTAINER_BIND and SINGULARITY_BIND of jobs that asked; on
 *   partition=<name>        default, lock and forbid behind it are for jobs of this partition: each
 *                           default in place of the site's, and so its locks, and what it forbids
 *
 * A bad argument is told once; from then on the plugin refuses every request for MPS and leaves all
 * other jobs alone. At submission nobody knows the partition that Slurm will choose: there is
 * refused what no partition takes. On the node the partition's own rules hold.
 */
#ifndef MPSR_SITE_H
#define MPSR_SITE_H

#include "shared/lease.h"
#include "shared/options.h"

enum {
    MPSR_SITE_FORBIDDEN = 32, /* more than there are values to forbid */
    MPSR_SITE_PARTITIONS = 32,
    MPSR_SITE_NAME = 64,
};

struct mpsr_rules {
    struct mpsr_options defaults;
    bool defaulted[MPSR_OPTIONS]; /* named, here and not above */
    bool locks, forbids;          /* of its own */
    bool locked[MPSR_OPTIONS];
    int forbidden;
    struct {
        int index;
        char value[MPSR_VALUE_BYTES];
    } forbid[MPSR_SITE_FORBIDDEN];
};

struct mpsr_site {
    struct mpsr_rules rules; /* those of the whole site, or, once entered, of one partition */
    bool entered;
    int partitions;
    struct {
        char name[MPSR_SITE_NAME];
        struct mpsr_rules rules; /* what it says of its own */
    } partition[MPSR_SITE_PARTITIONS];
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

/* From now on the rules are those for jobs of this partition. */
void mpsr_site_enter(struct mpsr_site *site, const char *partition);

/* Is there a partition whose jobs are under MPS unless they say no? */
bool mpsr_site_partition_asks(const struct mpsr_site *site);

/* May a user ask for this canonical value? False: `why` says what the admin decided. */
bool mpsr_site_allows(const struct mpsr_site *site, int index, const char *value,
                      char why[MPSR_WHY_BYTES]);

#endif
