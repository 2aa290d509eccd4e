/* One packet into a TUN queue that was opened with IFF_VNET_HDR. */
#ifndef TARTAN_TUN_H
#define TARTAN_TUN_H

#include "packet.h"

enum tun_result {
	TUN_WRITTEN,
	TUN_REFUSED_HEADER, /* by our own check of the virtio header, before the kernel saw it */
	TUN_FAILED,         /* link down, deleted, or out of memory */
};

/* The VNET_HEADER_BYTES before p->bytes must be the caller's: the header is built there. */
enum tun_result tun_write(int tun, const struct packet *p);

#endif
