/* See namespace.h. Relies on /proc/self/uid_map: lines `inside outside count` (user_namespaces(7)).
 */
#include "namespace.h"

#include <stdio.h>
#include <unistd.h>

/* The number that stands for every user a namespace has none for: the kernel's default, which is
 * part of its interface (proc_sys_kernel(5)). */
static const uid_t OVERFLOW_UID = 65534;

struct map {
    unsigned long long users; /* that the namespace knows; 0: not told */
    bool found;
    uid_t outside; /* of the uid that was asked for, when found */
};

static struct map look(uid_t uid) {
    struct map map = {0};
    FILE *file = fopen("/proc/self/uid_map", "re");
    unsigned inside = 0, outside = 0, count = 0;
    while (file && fscanf(file, "%u %u %u", &inside, &outside, &count) == 3) {
        map.users += count;
        if (!map.found && uid >= inside && uid - inside < count) {
            map.found = true;
            map.outside = outside + (uid - inside);
        }
    }
    if (file)
        fclose(file);
    return map;
}

bool mpsr_one_user(void) {
    return look(0).users == 1;
}

uid_t mpsr_host_uid(void) {
    struct map map = look(getuid());
    return map.users == 1 && map.found ? map.outside : getuid();
}

bool mpsr_somebody_else(uid_t owner) {
    struct map root = look(0);
    return owner == OVERFLOW_UID || (owner == 0 && root.found && root.outside == 0);
}
