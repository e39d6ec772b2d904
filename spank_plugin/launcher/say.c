/* What every other file here needs: the clock of all deadlines, a line on standard error, a line in
 * the job's recovery log. */
#include "shared/text.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
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

/* As the user, never through a link, whole lines only (O_APPEND). */
void recovery_log(const char *path, const char *line) {
    int fd =
        *path == '/'
            ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600)
            : -1;
    if (fd < 0 || dprintf(fd, "%s\n", line) < 0)
        say("recovery log: cannot be written: %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}
