/*
 * The 10-byte virtio_net_hdr before every packet of a TUN queue with IFF_VNET_HDR. It is only ever built by us or by
 * the kernel (segment.h), never taken from the wire, and nothing is written to a TUN behind a header that
 * vnet_header_check() refuses: the kernel itself takes a gso_size of 1, legacy UFO and UDP_L4 on a TCP packet.
 */
#ifndef TARTAN_GSO_H
#define TARTAN_GSO_H

#include "packet.h"

#define VNET_HEADER_BYTES 10u
/*
 * Least gso_size: no sound TCP has a smaller segment (RFC 9293, 3.7.1). A UDP packet may be of any length, small ones
 * gain most from being merged, and GSO_SEGMENTS_MAX bounds what the kernel cuts.
 */
#define GSO_SIZE_MIN_TCP 536u
#define GSO_SIZE_MIN_UDP 1u
#define GSO_SEGMENTS_MAX 64u

/* linux/virtio_net.h by other names: USO came with kernel 6.2, and older headers do not have it. */
#define VNET_NEEDS_CHECKSUM 1u
#define VNET_CHECKSUM_SEEN 2u /* by the device it came from; nothing is left to do */
#define GSO_TCP4 1u
#define GSO_TCP6 4u
#define GSO_UDP_L4 5u
#define GSO_ECN 0x80u

/* Host order; vnet_header_put() and vnet_header_get() know the byte form (little-endian, virtio 1.x). */
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

/*
 * Whether this header may stand before this packet. No byte after the transport header is read, so the payload may lie
 * elsewhere.
 */
enum gso_fault vnet_header_check(const struct vnet_header *v, const struct packet *p);

/* One whole packet, checksums complete: the all-zero header. */
static inline bool vnet_header_is_plain(const struct vnet_header *v)
{
	return v->flags == 0 && v->gso_type == 0 && v->header_bytes == 0 && v->gso_size == 0 &&
	       v->checksum_start == 0 && v->checksum_offset == 0;
}

void vnet_header_get(struct vnet_header *v, const uint8_t bytes[VNET_HEADER_BYTES]);
void vnet_header_put(const struct vnet_header *v, uint8_t bytes[VNET_HEADER_BYTES]);

#endif
