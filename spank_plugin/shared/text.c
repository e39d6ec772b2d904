/* See text.h. The encoding is docs/reference/protocols.md §1; resilience/parse/packet.py is its
 * twin in Python. */
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool mpsr_copy(char *out, size_t size, const char *text) {
    size_t length = strlen(text);
    if (length >= size) {
        out[0] = '\0';
        return false;
    }
    memcpy(out, text, length + 1);
    return true;
}

bool mpsr_format(char *out, size_t size, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int length = vsnprintf(out, size, format, values);
    va_end(values);
    return length >= 0 && (size_t)length < size;
}

bool mpsr_number(const char *text, long low, long high, long *value) {
    if (!*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    long number = strtol(text, NULL, 10);
    if (errno || number < low || number > high)
        return false;
    *value = number;
    return true;
}

static bool plain(unsigned char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || (byte && strchr("-._~,:/;=+", byte));
}

static int nibble(char digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool utf8(const unsigned char *at) {
    while (*at) {
        unsigned char first = *at++;
        if (first < 0x80)
            continue;
        int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4)
            return false;
        unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        for (; more > 0; more--, low = 0x80, high = 0xBF) {
            if (*at < low || *at > high)
                return false;
            at++;
        }
    }
    return true;
}

void mpsr_one_line(char *text) {
    bool foreign = !utf8((const unsigned char *)text);
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f || (foreign && (unsigned char)*text > 0x7f))
            *text = '?';
}

bool mpsr_decode(char *text) {
    char *out = text;
    for (const char *at = text; *at; at++) {
        if (*at != '%') {
            if (!plain((unsigned char)*at))
                return false;
            *out++ = *at;
            continue;
        }
        int high = nibble(at[1]);
        int low = high < 0 ? -1 : nibble(at[2]);
        if (low < 0 || (high == 0 && low == 0))
            return false;
        *out++ = (char)(high * 16 + low);
        at += 2;
    }
    *out = '\0';
    return utf8((const unsigned char *)text);
}

bool mpsr_encode(const char *text, char *out, size_t size) {
    size_t used = 0;
    for (const char *at = text; *at; at++) {
        unsigned char byte = (unsigned char)*at;
        size_t need = plain(byte) ? 1 : 3;
        if (used + need >= size)
            return false;
        if (need == 1)
            out[used] = *at;
        else
            snprintf(out + used, size - used, "%%%02X", byte);
        used += need;
    }
    if (used >= size)
        return false;
    out[used] = '\0';
    return true;
}
