/*
 * Fuzz target: any virtio header before any packet. vnet_header_check() accepts exactly what the rules allow, which are
 * implemented here a second time, in another form and over plain bytes.
 */
#include "fixture.h"
#include "gso.h"
#include "reference.h"
#include "target.h"

/* Whether a GSO packet of `n` bytes may go to the kernel behind this header. */
static bool may_stand(const struct vnet_header *v, const uint8_t *b, size_t n)
{
	const bool is_udp = v->gso_type == 5, is_tcp = v->gso_type == 1 || v->gso_type == 0x81;
	const size_t ip = n < 20 ? 0 : (b[0] & 15u) * 4u;

	if ((!is_udp && !is_tcp) || v->flags != 1 || ip < 20 || ip + 8 > n || b[0] >> 4 != 4)
		return false;
	if (b[9] != (is_udp ? 17 : 6) || (size_t)(b[2] << 8 | b[3]) != n || reference_sum(0, b, ip) != 0)
		return false;
	if ((b[6] & 0x3f) != 0 || b[7] != 0)
		return false;
	const size_t tcp = is_tcp && ip + 13 <= n ? (b[ip + 12] >> 4) * 4u : 0;
	const size_t headers = ip + (is_udp ? 8 : tcp);
	if ((is_tcp && tcp < 20) || headers >= n || v->header_bytes != headers)
		return false;
	if (v->gso_size < (is_udp ? 1 : 536) || v->checksum_start != ip || v->checksum_offset != (is_udp ? 6 : 16))
		return false;
	const size_t segments = (n - headers + v->gso_size - 1) / v->gso_size;
	return segments >= 2 && segments <= 64;
}

static void check(const struct vnet_header *v, const struct packet *p)
{
	uint8_t bytes[VNET_HEADER_BYTES];
	struct vnet_header back;

	vnet_header_put(v, bytes);
	vnet_header_get(&back, bytes);
	require(back.flags == v->flags && back.gso_type == v->gso_type && back.header_bytes == v->header_bytes);
	require(back.gso_size == v->gso_size && back.checksum_start == v->checksum_start &&
		back.checksum_offset == v->checksum_offset);
	for (size_t i = 0; i < sizeof bytes; i++)
		if (bytes[i] != 0) {
			require((vnet_header_check(v, p) == GSO_SOUND) == may_stand(v, p->bytes, p->length));
			return;
		}
	require(vnet_header_check(v, p) == GSO_SOUND); /* a plain packet */
}

/* Repairs the header of the packet, so that the fuzzer gets past the first rules. */
static void mend_packet(struct packet *p)
{
	packet_put_u8(p, 0, 0x45);
	packet_put_u16(p, 2, (uint16_t)p->length);
	packet_put_u16(p, 10, 0);
	packet_put_u16(p, 10, checksum_make(p, 0, 20));
}

/* Repairs the virtio header except the segment size, and what it says of the packet. */
static void mend_header(struct vnet_header *v, struct packet *p)
{
	const bool is_udp = v->gso_type % 2 == 0;

	packet_put_u8(p, 9, is_udp ? 17 : 6);
	packet_put_u16(p, 6, 0x4000);
	mend_packet(p);
	*v = (struct vnet_header){ .flags = 1, .gso_type = is_udp ? 5 : 1, .gso_size = v->gso_size % 2048,
				   .header_bytes = (uint16_t)(20 + (is_udp ? 8 : (packet_u8(p, 32) >> 4) * 4)),
				   .checksum_start = 20, .checksum_offset = is_udp ? 6 : 16 };
}

/* Also checks the sizes at which the verdict changes. */
static void check_sizes(struct vnet_header *v, const struct packet *p)
{
	static const uint16_t edges[] = { 0, 1, 535, 536 };

	check(v, p);
	for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
		v->gso_size = edges[i];
		check(v, p);
	}
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
	mend_packet(&p);
	check(&v, &p);
	mend_header(&v, &p);
	check_sizes(&v, &p);
	free(bytes);
	return 0;
}
