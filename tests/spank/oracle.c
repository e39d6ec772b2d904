/* Asks the C parsers about input that a test makes up: one question a line on standard input, one
 * answer a line.
 *
 * Questions are a verb and hex-encoded text; answers begin with `ok` or `no`. Built with ASan and
 * UBSan by conftest.py, so that a memory error ends the process and with it the test. Compared with
 * the twins in Python by test_twins.py.
 */
#include "launcher/packet.h"
#include "launcher/transitions.h"
#include "plugin/requested_options.h"
#include "plugin/script.h"
#include "shared/text.h"
#include "shared/visible.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 65536 };

/* The bytes behind hex digits, with a terminator behind them, in memory of exactly that size: an
 * overrun shows. */
static char *unhex(const char *hex, size_t *length) {
    *length = strlen(hex) / 2;
    char *bytes = malloc(*length + 1);
    for (size_t index = 0; index < *length; index++) {
        unsigned value = 0;
        sscanf(hex + 2 * index, "%2x", &value);
        bytes[index] = (char)value;
    }
    bytes[*length] = '\0';
    return bytes;
}

static void put(const char *text) {
    putchar(' ');
    for (const char *at = text; *at; at++)
        printf("%02x", (unsigned char)*at);
}

static void words(const char *bytes, size_t length) {
    static struct words parsed;
    char why[WORDS_WHY];
    if (!words_unpack(bytes, length, &parsed, why)) {
        printf("no %s", why);
        return;
    }
    printf("ok %s", parsed.verb);
    for (int index = 0; index < parsed.count; index++) {
        printf(" %s", parsed.pair[index].key);
        put(words_get(&parsed, parsed.pair[index].key));
    }
}

static void pack(const char *value) {
    struct packet packet;
    packet_begin(&packet, "log");
    packet_text(&packet, "line", value);
    printf("%s", packet.whole ? "ok" : "no");
    if (packet.whole)
        put(packet.text);
}

static void options(const char *text) {
    struct mpsr_options parsed;
    char why[MPSR_WHY_BYTES], wire[MPSR_WIRE_MAX_BYTES + 1];
    bool good = mpsr_options_parse(text, &parsed, why);
    if (good)
        mpsr_options_serialize(&parsed, wire);
    printf("%s %s", good ? "ok" : "no", good ? wire : why);
}

static void lease(char *text) {
    static struct mpsr_lease parsed;
    char why[MPSR_WHY_BYTES];
    if (!mpsr_lease_parse(text, &parsed, why)) {
        printf("no %s", why);
        return;
    }
    printf("ok %ld %u %d %d", parsed.job, parsed.uid, parsed.open, parsed.gpus);
    putchar(' ');
    for (int index = 0; index < parsed.slots; index++)
        printf("%ld:%ld,", parsed.slot[index].minor, parsed.slot[index].slot);
    printf(". ");
    for (int index = 0; index < parsed.numbers; index++)
        printf("%ld,", parsed.gpu[index].number);
    putchar('.');
    const char *const texts[] = {parsed.reason, parsed.node,     parsed.domain, parsed.isolation,
                                 parsed.colors, parsed.run,      parsed.agent,  parsed.python,
                                 parsed.spill,  parsed.partition};
    for (size_t index = 0; index < sizeof(texts) / sizeof(texts[0]); index++)
        put(texts[index]);
    for (int index = 0; index < parsed.gpus; index++) {
        printf(" %ld", parsed.gpu[index].minor);
        put(parsed.gpu[index].uuid);
    }
}

/* Which GPUs: `number:uuid` of the job's, `job` or `gpu` (servers), local rank,
 * CUDA_VISIBLE_DEVICES and SLURM_STEP_GPUS (`-`: not set), joined by ';'. Answers UUIDs, places and
 * memory limits. */
