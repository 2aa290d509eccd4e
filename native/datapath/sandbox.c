/*
 * Giving up identity, capabilities and system calls; see sandbox.h.
 *
 * The filter (seccomp(2)) is an allow-list of what the loops, the takeover socket and the end of a thread need. It
 * allows no opening of a file, no socket, no program and no mapping. Any other call ends the process with SIGSYS, whose
 * handler only writes down which one it was.
 * Builds with sanitizers define SANDBOX_WIDE, because their runtimes map memory and read files at any time.
 */
#include "sandbox.h"
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The version 3 interface numbers capabilities below 64. For a number that the kernel does not know prctl fails. */
#define CAPABILITIES 64

/* Without CAP_SETPCAP the bounding set stays. It gives nothing back: no_new_privs is set, execve is not allowed. */
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

/* Giving up the bounding set and the groups needs privilege. Without privilege there is nothing to give up. */
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

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "no system call filter is written for this processor"
#endif

static const unsigned int allowed[] = {
	/* packets */
	SYS_read, SYS_write, SYS_writev, SYS_recvmmsg, SYS_sendmmsg, SYS_ppoll,
#ifdef SYS_poll
	SYS_poll, /* x86_64; elsewhere libc uses ppoll */
#endif
	SYS_clock_gettime, /* where the vdso has no clock */
	/* datapath.sock */
	SYS_accept4, SYS_getsockopt, SYS_sendmsg, SYS_recvfrom, SYS_close,
	/* signals, and the end of a thread and of the process */
	SYS_restart_syscall, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_futex, SYS_madvise, SYS_munmap, SYS_exit,
	SYS_exit_group,
#ifdef SANDBOX_WIDE
	SYS_mmap, SYS_mprotect, SYS_mremap, SYS_openat, SYS_newfstatat, SYS_fstat, SYS_lseek, SYS_readlinkat, SYS_ioctl,
	SYS_fcntl, SYS_getpid, SYS_gettid, SYS_tgkill, SYS_sched_yield, SYS_nanosleep, SYS_clock_nanosleep,
	SYS_rt_sigaction, SYS_sigaltstack, SYS_prlimit64, SYS_prctl, SYS_getrandom, SYS_getuid, SYS_brk,
	SYS_sched_getaffinity, SYS_dup, SYS_dup3, SYS_faccessat, SYS_uname, SYS_sysinfo, SYS_gettimeofday, SYS_mincore,
	/* the background thread of ThreadSanitizer, which may still be starting */
	SYS_set_robust_list, SYS_rseq,
#ifdef SYS_open
	SYS_open, SYS_readlink, SYS_stat, SYS_access, SYS_getrlimit, SYS_dup2, SYS_unlink,
#endif
#endif
};

#define ALLOWED (sizeof allowed / sizeof allowed[0])
#define PROLOGUE 4
#define EPILOGUE 2

/* A jump offset of classic BPF is one byte. */
_Static_assert(ALLOWED < 250, "the list does not fit the jumps");

#define FIELD(name) ((unsigned int)offsetof(struct seccomp_data, name))

static void build(struct sock_filter *f)
{
	size_t at = 0;

	/* The numbers of system calls differ between architectures, so the architecture is checked first. */
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch));
	f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr));
	/* x32 numbers have a high bit set, so they equal none of the list. */
	for (size_t i = 0; i < ALLOWED; i++) {
		unsigned char to_allow = (unsigned char)(ALLOWED - i);
		f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], to_allow, 0);
	}
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

static _Atomic uint32_t *denied;

/*
 * Runs in the thread whose call was denied. The signal is blocked meanwhile, and a denied call then kills the process at
 * once (seccomp(2)): it ends by SIGSYS, whatever becomes of the handler.
 */
static void on_denied(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	atomic_store(denied, (uint32_t)info->si_syscall + 1);
	syscall(SYS_ptrace, 0, 0, 0, 0);
	_exit(128 + signal_number);
}

static int handle_denied(_Atomic uint32_t *denied_call)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO };

	denied = denied_call;
	action.sa_sigaction = on_denied;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGSYS, &action, NULL) < 0 ? errno : 0;
}

int sandbox_install_filter(_Atomic uint32_t *denied_call)
{
	struct sock_filter filter[PROLOGUE + ALLOWED + EPILOGUE];
	struct sock_fprog program = { .len = (unsigned short)(sizeof filter / sizeof filter[0]), .filter = filter };

	int err = handle_denied(denied_call);
	if (err != 0)
		return err;
	build(filter);
	/* With TSYNC a positive result is the id of a thread that could not be changed. */
	long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
	if (result > 0)
		return EBUSY;
	return result < 0 ? errno : 0;
}
