/* One packet, or one super-packet in pieces, into a TUN queue that was opened with IFF_VNET_HDR. */
#ifndef TARTAN_TUN_H
#define TARTAN_TUN_H

#include "gso.h"
#include <sys/uio.h>

enum tun_result {
	TUN_WRITTEN,
	TUN_REFUSED_HEADER, /* by our own check of the virtio header, before the kernel saw it */
	TUN_FAILED,         /* link down, deleted, or out of memory */
};

enum tun_result tun_write(int tun, const struct packet *p);

/*
 * `piece[0]` is given to this function for the virtio header; the others, which begin with a piece that has all headers
 * of the packet, are `bytes` together.
 */
enum tun_result tun_write_pieces(int tun, const struct vnet_header *v, struct iovec *piece, size_t pieces, size_t bytes);

#endif
