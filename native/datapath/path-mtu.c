/* See path-mtu.h. */
#include "path-mtu.h"
#include "tcp-udp.h"
#include "tx-batch.h"
#include <errno.h>
#include <linux/errqueue.h>
#include <unistd.h>

static bool prepare(int fd, int udp)
{
	struct sockaddr_in address;
	socklen_t bytes = sizeof address;
	int on = 1, discover = IP_PMTUDISC_DO;

	if (getsockname(udp, (struct sockaddr *)&address, &bytes) < 0 || address.sin_family != AF_INET)
		return false;
	address.sin_port = 0;
	return bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
	       setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) == 0 &&
	       setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on) == 0;
}

int path_mtu_open(int udp)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && !prepare(fd, udp)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Reads one entry of the error queue. False if the queue is empty. */
static bool read_error(int fd, uint32_t *mtu)
{
	union {
		char space[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in)) + 64];
		struct cmsghdr aligned;
	} control;
	uint8_t byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = sizeof byte };
	struct mmsghdr m = { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
					  .msg_controllen = sizeof control } };

	if (recvmmsg(fd, &m, 1, MSG_ERRQUEUE | MSG_DONTWAIT, NULL) != 1)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m.msg_hdr); c != NULL; c = CMSG_NXTHDR(&m.msg_hdr, c)) {
		struct sock_extended_err error;
		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR || c->cmsg_len < CMSG_LEN(sizeof error))
			continue;
		memcpy(&error, CMSG_DATA(c), sizeof error);
		/* This is the kernel's own result for what was just sent, and not the content of an ICMP error. */
		if (error.ee_errno == EMSGSIZE && error.ee_origin == SO_EE_ORIGIN_LOCAL)
			*mtu = error.ee_info;
	}
	return true;
}

uint16_t path_mtu_ask(int fd, const struct peer_endpoint *endpoint, const struct packet *p)
{
	struct sockaddr_in to = tx_batch_address(endpoint);
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1 },
	};
	uint32_t mtu = 0;

	if (fd < 0)
		return 0;
	/* The results of earlier calls are read first, so that they are gone. */
	while (read_error(fd, &mtu))
		;
	mtu = 0;
	if (sendmmsg(fd, &m, 1, MSG_DONTWAIT) == 1)
		return (uint16_t)p->length;
	if (errno != EMSGSIZE)
		return 0;
	while (read_error(fd, &mtu))
		;
	/* An MTU that fits the packet would not have refused it. One that is below that of any link is a mistake. */
	return mtu >= IPV4_MTU_MIN + OUTER_BYTES && mtu - OUTER_BYTES < p->length ? (uint16_t)(mtu - OUTER_BYTES) : 0;
}
