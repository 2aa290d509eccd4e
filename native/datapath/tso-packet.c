/* See tso-packet.h. The segments differ in the same fields as those that the kernel and network cards make. */
#include "tso-packet.h"
#include "checksum.h"
#include "pseudo-header.h"
#include "tcp-udp.h"

static void set_payload(struct tso_packet *t, const struct packet *p, size_t payload_bytes)
{
	size_t payload = p->length - t->header_bytes;

	t->payload_bytes = payload_bytes;
	t->segments = (payload + payload_bytes - 1) / payload_bytes;
	t->segment_bytes = t->header_bytes + (payload < payload_bytes ? payload : payload_bytes);
}

static bool read_segmentation(struct tso_packet *t, const struct vnet_header *v, const struct packet *p)
{
	bool is_udp = v->gso_type == GSO_UDP_L4;
	uint8_t type = (uint8_t)(v->gso_type & ~GSO_ECN);

	if (!t->wants_checksum || v->gso_size == 0 || (!is_udp && type != GSO_TCP4 && type != GSO_TCP6))
		return false;
	if (v->checksum_offset != (is_udp ? UDP_AT_CHECKSUM : TCP_AT_CHECKSUM))
		return false;
	size_t transport = is_udp ? UDP_HEADER_BYTES : tcp_header_bytes(p, t->checksum_start);
	/* The header lengths are computed, because hdr_len only says how much lay in one buffer of the kernel. */
	t->header_bytes = t->checksum_start + transport;
	if ((!is_udp && transport < TCP_HEADER_MIN) || t->header_bytes >= p->length)
		return false;
	t->protocol = is_udp ? PROTOCOL_UDP : PROTOCOL_TCP;
	set_payload(t, p, v->gso_size);
	return true;
}

bool tso_packet_read(struct tso_packet *t, const struct vnet_header *v, const struct packet *p)
{
	*t = (struct tso_packet){
		.whole_bytes = p->length,
		.segments = 1,
		.wants_checksum = (v->flags & VNET_NEEDS_CHECKSUM) != 0,
		.checksum_start = v->checksum_start,
		.checksum_at = (size_t)v->checksum_start + v->checksum_offset,
	};
	if ((v->flags & ~(VNET_NEEDS_CHECKSUM | VNET_CHECKSUM_SEEN)) != 0)
		return false;
	if (t->wants_checksum && !packet_holds(p, t->checksum_at, 2))
		return false;
	return v->gso_type == 0 || read_segmentation(t, v, p);
}

bool tso_packet_fits(const struct tso_packet *t, const struct ipv4 *h)
{
	if (t->segment_bytes == 0)
		return !t->wants_checksum ||
		       (t->checksum_start >= h->header_bytes && t->checksum_at + 2 <= h->total_bytes);
	return t->protocol == h->protocol && t->checksum_start == h->header_bytes && !ipv4_is_fragment(h) &&
	       t->whole_bytes == h->total_bytes;
}

void tso_packet_shorten(struct tso_packet *t, const struct packet *p, size_t longest)
{
	if (t->protocol == PROTOCOL_TCP && t->segment_bytes > longest && longest > t->header_bytes)
		set_payload(t, p, longest - t->header_bytes);
}

void tso_packet_finish(const struct tso_packet *t, struct packet *p, const struct ipv4 *h)
{
	if (!t->wants_checksum)
		return;
	uint16_t checksum = (uint16_t)~checksum_fast(p, t->checksum_start, p->length - t->checksum_start);
	/* In UDP a checksum of 0 means none, and 0xffff stands for 0 (RFC 768). */
	packet_put_u16(p, t->checksum_at, h->protocol == PROTOCOL_UDP && checksum == 0 ? 0xffff : checksum);
}

static void patch_tcp(struct packet *p, size_t at, uint32_t skipped, bool is_first, bool is_last)
{
	uint8_t flags = packet_u8(p, at + TCP_AT_FLAGS);

	/* FIN and PSH belong to the last byte. CWR is sent once (RFC 3168 section 6.1.2). */
	if (!is_last)
		flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (!is_first)
		flags &= (uint8_t)~TCP_CWR;
	packet_put_u8(p, at + TCP_AT_FLAGS, flags);
	packet_put_u32(p, at + TCP_AT_SEQUENCE, packet_u32(p, at + TCP_AT_SEQUENCE) + skipped);
}

bool tso_packet_cut(const struct tso_packet *t, const struct packet *p, const struct ipv4 *h, size_t number,
		    struct packet *into)
{
	size_t skipped = number * t->payload_bytes;
	size_t payload = p->length - t->header_bytes - skipped;
	bool is_last = number + 1 == t->segments;

	if (!is_last)
		payload = t->payload_bytes;
	if (into->length < t->header_bytes + payload)
		return false;
	into->length = t->header_bytes + payload;
	packet_copy(into, 0, p, 0, t->header_bytes);
	packet_copy(into, t->header_bytes, p, t->header_bytes + skipped, payload);
	ipv4_put_u16(into, IPV4_AT_TOTAL, (uint16_t)into->length);
	ipv4_put_u16(into, IPV4_AT_IDENTIFICATION, (uint16_t)(packet_u16(p, IPV4_AT_IDENTIFICATION) + number));
	if (t->protocol == PROTOCOL_TCP)
		patch_tcp(into, t->checksum_start, (uint32_t)skipped, number == 0, is_last);
	else
		packet_put_u16(into, t->checksum_start + UDP_AT_LENGTH, (uint16_t)(UDP_HEADER_BYTES + payload));
	/* The field holds the sum of the pseudo header now, as in a packet that the kernel left unfinished. */
	packet_put_u16(into, t->checksum_at, pseudo_header_sum(h, into->length - h->header_bytes));
	tso_packet_finish(t, into, h);
	return true;
}
