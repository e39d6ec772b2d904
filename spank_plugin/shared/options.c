/* See options.h. */
#include "options.h"

#include "text.h"

#include <stdio.h>
#include <string.h>

#define ROW(option, key, env, kind, choices, max, fallback, arg, help)                             \
    {option, key, env, kind, choices, max, fallback, arg, help},
const struct mpsr_option_spec mpsr_option_specs[MPSR_OPTIONS] = {MPSR_OPTION_TABLE(ROW)};
#undef ROW

static const long long MAX_MIB = 1LL << 40; /* exclusive; a 2^60 byte limit stands for a mistake */

int mpsr_option_of_key(const char *key) {
    for (int index = 0; index < MPSR_OPTIONS; index++)
        if (!strcmp(mpsr_option_specs[index].key, key))
            return index;
    return -1;
}

bool mpsr_list_has(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; length && *at;) {
        size_t piece = strcspn(at, ",");
        if (piece == length && !strncmp(at, word, length))
            return true;
        at += piece + (at[piece] == ',');
    }
    return false;
}

/* N, NK, NM, NG, NT as whole MiB; kibibytes are rounded up. */
static bool size_mib(const char *text, char value[MPSR_VALUE_BYTES]) {
    char digits[19]; /* 18 digits fit a long long */
    text += strspn(text, "0") == strlen(text) ? 0 : strspn(text, "0");
    size_t count = strspn(text, "0123456789");
    if (!count || count >= sizeof(digits) || (text[count] && text[count + 1]))
        return false;
    memcpy(digits, text, count);
    digits[count] = '\0';
    long number = 0;
    if (!mpsr_number(digits, 1, 999999999999999999, &number))
        return false;
    long long mib = number;
    switch (text[count]) {
    case '\0':
    case 'm':
    case 'M':
        break;
    case 'k':
    case 'K':
        mib = mib / 1024 + (mib % 1024 != 0);
        break;
    case 'g':
    case 'G':
        mib = mib < MAX_MIB ? mib * 1024 : MAX_MIB;
        break;
    case 't':
    case 'T':
        mib = mib < MAX_MIB ? mib * 1024 * 1024 : MAX_MIB;
        break;
    default:
        return false;
    }
    return mib < MAX_MIB && mpsr_format(value, MPSR_VALUE_BYTES, "%lld", mib);
}

/* Words of `choices`, each at most once, put into the order of `choices`. */
static bool list_of(const char *choices, const char *text, char value[MPSR_VALUE_BYTES]) {
    size_t words = 1, found = 0;
    value[0] = '\0';
    for (const char *at = text; *at; at++)
        words += *at == ',';
    for (const char *at = choices; *at;) {
        size_t piece = strcspn(at, ",");
        char word[MPSR_VALUE_BYTES];
        if (piece >= sizeof(word))
            return false;
        memcpy(word, at, piece);
        word[piece] = '\0';
        if (mpsr_list_has(text, word)) {
            size_t used = strlen(value);
            if (!mpsr_format(value + used, MPSR_VALUE_BYTES - used, "%s%s", used ? "," : "", word))
                return false;
            found++;
        }
        at += piece + (at[piece] == ',');
    }
    return found == words;
}

