/*
 * Giving up every privilege, in two steps: identity and capabilities before the threads exist (they inherit the loss),
 * the system call filter over all threads at once when they do exist.
 */
#ifndef TARTAN_SANDBOX_H
#define TARTAN_SANDBOX_H

#include <sys/types.h>

/*
 * Becomes this user and group for good: no groups, no capability in any set, no new privileges, no core dump. Call it
 * while there is one thread. User or group 0 is refused with EINVAL. Returns 0 or an errno with the step that failed.
 */
int sandbox_drop(uid_t uid, gid_t gid, const char **step);

/*
 * Installs the filter in every thread (SECCOMP_FILTER_FLAG_TSYNC). After it any system call outside the list kills the
 * process. Returns 0 or an errno: without the filter nothing may be forwarded.
 */
int sandbox_install_filter(void);

#endif
