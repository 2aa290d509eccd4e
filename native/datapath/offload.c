/* Set-up of TUN queues and UDP sockets; see offload.h. */
#include "offload.h"
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Since kernel 6.2. Each needs the other. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20u
#define TUN_F_USO6 0x40u
#endif

struct step {
	unsigned int flags;
	uint32_t features;
};

#define TSO (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

static const struct step steps[] = {
	{ TSO | TUN_F_USO4 | TUN_F_USO6, FEATURE(tun_csum) | FEATURE(tun_tso) | FEATURE(tun_uso) },
	{ TSO, FEATURE(tun_csum) | FEATURE(tun_tso) },
	{ TUN_F_CSUM, FEATURE(tun_csum) },
	{ 0, 0 },
};

static uint32_t open_tun(int tun)
{
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		if (ioctl(tun, TUNSETOFFLOAD, (unsigned long)steps[i].flags) == 0)
			return steps[i].features;
	return 0;
}

static bool set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

static uint32_t open_udp(int udp, uint32_t *refused)
{
	uint32_t features = 0;

	/*
	 * A datagram that is too long for the path fails here, or the next one does after an ICMP error, and the inner
	 * sender hears of it. Fragments of outer packets would be lost one by one, and slow to reassemble.
	 */
	if (!set(udp, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO))
		*refused |= REFUSED(udp_df);
	/* 0, because each message names its own segment size. Since kernel 4.18. */
	if (set(udp, IPPROTO_UDP, UDP_SEGMENT, 0))
		features |= FEATURE(udp_segment);
	/* Since kernel 5.0. */
	if (set(udp, IPPROTO_UDP, UDP_GRO, 1))
		features |= FEATURE(udp_gro);
	return features;
}

/* Of socket `i`: the last is for sparse flows, the one before for dense flows, unless it is the first. */
static int tos_of(size_t i, size_t sockets)
{
	if (i + 1 == sockets)
		return SPARSE_TOS;
	return i > 0 && i + 2 == sockets ? DENSE_TOS : 0;
}

uint32_t offload_open(const struct descriptors *tun, const struct descriptors *udp, uint32_t *refused)
{
	uint32_t of_tun = FEATURE(tun_csum) | FEATURE(tun_tso) | FEATURE(tun_uso);
	uint32_t of_udp = FEATURE(udp_segment) | FEATURE(udp_gro);

	for (size_t i = 0; i < tun->count; i++)
		of_tun &= open_tun(tun->fd[i]);
	for (size_t i = 0; i < udp->count; i++) {
		of_udp &= open_udp(udp->fd[i], refused);
		/* The receiver tells flows by the TOS, and its kernel merges no datagrams of different TOS. */
		if (udp->count > 1 && !set(udp->fd[i], IPPROTO_IP, IP_TOS, tos_of(i, udp->count)))
			*refused |= REFUSED(sparse_tos);
	}
	return of_tun | of_udp;
}
