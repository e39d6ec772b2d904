/* mpsr-hook: the request that it makes of an environment, and what it makes of a server's answer.
 */
#define main hook_main
#include "hook/hook.c"
#undef main

#include "fuzz.h"

/* Lines as an environment; its request holds each of them, whole and in order. */
static void asks(char *text) {
    enum { MOST = 256 };
    static char *entries[MOST + 1];
    char **before = environ, *rest = text;
    size_t count = 0, length = 0;
    while (rest && count < MOST)
        entries[count++] = strsep(&rest, "\n");
    entries[count] = NULL;
    environ = entries;
    char *data = request("prolog", &length);
    environ = before;
    assert(data && length > sizeof(uint32_t));
    uint32_t told;
    memcpy(&told, data, sizeof(told));
    assert(told == length - sizeof(told));
    const char *at = data + sizeof(told);
    assert(!strcmp(at, "prolog"));
    at += strlen(at) + 1;
    for (size_t index = 0; index < count; index++, at += strlen(at) + 1)
        assert(!strcmp(at, entries[index]));
    assert(at == data + length);
    free(data);
}

/* Bytes as the answer: the first is the status. */
static void hears(const uint8_t *data, size_t size) {
    int ends[2], streams[2] = {-1, -1}, writing[2];
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    for (int index = 0; index < 2; index++) {
        assert(make_pipe(&streams[index], &writing[index]));
        close(writing[index]);
    }
    size_t part = size < 4096 ? size : 4096; /* what a socket takes without a reader */
    assert(!part || write(ends[1], data, part) == (ssize_t)part);
    close(ends[1]);
    int status = follow(ends[0], streams);
    assert(status == (part ? data[0] : -1));
    close(ends[0]);
    close(streams[0]);
    close(streams[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = fuzz_text(data, size);
    asks(text);
    free(text);
    hears(data, size);
    return 0;
}