static void gpus(char *text) {
    static struct mpsr_lease made;
    struct mpsr_visible visible;
    char uuids[MPSR_VISIBLE_BYTES], places[MPSR_VISIBLE_BYTES], limits[MPSR_VISIBLE_BYTES];
    char *held = strsep(&text, ";"), *servers = strsep(&text, ";"), *local = strsep(&text, ";"),
         *cuda = strsep(&text, ";"), *rest = NULL;
    made.gpus = 0;
    for (char *one = strtok_r(held, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        struct mpsr_lease_gpu *gpu = &made.gpu[made.gpus++];
        gpu->number = atol(strsep(&one, ":"));
        mpsr_format(gpu->uuid, MPSR_VALUE_BYTES, "%s", one);
    }
    mpsr_copy(made.options.value[MPSR_OPTION_SERVERS], MPSR_VALUE_BYTES, servers);
    mpsr_visible_given(&made, strcmp(cuda, "-") ? cuda : NULL, strcmp(text, "-") ? text : NULL,
                       &visible);
    int given = visible.count;
    mpsr_visible_joined(&made, atol(local), &visible);
    mpsr_visible_uuids(&made, &visible, uuids);
    mpsr_visible_places(&visible, places);
    mpsr_visible_limits(&visible, "512", limits);
    printf("ok %d %s %s %s", given, uuids, places, limits);
}

/* Arguments of plugstack.conf, then options as given (key=text), then the partition where one is
 * entered: parted by '|', items by ' '. */
static void site(char *text) {
    static struct mpsr_site read;
    struct mpsr_asked asked = {0};
    struct mpsr_options force;
    char *list = strsep(&text, "|"), *given = strsep(&text, "|"), *arguments[64], *rest = NULL;
    char line[2 * MPSR_WHY_BYTES], wire[MPSR_WIRE_MAX_BYTES + 1];
    int count = 0;
    for (char *item = strtok_r(list, " ", &rest); item && count < 64;
         item = strtok_r(NULL, " ", &rest))
        arguments[count++] = item;
    mpsr_site_read(&read, count, arguments);
    if (read.broken) {
        printf("no %s", read.why);
        return;
    }
    if (text)
        mpsr_site_enter(&read, text);
    for (char *item = strtok_r(given ? given : "", " ", &rest); item;
         item = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(item, '=');
        if (value)
            *value++ = '\0';
        int index = mpsr_option_of_key(item);
        if (index < 0 || !mpsr_ask(&asked, &read, index, value, line)) {
            printf("no %s", index < 0 ? "unknown key" : line);
            return;
        }
    }
    mpsr_in_force(&asked, &read, &force);
    mpsr_options_serialize(&force, wire);
    printf("ok %s", wire);
}

static bool put_option(void *nothing, int index, const char *value) {
    (void)nothing;
    printf(" %s", mpsr_option_specs[index].key);
    put(value ? value : "(null)");
    return true;
}

static void script(char *text) {
    char *copy = strdup(text);
    printf("ok %d", mpsr_script_supervised(copy));
    free(copy);
    mpsr_script_options(text, put_option, NULL);
}

static void table(void) {
    printf("ok");
    for (int state = 0; state < STATES; state++)
        for (int event = 0; event < EVENTS; event++) {
            const struct cell *cell = &verdict_table[state][event];
            printf(" %d:%d:%d:%d:%d", state, event, cell->action, cell->next, cell->otherwise);
        }
}

int main(void) {
    static char line[2 * MOST + 64];
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *hex = strchr(line, ' ');
        size_t length = 0;
        if (hex)
            *hex++ = '\0';
        char *text = unhex(hex ? hex : "", &length);
        if (!strcmp(line, "words"))
            words(text, length);
        else if (!strcmp(line, "pack"))
            pack(text);
        else if (!strcmp(line, "options"))
            options(text);
        else if (!strcmp(line, "lease"))
            lease(text);
        else if (!strcmp(line, "gpus"))
            gpus(text);
        else if (!strcmp(line, "site"))
            site(text);
        else if (!strcmp(line, "script"))
            script(text);
        else if (!strcmp(line, "table"))
            table();
        else
            printf("no such question");
        putchar('\n');
        fflush(stdout);
        free(text);
    }
    return 0;
}