bool mpsr_option_check(int index, const char *text, char value[MPSR_VALUE_BYTES],
                       char why[MPSR_WHY_BYTES]) {
    const struct mpsr_option_spec *spec = &mpsr_option_specs[index];
    long number = 0;
    if (!*text && !*spec->fallback) {
        value[0] = '\0';
        return true;
    }
    switch (spec->kind) {
    case MPSR_KIND_FLAG:
        if (mpsr_list_has("on,off", text))
            return mpsr_copy(value, MPSR_VALUE_BYTES, text);
        snprintf(why, MPSR_WHY_BYTES, "not on or off");
        return false;
    case MPSR_KIND_CHOICE:
        if (mpsr_list_has(spec->choices, text))
            return mpsr_copy(value, MPSR_VALUE_BYTES, text);
        snprintf(why, MPSR_WHY_BYTES, "not one of %s", spec->choices);
        return false;
    case MPSR_KIND_LIST:
        if (list_of(spec->choices, text, value))
            return true;
        snprintf(why, MPSR_WHY_BYTES, "not a list of different words out of %s", spec->choices);
        return false;
    case MPSR_KIND_PERCENT:
        if (strlen(text) <= 4 && mpsr_number(text, 1, 100, &number))
            return mpsr_format(value, MPSR_VALUE_BYTES, "%ld", number);
        snprintf(why, MPSR_WHY_BYTES, "not a percentage from 1 to 100");
        return false;
    case MPSR_KIND_COUNT:
        if (strlen(text) <= 4 && mpsr_number(text, 0, spec->max, &number))
            return mpsr_format(value, MPSR_VALUE_BYTES, "%ld", number);
        snprintf(why, MPSR_WHY_BYTES, "not a number from 0 to %ld", spec->max);
        return false;
    case MPSR_KIND_SIZE:
        if (size_mib(text, value))
            return true;
        snprintf(why, MPSR_WHY_BYTES, "not a size such as 512M or 4G");
        return false;
    }
    snprintf(why, MPSR_WHY_BYTES, "of a kind that this build does not know");
    return false;
}

void mpsr_options_default(struct mpsr_options *options) {
    for (int index = 0; index < MPSR_OPTIONS; index++)
        mpsr_copy(options->value[index], MPSR_VALUE_BYTES, mpsr_option_specs[index].fallback);
}

static bool parse(const char *text, struct mpsr_options *options, char why[MPSR_WHY_BYTES]) {
    char copy[MPSR_WIRE_MAX_BYTES + 1];
    bool seen[MPSR_OPTIONS] = {false};
    if (!mpsr_copy(copy, sizeof(copy), text)) {
        snprintf(why, MPSR_WHY_BYTES, "longer than %d bytes", MPSR_WIRE_MAX_BYTES);
        return false;
    }
    if (strspn(copy, MPSR_WIRE_CHARSET) != strlen(copy)) {
        snprintf(why, MPSR_WHY_BYTES, "character not allowed");
        return false;
    }
    mpsr_options_default(options);
    char *rest = NULL;
    for (char *pair = strtok_r(copy, ";", &rest); pair; pair = strtok_r(NULL, ";", &rest)) {
        char reason[MPSR_WHY_BYTES];
        char *value = strchr(pair, '=');
        if (value)
            *value++ = '\0';
        int index = value ? mpsr_option_of_key(pair) : -1;
        if (index < 0 || seen[index]) {
            snprintf(why, MPSR_WHY_BYTES, "not a new key=value: %.40s", pair);
            return false;
        }
        seen[index] = true;
        if (!mpsr_option_check(index, value, options->value[index], reason)) {
            snprintf(why, MPSR_WHY_BYTES, "%.20s: %.120s: %.40s", pair, reason, value);
            return false;
        }
    }
    return true;
}

bool mpsr_options_parse(const char *text, struct mpsr_options *options, char why[MPSR_WHY_BYTES]) {
    bool good = parse(text, options, why);
    if (!good)
        mpsr_one_line(why);
    return good;
}

void mpsr_options_serialize(const struct mpsr_options *options, char out[MPSR_WIRE_MAX_BYTES + 1]) {
    size_t used = 0;
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        int length =
            snprintf(out + used, MPSR_WIRE_MAX_BYTES + 1 - used, "%s%s=%s", index ? ";" : "",
                     mpsr_option_specs[index].key, options->value[index]);
        used += (size_t)length;
        if (used > MPSR_WIRE_MAX_BYTES) /* cannot be: ten checked values need about 200 bytes */
            used = MPSR_WIRE_MAX_BYTES;
    }
}

bool mpsr_options_on(const struct mpsr_options *options, int index) {
    return !strcmp(options->value[index], "on");
}
