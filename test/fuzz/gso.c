/*
 * Fuzz target: any virtio header before any packet. What vnet_header_check() lets through is what the kernel may be
 * given: the rules are spelled out here a second time, in another form.
 */
#include "fixture.h"
#include "gso.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* As the input has them, or put right, so that the fuzzer gets past the first rules. */
static void check(const struct vnet_header *v, const struct packet *p)
{
	uint8_t bytes[VNET_HEADER_BYTES];
	struct vnet_header back;

	vnet_header_put(v, bytes);
	vnet_header_get(&back, bytes);
	require(back.gso_size == v->gso_size && back.gso_type == v->gso_type && back.header_bytes == v->header_bytes);
	if (vnet_header_check(v, p) != GSO_SOUND || vnet_header_is_plain(v))
		return;
	size_t header = (size_t)(packet_u8(p, 0) & 15) * 4;
	bool is_udp = v->gso_type == 5;
	require(p->length == packet_u16(p, 2) && p->length <= 65535 && packet_u8(p, 0) >> 4 == 4);
	require(packet_u8(p, 9) == (is_udp ? 17 : 6) && (is_udp || (v->gso_type & 0x7f) == 1));
	require((packet_u16(p, 6) & 0x3fff) == 0);
	require(v->checksum_start == header && v->checksum_start + v->checksum_offset + 2u <= p->length);
	require(v->header_bytes >= header + 8 && v->header_bytes < p->length);
	require(v->gso_size >= 536);
	size_t segments = (p->length - v->header_bytes + v->gso_size - 1) / v->gso_size;
	require(segments >= 2 && segments <= 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	struct vnet_header v;

	if (length < VNET_HEADER_BYTES)
		return 0;
	vnet_header_get(&v, input);
	uint8_t *bytes = malloc(length - VNET_HEADER_BYTES + 1);
	struct packet p = { .bytes = bytes, .length = length - VNET_HEADER_BYTES };
	memcpy(bytes, input + VNET_HEADER_BYTES, p.length);
	check(&v, &p);
	packet_put_u8(&p, 0, 0x45);
	packet_put_u16(&p, 2, (uint16_t)p.length);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, 20));
	check(&v, &p);
	free(bytes);
	return 0;
}
