/* Small text rules that options, leases and messages share: bounded copies, strict numbers,
 * percent-encoding.
 *
 * Every function writes at most `size` bytes with the terminator and says by its result whether all
 * of it fitted or was well formed. None allocates.
 */
#ifndef MPSR_TEXT_H
#define MPSR_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Copy `text`; false when it does not fit (then `out` holds an empty string). */
bool mpsr_copy(char *out, size_t size, const char *text);

/* printf into `out`; false when it does not fit (then `out` holds what did). */
bool mpsr_format(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put '?' for every control character, and for all that is not ASCII when it is not UTF-8: what
 * others wrote stays on the one line it is shown on. */
void mpsr_one_line(char *text);

/* Decimal digits only, from `low` to `high`. */
bool mpsr_number(const char *text, long low, long high, long *value);

/* Percent-decode in place. False for a stray character, a bad escape, a NUL, or bytes that are not
 * UTF-8. */
bool mpsr_decode(char *text);

/* Percent-encode; false when it does not fit. */
bool mpsr_encode(const char *text, char *out, size_t size);

#endif
