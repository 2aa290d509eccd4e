/*
 * Underlay -> TUN: one recvmmsg(2) receives up to RX_BUDGET datagrams, each of which may be several that the kernel has
 * put together (UDP_GRO); a decision about each packet as if it had come alone; packets that pass are merged per flow
 * and written. A datagram gives at most one packet, and never a reply. Sparse flows go first, as in tx.h.
 */
#ifndef TARTAN_RX_H
#define TARTAN_RX_H

#include "coalesce.h"
#include "worker.h"
#include <netinet/in.h>
#include <sys/socket.h>

struct rx {
	struct worker *worker;
	struct rx *sparse; /* of sparse flows, received and written before anything of this one is written; NULL: none */
	unsigned int errors; /* in a row */
	struct coalescer coalescer;
	struct sockaddr_in from[RX_BUDGET];
	struct iovec iov[RX_BUDGET];
	struct mmsghdr message[RX_BUDGET];
	union {
		uint8_t space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control[RX_BUDGET];
};

void rx_open(struct rx *rx, struct worker *worker, struct rx *sparse);

/* To be called with the worker's lock and after control_poll(). Everything received is written when it returns. */
enum progress rx_poll(struct rx *rx);

#endif
