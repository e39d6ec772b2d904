/* See lease.h. resilience/parse/lease.py is the twin of the parser in Python. */
#include "lease.h"

#include "namespace.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Keys that must be there, in the order of protocols.md §3; the last need not: a lease that was
 * written before an upgrade has none. */
static const char *const KEYS[] = {
    "version", "job",     "uid",    "gid",       "user",   "node",      "restart", "state",
    "reason",  "options", "domain", "isolation", "slots",  "colors",    "gpus",    "run",
    "log",     "agent",   "python", "spill",     "opened", "partition", "numbers",
};
enum { KEY_COUNT = sizeof(KEYS) / sizeof(KEYS[0]), NEEDED = KEY_COUNT - 2 };

static bool gpus_of(char *text, struct mpsr_lease *lease) {
    char *rest = NULL;
    lease->gpus = 0;
    for (char *pair = strtok_r(text, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        char *uuid = strchr(pair, ':');
        if (!uuid || lease->gpus == MPSR_LEASE_GPUS)
            return false;
        *uuid++ = '\0';
        struct mpsr_lease_gpu *gpu = &lease->gpu[lease->gpus++];
        if (!mpsr_number(pair, 0, 4095, &gpu->minor) || !*uuid ||
            !mpsr_copy(gpu->uuid, sizeof(gpu->uuid), uuid))
            return false;
    }
    return true;
}

/* One for each GPU, or none at all. They come after the GPUs in the file. */
static bool numbers_of(char *text, struct mpsr_lease *lease) {
    char *rest = NULL;
    int count = 0;
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
        if (count == MPSR_LEASE_GPUS || !mpsr_number(word, 0, 4095, &lease->gpu[count++].number))
            return false;
    lease->numbers = count;
    return true;
}

/* `minor:slot` of some of the GPUs, which come later in the file: kept apart until all is read. */
static bool slots_of(char *text, struct mpsr_lease *lease) {
    char *rest = NULL;
    lease->slots = 0;
    for (char *pair = strtok_r(text, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        char *slot = strchr(pair, ':');
        if (!slot || lease->slots == MPSR_LEASE_GPUS)
            return false;
        *slot++ = '\0';
        struct mpsr_lease_slot *one = &lease->slot[lease->slots++];
        if (!mpsr_number(pair, 0, 4095, &one->minor) ||
            !mpsr_number(slot, 1, MPSR_LEASE_SLOTS, &one->slot))
            return false;
    }
    return true;
}

static bool color_word(const char *text) {
    return *text && strlen(text) < MPSR_VALUE_BYTES &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(text);
}

/* Colours with a comma between them; none at all in a lease that is refused. */
static bool colors_of(const char *text, struct mpsr_lease *lease) {
    char list[MPSR_LEASE_WORD], *rest = list;
    if (!mpsr_copy(lease->colors, sizeof(lease->colors), text))
        return false;
    if (!*text)
        return true;
    mpsr_copy(list, sizeof(list), text);
    for (char *color = strsep(&rest, ","); color; color = strsep(&rest, ","))
        if (!color_word(color))
            return false;
    return true;
}

/* At most 15 digits, and a fraction if any. */
static bool seconds(const char *text) {
    static const char digits[] = "0123456789";
    size_t whole = strspn(text, digits);
    const char *rest = text + whole;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, digits);
    return whole && whole <= 15 && !*rest;
}

/* One decoded value into the lease; false when it is not what the key asks for. */
static bool take(struct mpsr_lease *lease, const char *key, char *value) {
    long number = 0;
    char why[MPSR_WHY_BYTES];
    if (!strcmp(key, "version"))
        return !strcmp(value, "1");
    if (!strcmp(key, "job"))
        return mpsr_number(value, 1, LONG_MAX, &lease->job);
    if (!strcmp(key, "uid")) {
        bool good = mpsr_number(value, 0, UINT_MAX, &number);
        lease->uid = (uid_t)number;
        return good;
    }
    if (!strcmp(key, "gid") || !strcmp(key, "restart"))
        return mpsr_number(value, 0, UINT_MAX, &number);
    if (!strcmp(key, "state")) {
        lease->open = !strcmp(value, "open");
        lease->without = !strcmp(value, "without");
        return lease->open || lease->without || !strcmp(value, "refused");
    }
    if (!strcmp(key, "isolation"))
        return mpsr_list_has("none,domains,sm,guard", value) &&
               mpsr_copy(lease->isolation, sizeof(lease->isolation), value);
    if (!strcmp(key, "options"))
        return mpsr_options_parse(value, &lease->options, why);
    if (!strcmp(key, "slots"))
        return slots_of(value, lease);
    if (!strcmp(key, "colors"))
        return colors_of(value, lease);
    if (!strcmp(key, "gpus"))
        return gpus_of(value, lease);
    if (!strcmp(key, "numbers"))
        return numbers_of(value, lease);
    if (!strcmp(key, "opened"))
        return seconds(value);
    const struct {
        const char *key;
        char *out;
        size_t size;
    } words[] = {
        {"reason", lease->reason, sizeof(lease->reason)},
        {"node", lease->node, sizeof(lease->node)},
        {"domain", lease->domain, sizeof(lease->domain)},
        {"run", lease->run, sizeof(lease->run)},
        {"agent", lease->agent, sizeof(lease->agent)},
        {"python", lease->python, sizeof(lease->python)},
        {"spill", lease->spill, sizeof(lease->spill)},
        {"partition", lease->partition, sizeof(lease->partition)},
    };
    for (size_t index = 0; index < sizeof(words) / sizeof(words[0]); index++)
        if (!strcmp(key, words[index].key))
            return mpsr_copy(words[index].out, words[index].size, value);
    return true; /* user, log: ours to check for presence only; unknown keys belong to a later
                    version */
}

bool mpsr_lease_parse(char *text, struct mpsr_lease *lease, char why[MPSR_WHY_BYTES]) {
    bool seen[KEY_COUNT] = {false};
    char *rest = NULL;
    memset(lease, 0, sizeof(*lease));
    why[0] = '\0';
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (*line == '#')
            continue;
        char *value = strchr(line, '=');
        if (value)
            *value++ = '\0';
        int index = 0;
        while (index < KEY_COUNT && strcmp(KEYS[index], line) != 0)
            index++;
        if (!value || (index < KEY_COUNT && seen[index])) {
            snprintf(why, MPSR_WHY_BYTES, "not a new key=value: %.40s", line);
            mpsr_one_line(why);
            return false;
        }
        if (index < KEY_COUNT)
            seen[index] = true;
        if (!mpsr_decode(value) || !take(lease, line, value)) {
            snprintf(why, MPSR_WHY_BYTES, "bad value for %.40s: %.80s", line, value);
            mpsr_one_line(why);
            return false;
        }
    }
    for (int index = 0; index < NEEDED; index++)
        if (!seen[index]) {
            snprintf(why, MPSR_WHY_BYTES, "key missing: %s", KEYS[index]);
            return false;
        }
    if (lease->numbers && lease->numbers != lease->gpus) {
        snprintf(why, MPSR_WHY_BYTES, "numbers for %d of %d GPUs", lease->numbers, lease->gpus);
        return false;
    }
    for (int index = 0; !lease->numbers && index < lease->gpus; index++)
        lease->gpu[index].number = -1;
    if (lease->open && (!lease->gpus || !*lease->domain)) {
        snprintf(why, MPSR_WHY_BYTES, "open without a domain or a GPU");
        return false;
    }
    return true;
}

