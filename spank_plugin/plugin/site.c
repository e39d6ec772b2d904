/* See site.h. Pure: arguments in, choices out. */
#include "site.h"

#include "shared/text.h"

#include <stdio.h>
#include <string.h>

/* `text` without `prefix`, or NULL when it does not begin with it. */
static const char *after(const char *text, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) ? NULL : text + length;
}

/* The key before '=' in `text`; -1 when there is no such option. `*value` is what follows. */
static int key_of(const char *text, const char **value) {
    char key[MPSR_VALUE_BYTES];
    size_t length = strcspn(text, "=");
    if (!text[length] || length >= sizeof(key))
        return -1;
    memcpy(key, text, length);
    key[length] = '\0';
    *value = text + length + 1;
    return mpsr_option_of_key(key);
}

static bool lock(struct mpsr_rules *rules, const char *keys, char why[MPSR_WHY_BYTES]) {
    char copy[MPSR_WIRE_MAX_BYTES], *rest = NULL;
    if (!mpsr_copy(copy, sizeof(copy), keys)) {
        snprintf(why, MPSR_WHY_BYTES, "too long");
        return false;
    }
    rules->locks = true;
    for (char *key = strtok_r(copy, ",", &rest); key; key = strtok_r(NULL, ",", &rest)) {
        int index = mpsr_option_of_key(key);
        if (index < 0) {
            snprintf(why, MPSR_WHY_BYTES, "unknown key");
            return false;
        }
        rules->locked[index] = true;
    }
    return true;
}

static bool forbid(struct mpsr_rules *rules, int index, const char *value,
                   char why[MPSR_WHY_BYTES]) {
    if (rules->forbidden == MPSR_SITE_FORBIDDEN) {
        snprintf(why, MPSR_WHY_BYTES, "more than %d values forbidden", MPSR_SITE_FORBIDDEN);
        return false;
    }
    char *out = rules->forbid[rules->forbidden].value;
    if (!mpsr_option_check(index, value, out, why))
        return false;
    rules->forbid[rules->forbidden++].index = index;
    return true;
}

static bool fix(struct mpsr_rules *rules, int index, const char *value, char why[MPSR_WHY_BYTES]) {
    rules->defaulted[index] = true;
    return mpsr_option_check(index, value, rules->defaults.value[index], why);
}

/* Slurm's names of partitions, as far as they need no quoting. */
static bool begin_partition(struct mpsr_site *site, const char *name, char why[MPSR_WHY_BYTES]) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-";
    size_t length = strlen(name);
    bool good = length && length < MPSR_SITE_NAME && strspn(name, letters) == length;
    for (int row = 0; row < site->partitions; row++)
        good &= strcmp(site->partition[row].name, name) != 0;
    if (good && site->partitions < MPSR_SITE_PARTITIONS)
        return mpsr_copy(site->partition[site->partitions++].name, MPSR_SITE_NAME, name);
    snprintf(why, MPSR_WHY_BYTES, good ? "more than %d partitions" : "not a new partition's name",
             MPSR_SITE_PARTITIONS);
    return false;
}

static bool path_of(char out[MPSR_LEASE_PATH], const char *path, char why[MPSR_WHY_BYTES]) {
    if (*path == '/' && mpsr_copy(out, MPSR_LEASE_PATH, path))
        return true;
    snprintf(why, MPSR_WHY_BYTES, "not an absolute path");
    return false;
}

static bool switched(bool *out, const char *text, char why[MPSR_WHY_BYTES]) {
    *out = !strcmp(text, "on");
    snprintf(why, MPSR_WHY_BYTES, "not on or off");
    return *out || !strcmp(text, "off");
}

static bool argument(struct mpsr_site *site, const char *text, char why[MPSR_WHY_BYTES]) {
    const char *rest = NULL, *value = NULL;
    if ((rest = after(text, "launcher=")))
        return path_of(site->launcher, rest, why);
    if ((rest = after(text, "run=")))
        return path_of(site->run, rest, why);
    if ((rest = after(text, "prolog=")))
        return path_of(site->prolog, rest, why);
    if ((rest = after(text, "mpsr=")))
        return path_of(site->mpsr, rest, why);
    if ((rest = after(text, "apptainer=")))
        return switched(&site->apptainer, rest, why);
    if ((rest = after(text, "batch_hint=")))
        return switched(&site->hint, rest, why);
    if ((rest = after(text, "partition=")))
        return begin_partition(site, rest, why);
    struct mpsr_rules *rules =
        site->partitions ? &site->partition[site->partitions - 1].rules : &site->rules;
    if ((rest = after(text, "lock=")))
        return lock(rules, rest, why);
    bool defaulted = (rest = after(text, "default.")) != NULL;
    if (!defaulted && (rest = after(text, "forbid="))) {
        rules->forbids = true;
        if (!*rest)
            return true;
    }
    int index = rest ? key_of(rest, &value) : -1;
    if (index < 0) {
        snprintf(why, MPSR_WHY_BYTES, "%s", rest ? "unknown key" : "unknown argument");
        return false;
    }
    return defaulted ? fix(rules, index, value, why) : forbid(rules, index, value, why);
}

