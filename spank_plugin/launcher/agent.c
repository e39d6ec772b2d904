/* See agent.h. */
#include "agent.h"

#include "shared/text.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool agent_connect(struct agent *agent, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    agent_close(agent);
    if (!mpsr_copy(address.sun_path, sizeof(address.sun_path), path))
        return false;
    agent->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (agent->fd >= 0 && !connect(agent->fd, (const struct sockaddr *)&address, sizeof(address)))
        return true;
    agent_close(agent);
    return false;
}

void agent_close(struct agent *agent) {
    if (agent->fd >= 0)
        close(agent->fd);
    agent->fd = -1;
    agent->placed = false;
}

bool packet_send(int fd, const struct packet *packet) {
    return fd >= 0 && packet->whole &&
           send(fd, packet->text, packet->length, MSG_NOSIGNAL | MSG_DONTWAIT) ==
               (ssize_t)packet->length;
}

bool agent_send(struct agent *agent, const struct packet *packet) {
    return packet_send(agent->fd, packet);
}

enum agent_news packet_receive(int fd, struct words *words, char why[WORDS_WHY]) {
    char data[MPSR_MAX_MESSAGE_BYTES + 1]; /* one byte more than allowed: a longer packet shows */
    ssize_t length = recv(fd, data, sizeof(data), MSG_DONTWAIT);
    if (length < 0)
        return errno == EAGAIN || errno == EINTR ? AGENT_NOTHING : AGENT_LOST;
    if (length == 0)
        return AGENT_LOST;
    return words_unpack(data, (size_t)length, words, why) ? AGENT_MESSAGE : AGENT_MALFORMED;
}

enum agent_news agent_receive(struct agent *agent, struct words *words, char why[WORDS_WHY]) {
    return packet_receive(agent->fd, words, why);
}