static bool trusted(const struct stat *status) {
    bool others = status->st_mode & (S_IWGRP | S_IWOTH);
    bool sticky = S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX);
    bool owner = mpsr_one_user() ? mpsr_somebody_else(status->st_uid) : status->st_uid == 0;
    return owner && (!others || sticky);
}

/* Every directory above `path`, from the root down; false names the first that is not trusted. In a
 * namespace of one user the tree is his own, as is everything that could be won there. */
static bool parents_trusted(const char *path, char why[MPSR_WHY_BYTES]) {
    char part[MPSR_LEASE_PATH];
    if (mpsr_one_user())
        return true;
    if (*path != '/' || !mpsr_copy(part, sizeof(part), path)) {
        snprintf(why, MPSR_WHY_BYTES, "not an absolute path of bearable length: %.80s", path);
        return false;
    }
    for (char *slash = part; slash; slash = strchr(slash + 1, '/')) {
        char kept = slash == part ? slash[1] : *slash;
        char *cut = slash == part ? slash + 1 : slash;
        struct stat status;
        *cut = '\0';
        if (lstat(part, &status) || !S_ISDIR(status.st_mode) || !trusted(&status)) {
            snprintf(why, MPSR_WHY_BYTES, "not a directory that only root may write: %.160s", part);
            return false;
        }
        *cut = kept;
    }
    return true;
}

/* Whole text of a trusted file; the answer says whether there is one. */
static enum mpsr_lease_answer trusted_text(const char *path, char *text, size_t size,
                                           char why[MPSR_WHY_BYTES]) {
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        snprintf(why, MPSR_WHY_BYTES, "%s: %.160s", absent ? "no lease" : strerror(errno), path);
        return absent ? MPSR_LEASE_ABSENT : MPSR_LEASE_BAD;
    }
    struct stat status;
    enum mpsr_lease_answer answer = MPSR_LEASE_BAD;
    if (!parents_trusted(path, why)) {
        /* explained */
    } else if (fstat(fd, &status) || !S_ISREG(status.st_mode) || !trusted(&status)) {
        snprintf(why, MPSR_WHY_BYTES, "not a file that only root may write: %.160s", path);
    } else {
        size_t used = 0;
        ssize_t got = 0;
        while (used < size && (got = read(fd, text + used, size - used)) > 0)
            used += (size_t)got;
        if (got < 0 || used == size || memchr(text, '\0', used)) {
            snprintf(why, MPSR_WHY_BYTES, "unreadable or too long: %.160s", path);
        } else {
            text[used] = '\0';
            answer = MPSR_LEASE_OK;
        }
    }
    close(fd);
    return answer;
}

