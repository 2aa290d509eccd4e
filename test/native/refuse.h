/*
 * Makes the kernel look older to this process: a seccomp filter lets system calls that ask for an offload fail, as they
 * would in a kernel without it. The filter cannot be removed, so a child installs it.
 */
#ifndef TARTAN_REFUSE_H
#define TARTAN_REFUSE_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define REFUSE_CSUM TUN_F_CSUM
#define REFUSE_TSO (TUN_F_TSO4 | TUN_F_TSO6)
#define REFUSE_USO 0x60u /* TUN_F_USO4 and 6, of newer headers */

struct refuse {
	unsigned int tun_flags;       /* TUNSETOFFLOAD with any of these: EINVAL */
	bool tun_all;                 /* TUNSETOFFLOAD with none too */
	bool udp_segment, udp_gro;    /* setsockopt: ENOPROTOOPT */
};

#define REFUSE_LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define REFUSE_IF(kind, value, yes, no) BPF_JUMP(BPF_JMP | BPF_##kind | BPF_K, (value), (yes), (no))
#define REFUSE_RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
/* No system call and no option has this number. */
#define REFUSE_NOTHING 0xffffffffu

/* With `pretend` the allowed calls of TUNSETOFFLOAD succeed without reaching the descriptor, which is not a TUN. */
static inline bool refuse(const struct refuse *r, bool pretend)
{
	struct sock_filter code[] = {
		REFUSE_LOAD(nr),
		REFUSE_IF(JEQ, SYS_ioctl, 0, 6),
		REFUSE_LOAD(args[1]),
		REFUSE_IF(JEQ, TUNSETOFFLOAD, 0, 10),
		REFUSE_LOAD(args[2]),
		r->tun_all ? (struct sock_filter)REFUSE_IF(JGE, 0, 0, 1)
			   : (struct sock_filter)REFUSE_IF(JSET, r->tun_flags, 0, 1),
		REFUSE_RETURN(SECCOMP_RET_ERRNO | EINVAL),
		REFUSE_RETURN(pretend ? SECCOMP_RET_ERRNO | 0 : SECCOMP_RET_ALLOW),
		REFUSE_IF(JEQ, SYS_setsockopt, 0, 5),
		REFUSE_LOAD(args[1]),
		REFUSE_IF(JEQ, IPPROTO_UDP, 0, 3),
		REFUSE_LOAD(args[2]),
		REFUSE_IF(JEQ, r->udp_segment ? UDP_SEGMENT : REFUSE_NOTHING, 2, 0),
		REFUSE_IF(JEQ, r->udp_gro ? UDP_GRO : REFUSE_NOTHING, 1, 0),
		REFUSE_RETURN(SECCOMP_RET_ALLOW),
		REFUSE_RETURN(SECCOMP_RET_ERRNO | ENOPROTOOPT),
	};
	const struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#endif
