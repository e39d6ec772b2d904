/* A packet of the agent or of a program to the supervisor, there and back. */
#include "fuzz.h"
#include "launcher/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct words words, again;
    static struct packet packet;
    char why[WORDS_WHY];
    char *exact = malloc(size ? size : 1); /* no NUL behind it, as recv has it */
    assert(exact);
    if (size)
        memcpy(exact, data, size);
    bool good = words_unpack(exact, size, &words, why);
    free(exact);
    if (!good)
        return 0;
    packet_begin(&packet, words.verb);
    for (int index = 0; index < words.count; index++)
        packet_text(&packet, words.pair[index].key, words.pair[index].value);
    assert(packet.whole); /* its own form is never longer than another one */
    assert(words_unpack(packet.text, packet.length, &again, why));
    assert(!strcmp(words.verb, again.verb) && words.count == again.count);
    for (int index = 0; index < words.count; index++)
        assert(!strcmp(words_get(&again, words.pair[index].key), words.pair[index].value));
    return 0;
}
