/* Writes one packet, or one GRO packet from several iovs, to a TUN queue that was opened with IFF_VNET_HDR. */
#ifndef TARTAN_TUN_H
#define TARTAN_TUN_H

#include "gso.h"
#include <sys/uio.h>

enum tun_result {
	TUN_WRITTEN,
	TUN_REFUSED_HEADER, /* vnet_header_check() refused the virtio header; nothing was written */
	TUN_FAILED,         /* the kernel refused this packet */
	TUN_BROKEN,         /* the link is down or deleted: the next packet would fail too */
};

/* Whether the error of a read or write is one of the link. Any other error belongs to one packet. */
bool tun_is_broken(int err);

enum tun_result tun_write(int tun, const struct packet *p);

/* Fills in iov[0], for the virtio header. The other iovs are the packet of `bytes`; iov[1] has all its headers. */
enum tun_result tun_write_iov(int tun, const struct vnet_header *v, struct iovec *iov, size_t iovs, size_t bytes);

#endif
