/*
 * Giving up every privilege, in two steps. Identity and capabilities are given up before the threads exist, which
 * inherit the loss. The system call filter is installed in all threads at once after they have started.
 */
#ifndef TARTAN_SANDBOX_H
#define TARTAN_SANDBOX_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Becomes this user and group for good, without groups, capabilities in any set, new privileges and core dumps. Call it
 * while there is one thread. User or group 0 is refused with EINVAL. Returns 0 or an errno with the step that failed.
 */
int sandbox_drop(uid_t uid, gid_t gid, const char **step);

/*
 * Installs the filter in every thread (SECCOMP_FILTER_FLAG_TSYNC). After it any system call outside the list kills the
 * process by SIGSYS; before, its number + 1 is written to `denied_call`. Returns 0 or an errno: without the filter
 * nothing may be forwarded.
 */
int sandbox_install_filter(_Atomic uint32_t *denied_call);

#endif
