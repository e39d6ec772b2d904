/* See visible.h. */
#include "visible.h"

#include "text.h"

#include <stdio.h>
#include <string.h>

enum { WORDS = MPSR_LEASE_GPUS };

/* The numbers in a list; -1 when it is none, or has none. */
static int numbers_in(const char *text, long number[WORDS]) {
    char list[MPSR_VISIBLE_BYTES], *rest = list;
    int count = 0;
    if (!text || !*text || !mpsr_copy(list, sizeof(list), text))
        return -1;
    for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
        if (count == WORDS || !mpsr_number(word, 0, 4095, &number[count++]))
            return -1;
    return count;
}

static void add(struct mpsr_visible *visible, int gpu) {
    for (int index = 0; index < visible->count; index++)
        if (visible->gpu[index] == gpu)
            return;
    visible->gpu[visible->count++] = gpu;
}

static bool by_uuid(const struct mpsr_lease *lease, const char *text,
                    struct mpsr_visible *visible) {
    char list[MPSR_VISIBLE_BYTES], *rest = list;
    visible->count = 0;
    if (!text || !*text || !mpsr_copy(list, sizeof(list), text))
        return false;
    for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ",")) {
        int gpu = 0;
        while (gpu < lease->gpus && strcmp(lease->gpu[gpu].uuid, word) != 0)
            gpu++;
        if (gpu == lease->gpus)
            return false;
        add(visible, gpu);
    }
    return true;
}

/* By what Slurm calls them. */
static bool by_number(const struct mpsr_lease *lease, const long *number, int count,
                      struct mpsr_visible *visible) {
    visible->count = 0;
    for (int index = 0; index < count; index++) {
        int gpu = 0;
        while (gpu < lease->gpus && lease->gpu[gpu].number != number[index])
            gpu++;
        if (gpu == lease->gpus)
            return false;
        add(visible, gpu);
    }
    return count > 0;
}

/* By their places among `of`. */
static bool by_place(const long *number, int count, const struct mpsr_visible *of,
                     struct mpsr_visible *visible) {
    visible->count = 0;
    for (int index = 0; index < count; index++) {
        if (number[index] >= of->count)
            return false;
        add(visible, of->gpu[number[index]]);
    }
    return count > 0;
}

static void everything(const struct mpsr_lease *lease, struct mpsr_visible *visible) {
    visible->count = lease->gpus;
    for (int gpu = 0; gpu < lease->gpus; gpu++)
        visible->gpu[gpu] = gpu;
}

void mpsr_visible_given(const struct mpsr_lease *lease, const char *cuda, const char *slurm,
                        struct mpsr_visible *visible) {
    long seen[WORDS], step[WORDS];
    struct mpsr_visible held;
    if (by_uuid(lease, cuda, visible))
        return;
    int count = numbers_in(cuda, seen), of_step = numbers_in(slurm, step);
    if (by_number(lease, step, of_step, &held)) {
        /* as many: both name the same; fewer: a program chose among its own */
        if (count == of_step || !by_place(seen, count, &held, visible))
            *visible = held;
        return;
    }
    /* of a batch script, and so by us: places among its server's */
    everything(lease, &held);
    if (!by_place(seen, count, &held, visible) && !by_number(lease, seen, count, visible))
        *visible = held;
}

void mpsr_visible_joined(const struct mpsr_lease *lease, long local, struct mpsr_visible *visible) {
    if (mpsr_lease_together(lease) || !visible->count)
        return;
    visible->gpu[0] = visible->gpu[local % visible->count];
    visible->count = 1;
}

/* One more word of a list. */
static void append(char text[MPSR_VISIBLE_BYTES], const char *word) {
    size_t used = strlen(text);
    snprintf(text + used, MPSR_VISIBLE_BYTES - used, "%s%s", used ? "," : "", word);
}

void mpsr_visible_uuids(const struct mpsr_lease *lease, const struct mpsr_visible *visible,
                        char text[MPSR_VISIBLE_BYTES]) {
    text[0] = '\0';
    for (int index = 0; index < visible->count; index++)
        append(text, lease->gpu[visible->gpu[index]].uuid);
}

void mpsr_visible_places(const struct mpsr_visible *visible, char text[MPSR_VISIBLE_BYTES]) {
    char number[24];
    text[0] = '\0';
    for (int index = 0; index < visible->count; index++) {
        snprintf(number, sizeof(number), "%d", index);
        append(text, number);
    }
}

void mpsr_visible_limits(const struct mpsr_visible *visible, const char *memory,
                         char text[MPSR_VISIBLE_BYTES]) {
    char limit[MPSR_VALUE_BYTES + 24];
    text[0] = '\0';
    for (int index = 0; index < visible->count; index++) {
        snprintf(limit, sizeof(limit), "%d=%sM", index, memory);
        append(text, limit);
    }
}
