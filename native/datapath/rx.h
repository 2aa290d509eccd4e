/*
 * The inbound direction of a worker, from the underlay to the TUN; rx.c starts with a picture of the path. A datagram
 * leads to one packet at most, and to no reply but that to a probe.
 */
#ifndef TARTAN_RX_H
#define TARTAN_RX_H

#include "coalesce.h"
#include "turns.h"
#include "worker.h"
#include <netinet/in.h>
#include <sys/socket.h>

struct rx {
	struct worker *worker;
	struct turns *turns; /* as in struct tx */
	bool is_sparse;
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

void rx_open(struct rx *rx, struct worker *worker, struct turns *turns, bool is_sparse);

/* Call it with the worker's lock and after control_poll(). Everything that was received is written when it returns. */
enum progress rx_poll(struct rx *rx);

#endif
