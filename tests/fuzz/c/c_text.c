/* Percent-encoding, numbers, and what is shown of others' text. */
#include "fuzz.h"
#include "shared/options.h"
#include "shared/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = fuzz_text(data, size), small[16];
    size_t room = 3 * size + 1;
    char *coded = malloc(room), *back;
    long number = 0;
    assert(coded && mpsr_encode(text, coded, room));
    back = strdup(coded);
    if (mpsr_decode(back))
        assert(!strcmp(back, text));
    free(back);
    mpsr_encode(text, small, sizeof(small));
    if (mpsr_number(text, 3, 4095, &number))
        assert(number >= 3 && number <= 4095);
    mpsr_list_has(text, "restore");
    mpsr_list_has("standby,restore", text);
    mpsr_one_line(text);
    for (const char *at = text; *at; at++)
        assert((unsigned char)*at >= ' ' && *at != 0x7f);
    mpsr_decode(text);
    free(coded);
    free(text);
    return 0;
}
