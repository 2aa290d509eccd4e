/*
 * The system call filter (seccomp(2)): an allow-list of what the loops, the takeover socket and the end of a thread
 * need. No file is opened, no socket made, nothing executed or mapped; anything else ends the process with SIGSYS.
 * Builds with sanitizers define SANDBOX_WIDE, because their runtimes map memory and read files at any time.
 */
#include "sandbox.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* The jump offsets of BPF are one byte. */
_Static_assert(ALLOWED < 250, "the list does not fit the jumps");

#define FIELD(name) ((unsigned int)offsetof(struct seccomp_data, name))

static void build(struct sock_filter *f)
{
	size_t at = 0;

	/* Numbers mean something only for the architecture they are of. */
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch));
	f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr));
	/* x32 numbers carry a high bit, so they equal none of the list. */
	for (size_t i = 0; i < ALLOWED; i++) {
		unsigned char to_allow = (unsigned char)(ALLOWED - i);
		f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], to_allow, 0);
	}
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

int sandbox_install_filter(void)
{
	struct sock_filter filter[PROLOGUE + ALLOWED + EPILOGUE];
	struct sock_fprog program = { .len = (unsigned short)(sizeof filter / sizeof filter[0]), .filter = filter };

	build(filter);
	/* With TSYNC a positive result is the thread that could not follow. */
	long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
	if (result > 0)
		return EBUSY;
	return result < 0 ? errno : 0;
}
