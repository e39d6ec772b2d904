/* The connection to the node agent: one packet in, one packet out, never waiting.
 *
 * Relies on the socket path of the lease, which lies below directories that only root may write. A
 * lost connection is not an error here: sends are dropped, and the loop connects again.
 */
#ifndef MPSR_AGENT_H
#define MPSR_AGENT_H

#include "packet.h"

struct agent {
    int fd;      /* -1: not connected */
    bool placed; /* this connection's hello has been answered */
    bool ever;   /* some connection's was */
};

enum agent_news { AGENT_NOTHING, AGENT_MESSAGE, AGENT_MALFORMED, AGENT_LOST };

bool agent_connect(struct agent *agent, const char *path);
void agent_close(struct agent *agent);
bool agent_send(struct agent *agent, const struct packet *packet);
enum agent_news agent_receive(struct agent *agent, struct words *words, char why[WORDS_WHY]);

/* The same, for any SOCK_SEQPACKET socket. */
enum agent_news packet_receive(int fd, struct words *words, char why[WORDS_WHY]);
bool packet_send(int fd, const struct packet *packet);

#endif
