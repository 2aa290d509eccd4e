/* Cutting of super-packets; see segment.h. What differs between the segments of one is what kernel and cards change. */
#include "segment.h"
#include "checksum.h"
#include "transport.h"

#define AT_TOTAL 2u
#define AT_IDENTIFICATION 4u
#define AT_CHECKSUM 10u

static bool read_cut(struct super *s, const struct vnet_header *v, const struct packet *p)
{
	bool is_udp = v->gso_type == GSO_UDP_L4;
	uint8_t type = (uint8_t)(v->gso_type & ~GSO_ECN);

	if (!s->wants_checksum || v->gso_size == 0 || (!is_udp && type != GSO_TCP4 && type != GSO_TCP6))
		return false;
	if (v->checksum_offset != (is_udp ? UDP_AT_CHECKSUM : TCP_AT_CHECKSUM))
		return false;
	size_t transport = is_udp ? UDP_HEADER_BYTES : tcp_header_bytes(p, s->checksum_start);
	/* hdr_len is what of the packet lay in one piece in the kernel, not the length of its headers. */
	s->header_bytes = s->checksum_start + transport;
	if ((!is_udp && transport < TCP_HEADER_MIN) || s->header_bytes >= p->length)
		return false;
	s->protocol = is_udp ? PROTOCOL_UDP : PROTOCOL_TCP;
	s->payload_bytes = v->gso_size;
	size_t payload = p->length - s->header_bytes;
	s->segments = (payload + s->payload_bytes - 1) / s->payload_bytes;
	s->segment_bytes = s->header_bytes + (payload < s->payload_bytes ? payload : s->payload_bytes);
	return true;
}

bool super_read(struct super *s, const struct vnet_header *v, const struct packet *p)
{
	*s = (struct super){
		.whole_bytes = p->length,
		.segments = 1,
		.wants_checksum = (v->flags & VNET_NEEDS_CHECKSUM) != 0,
		.checksum_start = v->checksum_start,
		.checksum_at = (size_t)v->checksum_start + v->checksum_offset,
	};
	if ((v->flags & ~(VNET_NEEDS_CHECKSUM | VNET_CHECKSUM_SEEN)) != 0)
		return false;
	if (s->wants_checksum && !packet_holds(p, s->checksum_at, 2))
		return false;
	return v->gso_type == 0 || read_cut(s, v, p);
}

bool super_fits(const struct super *s, const struct ipv4 *h)
{
	if (s->segment_bytes == 0)
		return !s->wants_checksum ||
		       (s->checksum_start >= h->header_bytes && s->checksum_at + 2 <= h->total_bytes);
	return s->protocol == h->protocol && s->checksum_start == h->header_bytes && !ipv4_is_fragment(h) &&
	       s->whole_bytes == h->total_bytes;
}

void super_finish(const struct super *s, struct packet *p, const struct ipv4 *h)
{
	if (!s->wants_checksum)
		return;
	uint16_t checksum = (uint16_t)~checksum_bulk(p, s->checksum_start, p->length - s->checksum_start);
	/* In UDP 0 says that there is none (RFC 768). */
	packet_put_u16(p, s->checksum_at, h->protocol == PROTOCOL_UDP && checksum == 0 ? 0xffff : checksum);
}

/* A 16-bit word of the IP header, and the header's checksum with it. */
static void change_u16(struct packet *p, size_t at, uint16_t value)
{
	packet_put_u16(p, AT_CHECKSUM, checksum_adjust(packet_u16(p, AT_CHECKSUM), packet_u16(p, at), value));
	packet_put_u16(p, at, value);
}

static void patch_tcp(struct packet *p, size_t at, uint32_t skipped, bool is_first, bool is_last)
{
	uint8_t flags = packet_u8(p, at + TCP_AT_FLAGS);

	/* The end of the stream and of a message is where the last byte is; CWR is said once (RFC 3168 section 6.1.2). */
	if (!is_last)
		flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (!is_first)
		flags &= (uint8_t)~TCP_CWR;
	packet_put_u8(p, at + TCP_AT_FLAGS, flags);
	packet_put_u32(p, at + TCP_AT_SEQUENCE, packet_u32(p, at + TCP_AT_SEQUENCE) + skipped);
}

bool super_cut(const struct super *s, const struct packet *p, const struct ipv4 *h, size_t number, struct packet *into)
{
	size_t skipped = number * s->payload_bytes;
	size_t payload = p->length - s->header_bytes - skipped;
	bool is_last = number + 1 == s->segments;

	if (!is_last)
		payload = s->payload_bytes;
	if (into->length < s->header_bytes + payload)
		return false;
	into->length = s->header_bytes + payload;
	packet_copy(into, 0, p, 0, s->header_bytes);
	packet_copy(into, s->header_bytes, p, s->header_bytes + skipped, payload);
	change_u16(into, AT_TOTAL, (uint16_t)into->length);
	change_u16(into, AT_IDENTIFICATION, (uint16_t)(packet_u16(p, AT_IDENTIFICATION) + number));
	if (s->protocol == PROTOCOL_TCP)
		patch_tcp(into, s->checksum_start, (uint32_t)skipped, number == 0, is_last);
	else
		packet_put_u16(into, s->checksum_start + UDP_AT_LENGTH, (uint16_t)(UDP_HEADER_BYTES + payload));
	/* With the pseudo header's sum in its own field, the checksum is finished like any other. */
	packet_put_u16(into, s->checksum_at, transport_pseudo_sum(h, into->length - h->header_bytes));
	super_finish(s, into, h);
	return true;
}