static bool forbids(const struct mpsr_rules *rules, int index, const char *value,
                    const char **word) {
    for (int row = 0; row < rules->forbidden; row++) {
        *word = rules->forbid[row].value;
        if (rules->forbid[row].index == index &&
            (!strcmp(*word, value) ||
             (mpsr_option_specs[index].kind == MPSR_KIND_LIST && mpsr_list_has(value, *word))))
            return true;
    }
    return false;
}

/* The site's rules, with what a partition says of its own in their place. */
static void merge(const struct mpsr_rules *site, const struct mpsr_rules *own,
                  struct mpsr_rules *merged) {
    *merged = *site;
    for (int index = 0; index < MPSR_OPTIONS; index++)
        if (own->defaulted[index])
            mpsr_copy(merged->defaults.value[index], MPSR_VALUE_BYTES, own->defaults.value[index]);
    if (own->locks)
        memcpy(merged->locked, own->locked, sizeof(merged->locked));
    if (own->forbids) {
        memcpy(merged->forbid, own->forbid, sizeof(merged->forbid));
        merged->forbidden = own->forbidden;
    }
}

/* No default may be forbidden. */
static void check(struct mpsr_site *site, const struct mpsr_rules *rules, const char *partition) {
    const char *word = NULL;
    for (int index = 0; index < MPSR_OPTIONS && !site->broken; index++)
        if (forbids(rules, index, rules->defaults.value[index], &word)) {
            site->broken = true;
            snprintf(site->why, sizeof(site->why),
                     "%s%sforbidden, but the default (set default.%s): %s=%s", partition,
                     *partition ? ": " : "", mpsr_option_specs[index].key,
                     mpsr_option_specs[index].key, word);
        }
}

void mpsr_site_read(struct mpsr_site *site, int count, char **arguments) {
    char why[MPSR_WHY_BYTES] = "";
    struct mpsr_rules merged;
    memset(site, 0, sizeof(*site));
    mpsr_options_default(&site->rules.defaults);
    mpsr_copy(site->launcher, sizeof(site->launcher), MPSR_PATH_LAUNCHER);
    mpsr_copy(site->run, sizeof(site->run), MPSR_PATH_RUN);
    site->apptainer = site->hint = true;
    for (int index = 0; index < count && !site->broken; index++)
        if (!argument(site, arguments[index], why)) {
            site->broken = true;
            snprintf(site->why, sizeof(site->why), "%.120s: %.120s", why, arguments[index]);
            mpsr_one_line(site->why);
        }
    check(site, &site->rules, "");
    for (int row = 0; row < site->partitions && !site->broken; row++) {
        merge(&site->rules, &site->partition[row].rules, &merged);
        check(site, &merged, site->partition[row].name);
    }
}

void mpsr_site_enter(struct mpsr_site *site, const char *partition) {
    struct mpsr_rules merged;
    for (int row = 0; row < site->partitions && !site->entered; row++)
        if (!strcmp(site->partition[row].name, partition)) {
            merge(&site->rules, &site->partition[row].rules, &merged);
            site->rules = merged;
            break;
        }
    site->entered = true;
}

bool mpsr_site_partition_asks(const struct mpsr_site *site) {
    for (int row = 0; row < site->partitions; row++)
        if (mpsr_options_on(&site->partition[row].rules.defaults, MPSR_OPTION_MPS))
            return true;
    return false;
}

static bool allows(const struct mpsr_rules *rules, int index, const char *value,
                   char why[MPSR_WHY_BYTES]) {
    const char *word = NULL;
    const char *fixed = rules->defaults.value[index];
    if (rules->locked[index] && strcmp(fixed, value) != 0) {
        snprintf(why, MPSR_WHY_BYTES, "fixed by the administrator at %s",
                 *fixed ? fixed : "no limit");
        return false;
    }
    if (forbids(rules, index, value, &word)) {
        snprintf(why, MPSR_WHY_BYTES, "%s is forbidden by the administrator", word);
        return false;
    }
    return true;
}

bool mpsr_site_allows(const struct mpsr_site *site, int index, const char *value,
                      char why[MPSR_WHY_BYTES]) {
    char other[MPSR_WHY_BYTES];
    struct mpsr_rules merged;
    if (site->broken) {
        snprintf(why, MPSR_WHY_BYTES, "cannot be asked for while plugstack.conf is wrong");
        return false;
    }
    if (allows(&site->rules, index, value, why))
        return true;
    for (int row = 0; row < site->partitions && !site->entered; row++) {
        merge(&site->rules, &site->partition[row].rules, &merged);
        if (allows(&merged, index, value, other))
            return true;
    }
    return false;
}
