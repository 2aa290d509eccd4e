/*
 * The virtio_net_hdr of 10 bytes before every packet of a TUN queue with IFF_VNET_HDR. Only the kernel and we build it;
 * it is never taken from the wire. vnet_header_check() judges every header before it is written to a TUN, because the
 * kernel accepts more than it should: a gso_size of 1, legacy UFO, and UDP_L4 on a TCP packet.
 */
#ifndef TARTAN_GSO_H
#define TARTAN_GSO_H

#include "packet.h"

#define VNET_HEADER_BYTES 10u
/*
 * The least gso_size. No sound TCP sends smaller segments (RFC 9293 section 3.7.1). A UDP packet may have any length,
 * and small ones gain most from merging; GSO_SEGMENTS_MAX bounds what the kernel cuts.
 */
#define GSO_SIZE_MIN_TCP 536u
#define GSO_SIZE_MIN_UDP 1u
#define GSO_SEGMENTS_MAX 64u

/* The values of linux/virtio_net.h. They have names of their own because headers before kernel 6.2 lack USO. */
#define VNET_NEEDS_CHECKSUM 1u
#define VNET_CHECKSUM_SEEN 2u /* the device has verified it; nothing is left to do */
#define GSO_TCP4 1u
#define GSO_TCP6 4u
#define GSO_UDP_L4 5u
#define GSO_ECN 0x80u

/* In host order. vnet_header_put() and vnet_header_get() convert from and to bytes (little-endian, virtio 1.x). */
struct vnet_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t header_bytes; /* hdr_len */
	uint16_t gso_size;
	uint16_t checksum_start;
	uint16_t checksum_offset;
};

enum gso_fault {
	GSO_SOUND,
	GSO_BAD_FLAGS,
	GSO_BAD_TYPE,
	GSO_BAD_PACKET,
	GSO_BAD_PROTOCOL,
	GSO_BAD_HEADER_BYTES,
	GSO_BAD_SIZE,
	GSO_BAD_SEGMENTS,
	GSO_BAD_CHECKSUM_PLACE,
};

/* Whether the header may stand before the packet. No byte of the payload is read, so it may lie elsewhere. */
enum gso_fault vnet_header_check(const struct vnet_header *v, const struct packet *p);

/* Whether the header is all zero: one whole packet with complete checksums. */
static inline bool vnet_header_is_plain(const struct vnet_header *v)
{
	return v->flags == 0 && v->gso_type == 0 && v->header_bytes == 0 && v->gso_size == 0 &&
	       v->checksum_start == 0 && v->checksum_offset == 0;
}

void vnet_header_get(struct vnet_header *v, const uint8_t bytes[VNET_HEADER_BYTES]);
void vnet_header_put(const struct vnet_header *v, uint8_t bytes[VNET_HEADER_BYTES]);

#endif