/* A lease lies at {run}/{node}/jobs/{job}.lease: are there such directories at all? */
static bool hidden(const char *path, char why[MPSR_WHY_BYTES]) {
    char run[MPSR_LEASE_PATH];
    if (!mpsr_copy(run, sizeof(run), path))
        return false;
    for (int part = 0; part < 3; part++) {
        char *slash = strrchr(run, '/');
        if (!slash || slash == run)
            return false;
        *slash = '\0';
        if (part == 0 && access(run, F_OK) == 0)
            return false;
    }
    mpsr_format(why, MPSR_WHY_BYTES,
                "cannot be seen here: %s: the prolog did not run, or this is a container: mount it "
                "(srun --container-mounts=%s:%s)",
                run, run, run);
    return true;
}

enum mpsr_lease_answer mpsr_lease_load(const char *path, struct mpsr_lease *lease,
                                       char why[MPSR_WHY_BYTES]) {
    char text[MPSR_LEASE_BYTES], reason[MPSR_WHY_BYTES];
    enum mpsr_lease_answer answer = trusted_text(path, text, sizeof(text), why);
    if (answer == MPSR_LEASE_ABSENT && hidden(path, why))
        return MPSR_LEASE_HIDDEN;
    if (answer != MPSR_LEASE_OK || mpsr_lease_parse(text, lease, reason))
        return answer;
    snprintf(why, MPSR_WHY_BYTES, "%.150s: %.80s", path, reason);
    return MPSR_LEASE_BAD;
}

bool mpsr_lease_together(const struct mpsr_lease *lease) {
    return !strcmp(lease->options.value[MPSR_OPTION_SERVERS], "job");
}

/* The minor number that names the servers of a GPU. */
static long named_by(const struct mpsr_lease *lease, int gpu) {
    return lease->gpu[mpsr_lease_together(lease) ? 0 : gpu].minor;
}

bool mpsr_lease_active(const struct mpsr_lease *lease, int gpu, char color[MPSR_VALUE_BYTES]) {
    char path[MPSR_LEASE_PATH], minor[24], text[MPSR_VALUE_BYTES], why[MPSR_WHY_BYTES];
    snprintf(minor, sizeof(minor), "%ld", named_by(lease, gpu));
    if (!mpsr_format(path, sizeof(path), MPSR_PATH_ACTIVE, lease->run, lease->node, lease->domain,
                     minor) ||
        trusted_text(path, text, sizeof(text), why) != MPSR_LEASE_OK)
        return false;
    text[strcspn(text, " \n")] = '\0';
    return color_word(text) && mpsr_copy(color, MPSR_VALUE_BYTES, text);
}

bool mpsr_lease_partition(const struct mpsr_lease *lease, int gpu, const char *color,
                          char partition[MPSR_LEASE_WORD]) {
    char path[MPSR_LEASE_PATH], minor[24], text[MPSR_LEASE_BYTES], why[MPSR_WHY_BYTES],
        *rest = text;
    long slot = 0;
    partition[0] = '\0';
    for (int index = 0; index < lease->slots; index++)
        if (lease->slot[index].minor == lease->gpu[gpu].minor)
            slot = lease->slot[index].slot;
    if (!slot || !mpsr_list_has(lease->colors, color))
        return true;
    snprintf(minor, sizeof(minor), "%ld", named_by(lease, gpu));
    if (!mpsr_format(path, sizeof(path), MPSR_PATH_PARTITIONS, lease->run, lease->node,
                     lease->domain, minor, color) ||
        trusted_text(path, text, sizeof(text), why) != MPSR_LEASE_OK)
        return false;
    while (--slot && rest)
        strsep(&rest, "\n");
    const char *line = strsep(&rest, "\n");
    return line && strchr(line, '/') && mpsr_copy(partition, MPSR_LEASE_WORD, line);
}

bool mpsr_lease_pipe(const struct mpsr_lease *lease, int gpu, const char *color,
                     char pipe[MPSR_LEASE_PATH]) {
    char minor[24];
    snprintf(minor, sizeof(minor), "%ld", named_by(lease, gpu));
    return color_word(color) && mpsr_format(pipe, MPSR_LEASE_PATH, MPSR_PATH_PIPE, lease->run,
                                            lease->node, lease->domain, minor, color);
}
