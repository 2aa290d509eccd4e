/*
 * Fuzz target: any virtio header before any packet from the TUN. What is cut equals, segment by segment, what the
 * reference makes of it; what is only finished has a right checksum; nothing is written past the room.
 */
#include "segment.h"
#include "fixture.h"
#include "reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_cut(const struct super *s, const struct vnet_header *v, const struct packet *p, const struct ipv4 *h)
{
	uint8_t *expected = malloc(p->length);
	size_t total = 0;

	require(s->segment_bytes <= p->length && s->segments >= 1);
	for (size_t number = 0; number < s->segments; number++) {
		size_t bytes = reference_segment(expected, v, p, number);
		uint8_t *got = malloc(bytes);
		struct packet segment = { .bytes = got, .length = bytes };
		require(bytes <= s->segment_bytes && super_cut(s, p, h, number, &segment));
		require(segment.length == bytes && memcmp(got, expected, bytes) == 0);
		total += bytes - s->header_bytes;
		free(got);
	}
	require(total == p->length - s->header_bytes);
	free(expected);
}

static void check(const struct vnet_header *v, struct packet *p)
{
	struct super s;
	struct ipv4 h;

	if (!super_read(&s, v, p) || ipv4_parse(p, &h) != IPV4_SOUND)
		return;
	p->length = h.total_bytes;
	if (!super_fits(&s, &h))
		return;
	if (s.segment_bytes != 0) {
		check_cut(&s, v, p, &h);
		return;
	}
	require(s.segments == 1 && s.checksum_start <= p->length);
	uint16_t expected = reference_sum(0, p->bytes + s.checksum_start, p->length - s.checksum_start);
	super_finish(&s, p, &h);
	if (s.wants_checksum)
		require(packet_u16(p, s.checksum_at) == (expected == 0 && h.protocol == PROTOCOL_UDP ? 0xffff : expected));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	struct vnet_header v;

	if (length < VNET_HEADER_BYTES)
		return 0;
	vnet_header_get(&v, input);
	size_t bytes = length - VNET_HEADER_BYTES;
	uint8_t *copy = malloc(bytes + 1);
	struct packet p = { .bytes = copy, .length = bytes };
	memcpy(copy, input + VNET_HEADER_BYTES, bytes);
	check(&v, &p);
	/* Put right, so that the fuzzer gets past the first rules. */
	p.length = bytes;
	memcpy(copy, input + VNET_HEADER_BYTES, bytes);
	packet_put_u8(&p, 0, (uint8_t)(0x45 + (bytes > 60 ? packet_u8(&p, 1) % 3 : 0)));
	packet_put_u16(&p, 2, (uint16_t)bytes);
	packet_put_u16(&p, 6, FRAGMENT_DF);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, (size_t)(packet_u8(&p, 0) & 15) * 4));
	v.checksum_start = (uint16_t)((packet_u8(&p, 0) & 15) * 4);
	check(&v, &p);
	free(copy);
	return 0;
}
