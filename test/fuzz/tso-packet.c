/*
 * Fuzz target: any virtio header before any packet from the TUN. A packet is taken exactly if the rules allow it, which
 * are implemented here a second time. Its segments equal those of the reference. A packet that is not cut gets the
 * right checksum. Nothing is written past the room.
 */
#include "tso-packet.h"
#include "fixture.h"
#include "reference.h"
#include "target.h"

/* Whether this header makes sense before this packet. */
static bool makes_sense(const struct vnet_header *v, const uint8_t *b, size_t n)
{
	const size_t start = v->checksum_start, field = start + v->checksum_offset, ip = n < 20 ? 0 : (b[0] & 15u) * 4u;
	const bool is_udp = v->gso_type == 5, wants = v->flags % 2 == 1;

	if (ip < 20 || ip > n || b[0] >> 4 != 4 || reference_sum(0, b, ip) != 0 || v->flags > 3)
		return false;
	const size_t total = (size_t)(b[2] << 8 | b[3]);
	if (total < ip || total > n)
		return false;
	if (v->gso_type == 0)
		return !wants || (start >= ip && field + 2 <= total);
	if (!is_udp && (v->gso_type & 0x7f) != 1 && (v->gso_type & 0x7f) != 4)
		return false;
	if (!wants || v->gso_size == 0 || total != n || start != ip || field + 2 > n || (b[6] & 0x3f) != 0 || b[7] != 0)
		return false;
	if (is_udp)
		return b[9] == 17 && v->checksum_offset == 6 && ip + 8 < n;
	return b[9] == 6 && v->checksum_offset == 16 && b[ip + 12] >> 4 >= 5 && ip + (b[ip + 12] >> 4) * 4u < n;
}

static void check_cut(const struct tso_packet *s, const struct vnet_header *v, const struct packet *p,
		      const struct ipv4 *h)
{
	uint8_t *expected = malloc(p->length);
	size_t total = 0;

	require(s->segment_bytes <= p->length && s->segments >= 1);
	for (size_t number = 0; number < s->segments; number++) {
		size_t bytes = reference_segment(expected, v, p, number);
		uint8_t *got = malloc(bytes);
		struct packet segment = { .bytes = got, .length = bytes - 1 };
		require(!tso_packet_cut(s, p, h, number, &segment));
		segment.length = bytes;
		require(bytes <= s->segment_bytes && tso_packet_cut(s, p, h, number, &segment));
		require(segment.length == bytes && memcmp(got, expected, bytes) == 0);
		total += bytes - s->header_bytes;
		free(got);
	}
	require(total == p->length - s->header_bytes);
	free(expected);
}

static void check_finished(const struct tso_packet *s, struct packet *p, const struct ipv4 *h)
{
	uint8_t *expected = malloc(p->length);

	require(s->segments == 1);
	memcpy(expected, p->bytes, p->length);
	if (s->wants_checksum) {
		uint16_t sum = reference_sum(0, expected + s->checksum_start, p->length - s->checksum_start);
		reference_put(expected + s->checksum_at, sum == 0 && h->protocol == PROTOCOL_UDP ? 0xffff : sum);
	}
	tso_packet_finish(s, p, h);
	require(memcmp(p->bytes, expected, p->length) == 0);
	free(expected);
}

static void check(const struct vnet_header *v, struct packet *p)
{
	struct tso_packet s;
	struct ipv4 h;
	bool is_read = tso_packet_read(&s, v, p);
	bool is_taken = is_read && ipv4_parse(p, &h) == IPV4_SOUND && tso_packet_fits(&s, &h);

	require(is_taken == makes_sense(v, p->bytes, p->length));
	if (!is_taken)
		return;
	p->length = h.total_bytes;
	if (s.segment_bytes != 0)
		check_cut(&s, v, p, &h);
	else
		check_finished(&s, p, &h);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	struct vnet_header v;

	if (length < VNET_HEADER_BYTES)
		return 0;
	vnet_header_get(&v, input);
	size_t bytes = length - VNET_HEADER_BYTES;
	/* The copy has the exact length, so that the sanitizer sees a read past it. */
	uint8_t *copy = malloc(bytes);
	struct packet p = { .bytes = copy, .length = bytes };
	if (bytes > 0)
		memcpy(copy, input + VNET_HEADER_BYTES, bytes);
	check(&v, &p);
	/* The header is repaired, so that the fuzzer gets past the first rules. Bytes may lie behind the packet. */
	p.length = bytes;
	if (bytes > 0)
		memcpy(copy, input + VNET_HEADER_BYTES, bytes);
	packet_put_u8(&p, 0, (uint8_t)(0x45 + (bytes > 60 ? packet_u8(&p, 1) % 3 : 0)));
	packet_put_u16(&p, 2, (uint16_t)(bytes - (bytes > 60 && packet_u8(&p, 3) < 4 ? packet_u8(&p, 3) : 0)));
	packet_put_u16(&p, 6, FRAGMENT_DF);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, (size_t)(packet_u8(&p, 0) & 15) * 4));
	v.checksum_start = (uint16_t)((packet_u8(&p, 0) & 15) * 4);
	check(&v, &p);
	free(copy);
	return 0;
}
