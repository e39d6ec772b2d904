/* What every other file here needs: the clock of all deadlines, a line on standard error, a line in
 * the job's recovery log. */
#include "shared/text.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_WHY = 160 };
#define LOG ".log"
#define RECORDS ".jsonl" /* beside it */

long long now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

long long now_ms(void) {
    return now_us() / 1000;
}

void say(const char *format, ...) {
    char line[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof(line), format, values);
    va_end(values);
    mpsr_one_line(line);
    dprintf(2, MPSR_TAG ": %s\n", line);
}

/* A file that we have made, or that this user has: a plain one with no other name, since others may
 * write the directory of the job's output, too. -1 and why not. */
static int log_file(const char *path, char why[LOG_WHY]) {
    enum { FLAGS = O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK };
    struct stat found;
    if (*path != '/') {
        mpsr_copy(why, LOG_WHY, "no absolute path");
        return -1;
    }
    int fd = open(path, FLAGS | O_CREAT | O_EXCL, 0600);
    if (fd >= 0)
        return fd;
    if (errno == EEXIST)
        fd = open(path, FLAGS);
    if (fd < 0 || fstat(fd, &found)) {
        mpsr_copy(why, LOG_WHY, strerror(errno));
    } else if (!S_ISREG(found.st_mode) || found.st_uid != geteuid() || found.st_nlink != 1) {
        snprintf(why, LOG_WHY, "is not a plain file of this user alone: uid %u mode %o links %lu",
                 found.st_uid, found.st_mode, (unsigned long)found.st_nlink);
        close(fd);
        fd = -1;
    }
    return fd;
}

/* As the user, whole lines only (O_APPEND). */
static bool append(const char *path, const char *line, char why[LOG_WHY]) {
    int fd = log_file(path, why);
    if (fd < 0)
        return false;
    bool good = dprintf(fd, "%s\n", line) >= 0;
    if (!good)
        mpsr_copy(why, LOG_WHY, strerror(errno));
    close(fd);
    return good;
}

/* The file for programs beside a log. */
static bool append_record(const char *log, const char *line, char why[LOG_WHY]) {
    char path[MPSR_LEASE_PATH];
    size_t size = strlen(log), ending = sizeof(LOG) - 1;
    size_t stem = size > ending && !strcmp(log + size - ending, LOG) ? size - ending : size;
    mpsr_copy(why, LOG_WHY, strerror(ENAMETOOLONG));
    return mpsr_format(path, sizeof(path), "%.*s" RECORDS, (int)stem, log) &&
           append(path, line, why);
}

/* At the first of the places that can be written, the home directory last; `why` is of the first.
 */
static bool put(const struct supervisor *self,
                bool (*at)(const char *log, const char *line, char why[LOG_WHY]), const char *line,
                char why[LOG_WHY]) {
    char own[MPSR_LEASE_PATH], later[LOG_WHY];
    const char *home = getenv("HOME");
    return at(self->log[0], line, why) || at(self->log[1], line, later) ||
           (home && mpsr_format(own, sizeof(own), "%s/mpsr-%ld" LOG, home, self->task.lease.job) &&
            at(own, line, later));
}

void recovery_log(const struct supervisor *self, const char *line) {
    char why[LOG_WHY];
    if (put(self, append, line, why))
        return;
    say("recovery log: cannot be written: %s: %s", self->log[0], why);
    say("%s", line);
}

void recovery_record(const struct supervisor *self, const char *line) {
    char why[LOG_WHY];
    put(self, append_record, line, why); /* what it tells of is in the log, or has been said */
}

void tell_user(const struct supervisor *self, const char *text) {
    char line[512], stamp[32];
    struct timespec time;
    struct tm local;
    say("%s", text);
    if (!*self->log[0])
        return;
    clock_gettime(CLOCK_REALTIME, &time);
    localtime_r(&time.tv_sec, &local);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &local);
    mpsr_format(line, sizeof(line), "%s.%03ld mpsr[%s] step %ld task %ld: %s", stamp,
                time.tv_nsec / 1000000, self->task.lease.node, self->task.step, self->task.rank,
                text);
    recovery_log(self, line);
}

void log_of_agent(struct supervisor *self, const struct words *words) {
    mpsr_copy(self->log[0], sizeof(self->log[0]), words_get(words, "path"));
    mpsr_copy(self->log[1], sizeof(self->log[1]), words_get(words, "other"));
    recovery_log(self, words_get(words, "line"));
    if (*words_get(words, "record"))
        recovery_record(self, words_get(words, "record"));
}
