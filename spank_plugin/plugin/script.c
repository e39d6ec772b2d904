/* See script.h. */
#include "script.h"

#include "shared/options.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 8192 }; /* of a longer line the beginning counts */

/* `--mps`, `--mps-domain=job`, `--mps-domain job`: the option's number, -1 for another's. `*value`:
 * what follows the equals sign, NULL without one. */
static int option_of(char *word, char **value) {
    if (strncmp(word, "--", 2))
        return -1;
    char *equals = strchr(word, '=');
    if (equals)
        *equals = '\0';
    *value = equals ? equals + 1 : NULL;
    for (int index = 0; index < MPSR_OPTIONS; index++)
        if (!strcmp(word + 2, mpsr_option_specs[index].option))
            return index;
    return -1;
}

static bool take_line(char *line, bool (*take)(void *, int, const char *), void *with) {
    char *rest = NULL, *value = NULL;
    for (char *word = strtok_r(line, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest)) {
        if (*word == '#')
            return true; /* the rest is for people */
        int index = option_of(word, &value);
        if (index < 0)
            continue;
        if (!value && mpsr_option_specs[index].kind != MPSR_KIND_FLAG)
            value = strtok_r(NULL, " \t", &rest);
        if (!take(with, index, value))
            return false;
    }
    return true;
}

void mpsr_script_options(char *text, bool (*take)(void *with, int index, const char *value),
                         void *with) {
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        line[strcspn(line, "\r")] = '\0';
        if (line[strspn(line, " \t")] != '#' && line[strspn(line, " \t")])
            return;
        if (strncmp(line, "#SBATCH", 7) || !strchr(" \t", line[7]))
            continue;
        char *words = line + 7 + strspn(line + 7, " \t");
        if (!strncmp(words, "hetjob", 6) || !strncmp(words, "packjob", 7) ||
            !take_line(words, take, with))
            return;
    }
}

static bool of_a_word(char letter) {
    return isalnum((unsigned char)letter) || (letter && strchr("_-.", letter));
}

static bool has_word(const char *line, const char *word) {
    size_t length = strlen(word);
    for (const char *at = strstr(line, word); at; at = strstr(at + 1, word))
        if ((at == line || !of_a_word(at[-1])) && !of_a_word(at[length]) &&
            at[length] != '/') /* a directory of that name is no command */
            return true;
    return false;
}

bool mpsr_script_supervised(char *text) {
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (line[strspn(line, " \t")] != '#' &&
            (has_word(line, "srun") || has_word(line, "mpsr") || has_word(line, "mpsr-launch")))
            return true;
    return false;
}

bool mpsr_script_mpiexec(const char *text) {
    static const char *const NAMES[] = {"mpirun",         "mpiexec",         "mpiexec.hydra",
                                        "mpirun.openmpi", "mpiexec.openmpi", "mpirun.mpich",
                                        "mpiexec.mpich",  "orterun",         "prterun"};
    static char line[LINE_BYTES];
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
        if (line[strspn(line, " \t")] == '#' || has_word(line, "mpsr") ||
            has_word(line, "mpsr-launch"))
            continue;
        for (size_t index = 0; index < sizeof(NAMES) / sizeof(NAMES[0]); index++)
            if (has_word(line, NAMES[index]))
                return true;
    }
    return false;
}
