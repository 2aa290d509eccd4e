/* Loss of identity and capabilities; see sandbox.h. The system call filter is in sandbox-filter.c. */
#include "sandbox.h"
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Capabilities are numbered below 64 in the version 3 interface; past the last one of this kernel prctl says EINVAL. */
#define CAPABILITIES 64

/*
 * Without CAP_SETPCAP the set stays: nothing can be regained from it, because no_new_privs is set and execve is not
 * allowed.
 */
static int drop_bounding_set(void)
{
	for (unsigned long cap = 0; cap < CAPABILITIES; cap++) {
		int held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
		if (held < 0)
			break;
		if (held != 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EPERM)
			return errno;
	}
	return 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return errno;
	return syscall(SYS_capset, &header, none) < 0 ? errno : 0;
}

/* Bounding set and groups need privilege to give up; a caller without any has nothing to lose there. */
static int drop_privileged_parts(const char **step)
{
	if (geteuid() != 0)
		return 0;
	*step = "bounding set";
	int err = drop_bounding_set();
	if (err != 0)
		return err;
	*step = "setgroups";
	return setgroups(0, NULL) < 0 ? errno : 0;
}

int sandbox_drop(uid_t uid, gid_t gid, const char **step)
{
	*step = "unprivileged user";
	if (uid == 0 || gid == 0)
		return EINVAL;
	int err = drop_privileged_parts(step);
	if (err != 0)
		return err;
	*step = "setresgid";
	if (setresgid(gid, gid, gid) < 0)
		return errno;
	*step = "setresuid";
	if (setresuid(uid, uid, uid) < 0)
		return errno;
	*step = "capset";
	err = drop_capabilities();
	if (err != 0)
		return err;
	*step = "no_new_privs";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return errno;
	*step = "dumpable";
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? errno : 0;
}
