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

/* As the user, never through a link, whole lines only (O_APPEND), into a regular file. */
static bool append(const char *path, const char *line) {
    struct stat status;
    if (*path != '/')
        return false;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return false;
    errno = EINVAL; /* of what is there and no file */
    bool good = !fstat(fd, &status) && S_ISREG(status.st_mode) && dprintf(fd, "%s\n", line) >= 0;
    int why = errno;
    close(fd);
    errno = why;
    return good;
}

void recovery_log(const struct supervisor *self, const char *line) {
    char own[MPSR_LEASE_PATH];
    const char *home = getenv("HOME");
    if (append(self->log[0], line))
        return;
    int why = errno;
    if (append(self->log[1], line) ||
        (home && mpsr_format(own, sizeof(own), "%s/mpsr-%ld.log", home, self->task.lease.job) &&
         append(own, line)))
        return;
    say("recovery log: cannot be written: %s: %s", self->log[0], strerror(why));
}
