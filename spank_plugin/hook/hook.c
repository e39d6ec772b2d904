/* mpsr-hook prolog|epilog: has the node's hook server do what `mpsr prolog` would do, without the
 * start of Python (docs/reference/protocols.md, "Hook server").
 *
 * It hands over its environment and two pipes, copies what comes out of them to standard output and
 * standard error, and ends with the status that comes back. (Not the streams themselves: a server
 * that is stopped would hold them, and with them whoever reads what this program writes.) Relies on
 * nothing: where no server is, or it does not take the request at once, or ends before it has
 * answered, this program becomes $MPSR_BIN, which does the same work; to be done twice, even at the
 * same time, is what prolog and epilog are made for. A server ends the work when this program goes
 * away.
 *
 * MPSR_BIN and MPSR_HOOK_SOCKET come from the site's hook. Nothing here is read from users.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    TAKEN_MS = 1000, /* a server takes a request within milliseconds; one that is stopped never */
    NOT_EXECUTABLE = 126,
    NOT_FOUND = 127,
};

extern char **environ;

/* uint32 length, then `name` and the environment's entries, each with its NUL. The length of all of
 * it; NULL when there is no memory. */
static char *request(const char *name, size_t *length) {
    size_t bytes = strlen(name) + 1;
    for (char **entry = environ; *entry; entry++)
        bytes += strlen(*entry) + 1;
    *length = sizeof(uint32_t) + bytes;
    char *data = malloc(*length);
    if (!data || bytes > UINT32_MAX) {
        free(data);
        return NULL;
    }
    const uint32_t number = (uint32_t)bytes;
    memcpy(data, &number, sizeof(number));
    char *end = stpcpy(data + sizeof(number), name) + 1;
    for (char **entry = environ; *entry; entry++)
        end = stpcpy(end, *entry) + 1;
    return data;
}

/* All of it; the first part brings the two descriptors along. */
static bool send_all(int fd, char *data, size_t length, const int streams[2]) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = data, .iov_len = length};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(header), streams, 2 * sizeof(int));
    while (part.iov_len > 0) {
        const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        part.iov_base = (char *)part.iov_base + sent;
        part.iov_len -= (size_t)sent;
        message.msg_control = NULL;
        message.msg_controllen = 0;
    }
    return true;
}

/* What is in a pipe now, to a stream. False at the pipe's end. */
static bool drain(int from, int to) {
    char text[4096];
    ssize_t length;
    while ((length = read(from, text, sizeof(text))) > 0)
        for (ssize_t done = 0, part; done < length; done += part)
            if ((part = write(to, text + done, (size_t)(length - done))) <= 0)
                break; /* nobody reads there: the work goes on all the same */
    return length < 0;
}

/* The exit status of the work, -1 when it comes to none; until then what it writes. The work has
 * written all of it before it sends the status. */
static int follow(int fd, const int streams[2]) {
    struct pollfd all[3] = {{.fd = streams[0], .events = POLLIN},
                            {.fd = streams[1], .events = POLLIN},
                            {.fd = fd, .events = POLLIN}};
    while (poll(all, 3, -1) > 0) {
        unsigned char status;
        const bool ended = all[2].revents != 0;
        for (int stream = 0; stream < 2; stream++)
            if (all[stream].fd >= 0 && !drain(all[stream].fd, STDOUT_FILENO + stream))
                all[stream].fd = -1;
        if (ended)
            return read(fd, &status, 1) == 1 ? status : -1;
    }
    return -1;
}

/* A connection to the server of this node, -1 when there is none. */
static int server(void) {
    const char *path = getenv("MPSR_HOOK_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof(address.sun_path))
        return -1;
    strcpy(address.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = TAKEN_MS / 1000};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* A pipe whose reading end does not block. */
static bool make_pipe(int *reading, int *writing) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *reading = ends[0];
    *writing = ends[1];
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

/* The exit status of the work, -1 when the server has not done it. */
static int served(const char *name) {
    int status = -1, reading[2], writing[2];
    const int fd = server();
    if (fd < 0 || !make_pipe(&reading[0], &writing[0]) || !make_pipe(&reading[1], &writing[1]))
        return -1;
    size_t length;
    char *data = request(name, &length), taken;
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    const bool sent = data && send_all(fd, data, length, writing);
    free(data);
    close(writing[0]);
    close(writing[1]);
    if (sent && poll(&answer, 1, TAKEN_MS) == 1 && read(fd, &taken, 1) == 1)
        status = follow(fd, reading);
    close(fd);
    return status;
}

int main(int argc, char **argv) {
    const char *name = argc == 2 ? argv[1] : "";
    const char *program = getenv("MPSR_BIN");
    if ((strcmp(name, "prolog") != 0 && strcmp(name, "epilog") != 0) || !program) {
        fprintf(stderr, "mpsr: hook: usage: MPSR_BIN=/path/of/mpsr mpsr-hook prolog|epilog\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    const int status = served(name);
    if (status >= 0)
        return status;
    signal(SIGPIPE, SIG_DFL);
    execl(program, program, name, (char *)NULL);
    fprintf(stderr, "mpsr: %s: cannot be run: %s: %s\n", name, program, strerror(errno));
    return errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}
