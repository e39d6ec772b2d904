/* See packet.h. Pure. */
#include "packet.h"

#include "shared/text.h"

#include <stdio.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"

static bool refuse(char why[WORDS_WHY], const char *wrong, const char *observed) {
    snprintf(why, WORDS_WHY, "%s: %.80s", wrong, observed);
    mpsr_one_line(why);
    return false;
}

bool words_unpack(const char *data, size_t length, struct words *words, char why[WORDS_WHY]) {
    words->count = 0;
    words->verb = "";
    if (length > MPSR_MAX_MESSAGE_BYTES)
        return refuse(why, "message too long", "");
    if (memchr(data, '\0', length))
        return refuse(why, "NUL in a message", "");
    memcpy(words->text, data, length);
    words->text[length] = '\0';
    char *rest = words->text;
    words->verb = strsep(&rest, " ");
    if (!*words->verb || *words->verb == '_' || words->verb[strspn(words->verb, LOWER "_")])
        return refuse(why, "bad verb", words->verb);
    for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " ")) {
        char *value = strchr(word, '=');
        if (!value || value == word)
            return refuse(why, "not key=value", word);
        *value++ = '\0';
        if (word[strspn(word, LOWER "0123456789_")])
            return refuse(why, "not key=value", word);
        for (int index = 0; index < words->count; index++)
            if (!strcmp(words->pair[index].key, word))
                return refuse(why, "key given twice", word);
        if (!mpsr_decode(value))
            return refuse(why, "value is not percent-encoded UTF-8", word);
        words->pair[words->count].key = word;
        words->pair[words->count++].value = value;
    }
    return true;
}

const char *words_get(const struct words *words, const char *key) {
    for (int index = 0; index < words->count; index++)
        if (!strcmp(words->pair[index].key, key))
            return words->pair[index].value;
    return "";
}

void packet_begin(struct packet *packet, const char *verb) {
    packet->whole = mpsr_copy(packet->text, sizeof(packet->text), verb);
    packet->length = strlen(packet->text);
}

void packet_text(struct packet *packet, const char *key, const char *value) {
    char *at = packet->text + packet->length;
    size_t room = sizeof(packet->text) - packet->length;
    if (!packet->whole)
        return;
    packet->whole = mpsr_format(at, room, " %s=", key);
    if (packet->whole) {
        size_t used = strlen(at);
        packet->whole = mpsr_encode(value, at + used, room - used);
    }
    if (packet->whole)
        packet->length += strlen(at);
}

void packet_number(struct packet *packet, const char *key, long long value) {
    char text[24];
    snprintf(text, sizeof(text), "%lld", value);
    packet_text(packet, key, text);
}
