/* What a keeper or a spiller says on its pipe, in pieces of any size. */
#include "fuzz.h"
#include "launcher/helpers.h"

#include <fcntl.h>
#include <unistd.h>

static void take(void *context, const char *line) {
    struct spiller *spiller = context;
    assert(strlen(line) < HELPER_LINE);
    spiller_line(spiller, line);
    assert(spiller->seq >= -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct spiller spiller = {.seq = -1};
    struct lines lines = {.fd = -1};
    int ends[2];
    assert(!pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    lines.fd = ends[0];
    for (size_t at = 0; at < size;) {
        size_t piece = 1 + data[at] * 4u;
        piece = piece < size - at ? piece : size - at;
        assert(write(ends[1], data + at, piece) == (ssize_t)piece);
        at += piece;
        lines_read(&lines, take, &spiller);
        assert(lines.used < HELPER_LINE);
    }
    close(ends[1]);
    lines_read(&lines, take, &spiller);
    lines_close(&lines);
    return 0;
}
