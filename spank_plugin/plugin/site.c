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

static bool lock(struct mpsr_site *site, const char *keys, char why[MPSR_WHY_BYTES]) {
    char copy[MPSR_WIRE_MAX_BYTES], *rest = NULL;
    if (!mpsr_copy(copy, sizeof(copy), keys)) {
        snprintf(why, MPSR_WHY_BYTES, "too long");
        return false;
    }
    for (char *key = strtok_r(copy, ",", &rest); key; key = strtok_r(NULL, ",", &rest)) {
        int index = mpsr_option_of_key(key);
        if (index < 0) {
            snprintf(why, MPSR_WHY_BYTES, "unknown key");
            return false;
        }
        site->locked[index] = true;
    }
    return true;
}

static bool forbid(struct mpsr_site *site, int index, const char *value, char why[MPSR_WHY_BYTES]) {
    if (site->forbidden == MPSR_SITE_FORBIDDEN) {
        snprintf(why, MPSR_WHY_BYTES, "more than %d values forbidden", MPSR_SITE_FORBIDDEN);
        return false;
    }
    char *out = site->forbid[site->forbidden].value;
    if (!mpsr_option_check(index, value, out, why))
        return false;
    site->forbid[site->forbidden++].index = index;
    return true;
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
    if ((rest = after(text, "lock=")))
        return lock(site, rest, why);
    bool defaulted = (rest = after(text, "default.")) != NULL;
    if (!defaulted)
        rest = after(text, "forbid=");
    int index = rest ? key_of(rest, &value) : -1;
    if (index < 0) {
        snprintf(why, MPSR_WHY_BYTES, "%s", rest ? "unknown key" : "unknown argument");
        return false;
    }
    return defaulted ? mpsr_option_check(index, value, site->defaults.value[index], why)
                     : forbid(site, index, value, why);
}

static bool forbids(const struct mpsr_site *site, int index, const char *value, const char **word) {
    for (int row = 0; row < site->forbidden; row++) {
        *word = site->forbid[row].value;
        if (site->forbid[row].index == index &&
            (!strcmp(*word, value) ||
             (mpsr_option_specs[index].kind == MPSR_KIND_LIST && mpsr_list_has(value, *word))))
            return true;
    }
    return false;
}

void mpsr_site_read(struct mpsr_site *site, int count, char **arguments) {
    char why[MPSR_WHY_BYTES] = "";
    const char *word = NULL;
    memset(site, 0, sizeof(*site));
    mpsr_options_default(&site->defaults);
    mpsr_copy(site->launcher, sizeof(site->launcher), MPSR_PATH_LAUNCHER);
    mpsr_copy(site->run, sizeof(site->run), MPSR_PATH_RUN);
    site->apptainer = site->hint = true;
    for (int index = 0; index < count && !site->broken; index++)
        if (!argument(site, arguments[index], why)) {
            site->broken = true;
            snprintf(site->why, sizeof(site->why), "%.120s: %.120s", why, arguments[index]);
            mpsr_one_line(site->why);
        }
    for (int index = 0; index < MPSR_OPTIONS && !site->broken; index++)
        if (forbids(site, index, site->defaults.value[index], &word)) {
            site->broken = true;
            snprintf(site->why, sizeof(site->why),
                     "forbidden, but the default (set default.%s): %s=%s",
                     mpsr_option_specs[index].key, mpsr_option_specs[index].key, word);
        }
}

bool mpsr_site_allows(const struct mpsr_site *site, int index, const char *value,
                      char why[MPSR_WHY_BYTES]) {
    const char *word = NULL;
    const char *fixed = site->defaults.value[index];
    if (site->broken) {
        snprintf(why, MPSR_WHY_BYTES, "cannot be asked for while plugstack.conf is wrong");
        return false;
    }
    if (site->locked[index] && strcmp(fixed, value) != 0) {
        snprintf(why, MPSR_WHY_BYTES, "fixed by the administrator at %s",
                 *fixed ? fixed : "no limit");
        return false;
    }
    if (forbids(site, index, value, &word)) {
        snprintf(why, MPSR_WHY_BYTES, "%s is forbidden by the administrator", word);
        return false;
    }
    return true;
}
