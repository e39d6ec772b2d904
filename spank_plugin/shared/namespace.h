/* Whose files and which users these are, seen from inside a container.
 *
 * A rootless container of enroot, and so of pyxis, is in a user namespace that knows the job's user
 * alone: everybody else's files belong to the overflow uid there, and the user may be called 0. A
 * namespace with more users is a system of its own (a node in a container), whose root is root.
 */
#ifndef MPSR_NAMESPACE_H
#define MPSR_NAMESPACE_H

#include <stdbool.h>
#include <sys/types.h>

/* This process's user as the node counts; as it is where /proc does not tell. */
uid_t mpsr_host_uid(void);

/* Does this user namespace know one user only? False where /proc does not tell. */
bool mpsr_one_user(void);

/* There: is `owner`, of a file, somebody else, or the node's own root? */
bool mpsr_somebody_else(uid_t owner);

#endif
