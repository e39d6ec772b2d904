/* Messages between supervisor and agent, supervisor and program: a verb, then key=value words in
 * one packet.
 *
 * Format: docs/reference/protocols.md §1. The twin in Python is resilience/parse/packet.py;
 * tests/data/words.json tests both. Two differences, both on purpose: a NUL inside a value is
 * refused here, and no function ever allocates.
 */
#ifndef MPSR_WORDS_H
#define MPSR_WORDS_H

#include "contract.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    WORDS_PAIRS = MPSR_MAX_MESSAGE_BYTES / 3, /* the shortest pair is " k=" */
    WORDS_WHY = 160,
};

struct words {
    char text[MPSR_MAX_MESSAGE_BYTES + 1];
    const char *verb;
    int count;
    struct {
        const char *key, *value;
    } pair[WORDS_PAIRS];
};

struct packet {
    char text[MPSR_MAX_MESSAGE_BYTES + 1];
    size_t length;
    bool whole; /* false once something did not fit: such a packet is never sent */
};

/* Take a packet apart; false: `why` says what does not follow the format. */
bool words_unpack(const char *data, size_t length, struct words *words, char why[WORDS_WHY]);

/* The value of a key, or "" when the message does not carry it. */
const char *words_get(const struct words *words, const char *key);

void packet_begin(struct packet *packet, const char *verb);
void packet_text(struct packet *packet, const char *key, const char *value);
void packet_number(struct packet *packet, const char *key, long long value);

#endif
