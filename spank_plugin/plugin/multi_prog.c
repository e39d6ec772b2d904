/* Is this a step of `srun --multi-prog`? Slurm does not tell a plugin.
 *
 * Relies on what srun makes of it (22.05 to 26.05, tried): two arguments, the configuration's path
 * and its whole text; each task's own command is put in their place later, where no plugin sees it.
 * The text is the file's, which nobody passes to a program about itself. Where the file cannot be
 * read on this node, a text of lines that begin with ranks, behind something that cannot be run,
 * counts as one.
 */
#include "plugin.h"
#include "shared/text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool text_of_file(const char *path, const char *text) {
    FILE *file = fopen(path, "re");
    char part[4096];
    bool same = file != NULL;
    for (size_t length = 0; same && (length = fread(part, 1, sizeof(part), file)) > 0;
         text += length)
        same = strnlen(text, length) == length && !memcmp(part, text, length);
    if (file)
        fclose(file);
    return same && !*text;
}

static bool lines_of_ranks(const char *text) {
    bool lines = strchr(text, '\n') != NULL, ranks = false;
    for (const char *line = text; lines && line; line = strchr(line, '\n')) {
        line += strspn(line, " \t\n");
        if (!*line)
            break;
        if (*line == '#')
            continue;
        ranks = isdigit((unsigned char)*line) || *line == '*';
        lines = ranks;
    }
    return lines && ranks;
}

/* Could the task's process run it? A name without a slash is looked for on the task's PATH. */
static bool can_be_run(const char *program, const char *path) {
    char file[MPSR_LEASE_PATH];
    if (strchr(program, '/'))
        return access(program, X_OK) == 0;
    while (*path) {
        size_t length = strcspn(path, ":");
        if (mpsr_format(file, sizeof(file), "%.*s/%s", (int)length, path, program) &&
            access(file, X_OK) == 0)
            return true;
        path += length + (path[length] == ':');
    }
    return false;
}

bool mpsr_several_programs(int count, char *const *arguments, const char *path) {
    return count == 2 && (text_of_file(arguments[0], arguments[1]) ||
                          (lines_of_ranks(arguments[1]) && !can_be_run(arguments[0], path)));
}
