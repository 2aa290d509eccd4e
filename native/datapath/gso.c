/* The rules of the virtio header; see gso.h. */
#include "gso.h"
#include "ipv4.h"
#include "tcp-udp.h"

struct transport {
	size_t header_bytes;
	size_t checksum_at;
};

/* Finds the transport header that the type of segmentation needs, if the packet holds all of it. */
static enum gso_fault find_transport(uint8_t type, const struct packet *p, const struct ipv4 *h, struct transport *t)
{
	if (h->protocol != (type == GSO_UDP_L4 ? PROTOCOL_UDP : PROTOCOL_TCP))
		return GSO_BAD_PROTOCOL;
	*t = (struct transport){ UDP_HEADER_BYTES, UDP_AT_CHECKSUM };
	if (type != GSO_UDP_L4)
		*t = (struct transport){ tcp_header_bytes(p, h->header_bytes), TCP_AT_CHECKSUM };
	if (type != GSO_UDP_L4 && t->header_bytes < TCP_HEADER_MIN)
		return GSO_BAD_PACKET;
	return h->header_bytes + t->header_bytes <= p->length ? GSO_SOUND : GSO_BAD_PACKET;
}

enum gso_fault vnet_header_check(const struct vnet_header *v, const struct packet *p)
{
	if (vnet_header_is_plain(v))
		return GSO_SOUND;
	/* Checksums are always complete, except in a packet that the kernel cuts. */
	if (v->flags != VNET_NEEDS_CHECKSUM)
		return GSO_BAD_FLAGS;
	uint8_t type = (uint8_t)(v->gso_type & ~GSO_ECN);
	if (type != GSO_TCP4 && v->gso_type != GSO_UDP_L4)
		return GSO_BAD_TYPE;

	struct ipv4 h;
	if (ipv4_parse(p, &h) != IPV4_SOUND || h.total_bytes != p->length || ipv4_is_fragment(&h))
		return GSO_BAD_PACKET;
	struct transport t;
	enum gso_fault fault = find_transport(type, p, &h, &t);
	if (fault != GSO_SOUND)
		return fault;
	size_t headers = h.header_bytes + t.header_bytes;
	if (v->header_bytes != headers)
		return GSO_BAD_HEADER_BYTES;
	if (v->gso_size < (type == GSO_UDP_L4 ? GSO_SIZE_MIN_UDP : GSO_SIZE_MIN_TCP))
		return GSO_BAD_SIZE;
	size_t payload = p->length - headers;
	if (payload <= v->gso_size || payload > (size_t)v->gso_size * GSO_SEGMENTS_MAX)
		return GSO_BAD_SEGMENTS;
	if (v->checksum_start != h.header_bytes || v->checksum_offset != t.checksum_at)
		return GSO_BAD_CHECKSUM_PLACE;
	return GSO_SOUND;
}

static uint16_t get_u16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] | (uint32_t)bytes[1] << 8);
}

static void put_u16(uint8_t *bytes, uint16_t value)
{
	bytes[0] = (uint8_t)value;
	bytes[1] = (uint8_t)(value >> 8);
}

void vnet_header_get(struct vnet_header *v, const uint8_t bytes[VNET_HEADER_BYTES])
{
	*v = (struct vnet_header){
		.flags = bytes[0],
		.gso_type = bytes[1],
		.header_bytes = get_u16(bytes + 2),
		.gso_size = get_u16(bytes + 4),
		.checksum_start = get_u16(bytes + 6),
		.checksum_offset = get_u16(bytes + 8),
	};
}

void vnet_header_put(const struct vnet_header *v, uint8_t bytes[VNET_HEADER_BYTES])
{
	bytes[0] = v->flags;
	bytes[1] = v->gso_type;
	put_u16(bytes + 2, v->header_bytes);
	put_u16(bytes + 4, v->gso_size);
	put_u16(bytes + 6, v->checksum_start);
	put_u16(bytes + 8, v->checksum_offset);
}
