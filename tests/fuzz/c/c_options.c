/* The string of options of a user, and each value against a site's rules. */
#include "fuzz.h"
#include "plugin/site.h"
#include "shared/options.h"

static void whole(const char *text) {
    struct mpsr_options options, again;
    char why[MPSR_WHY_BYTES] = "", wire[MPSR_WIRE_MAX_BYTES + 1];
    if (!mpsr_options_parse(text, &options, why)) {
        assert(*why && !strchr(why, '\n'));
        return;
    }
    mpsr_options_serialize(&options, wire);
    assert(mpsr_options_parse(wire, &again, why));
    assert(!memcmp(options.value[0], again.value[0], strlen(options.value[0])));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mpsr_site site;
    char lock[] = "lock=threads", forbid[] = "forbid=recover=requeue";
    char *text = fuzz_text(data, size), value[MPSR_VALUE_BYTES], why[MPSR_WHY_BYTES];
    char *arguments[] = {lock, forbid};
    whole(text);
    mpsr_site_read(&site, 2, arguments);
    for (int index = 0; index < MPSR_OPTIONS; index++)
        if (mpsr_option_check(index, text, value, why))
            mpsr_site_allows(&site, index, value, why);
    char *words = text, *own[] = {words, words + strlen(words) / 2};
    mpsr_site_read(&site, 2, own);
    free(text);
    return 0;
}
