/* gso.c: the vectors of packets.json, and headers that break one rule each. */
#include "gso.h"
#include "fixture.h"
#include "test.h"
#include "vectors.h"

#define TCP4 1
#define UDP_L4 5
#define NEEDS_CSUM 1

struct gso_case {
	uint8_t protocol;
	uint16_t fragment;
	size_t total;
	size_t header;
	uint8_t tcp_words; /* data offset */
	struct vnet_header vnet;
};

static const struct gso_case tcp = {
	.protocol = PROTOCOL_TCP, .total = 40 + 3 * 1432, .header = 20, .tcp_words = 5,
	.vnet = { NEEDS_CSUM, TCP4, 40, 1432, 20, 16 },
};
static const struct gso_case udp = {
	.protocol = PROTOCOL_UDP, .total = 28 + 5 * 1000 + 1, .header = 20,
	.vnet = { NEEDS_CSUM, UDP_L4, 28, 1000, 20, 6 },
};

static enum gso_fault check(const struct gso_case *c)
{
	uint8_t *bytes = malloc(65535);
	struct recipe r = { .source = ADDRESS(10, 5, 2, 9), .destination = ADDRESS(10, 5, 1, 9), .total = c->total,
			    .header = c->header, .protocol = c->protocol, .fragment = c->fragment };
	r.payload[12] = (uint8_t)(c->tcp_words << 4);
	struct packet p = packet_make(bytes, &r);
	enum gso_fault fault = vnet_header_check(&c->vnet, &p);

	free(bytes);
	return fault;
}

static void sound(struct suite *s)
{
	struct gso_case x = tcp;

	CHECK(s, check(&tcp) == GSO_SOUND);
	CHECK(s, check(&udp) == GSO_SOUND);
	x.vnet.gso_type = TCP4 | 0x80; /* ECN */
	CHECK(s, check(&x) == GSO_SOUND);
	x = tcp;
	x.header = 24;
	x.tcp_words = 8;
	x.vnet = (struct vnet_header){ NEEDS_CSUM, TCP4, 56, 536, 24, 16 };
	CHECK(s, check(&x) == GSO_SOUND);
	x.vnet = (struct vnet_header){ 0 };
	CHECK(s, check(&x) == GSO_SOUND);
}

#define BROKEN(base, change, fault) \
	do { \
		struct gso_case x = base; \
		x.change; \
		CHECK(s, check(&x) == (fault)); \
	} while (0)

static void each_rule_alone(struct suite *s)
{
	BROKEN(tcp, vnet.flags = 0, GSO_BAD_FLAGS);
	BROKEN(tcp, vnet.flags = 2, GSO_BAD_FLAGS);
	BROKEN(tcp, vnet.flags = 0xff, GSO_BAD_FLAGS);
	BROKEN(tcp, vnet.gso_type = 0, GSO_BAD_TYPE);
	BROKEN(tcp, vnet.gso_type = 0x80, GSO_BAD_TYPE);
	BROKEN(tcp, vnet.gso_type = 0x7f, GSO_BAD_TYPE);
	BROKEN(tcp, vnet.gso_type = 3, GSO_BAD_TYPE); /* legacy UFO */
	BROKEN(tcp, vnet.gso_type = 4, GSO_BAD_TYPE); /* TCPv6 */
	BROKEN(udp, vnet.gso_type = UDP_L4 | 0x80, GSO_BAD_TYPE);
	BROKEN(tcp, vnet.gso_type = UDP_L4, GSO_BAD_PROTOCOL);
	BROKEN(udp, vnet.gso_type = TCP4, GSO_BAD_PROTOCOL);
	BROKEN(tcp, protocol = 1, GSO_BAD_PROTOCOL);
	BROKEN(tcp, fragment = FRAGMENT_MF, GSO_BAD_PACKET);
	BROKEN(tcp, fragment = 1, GSO_BAD_PACKET);
	BROKEN(tcp, tcp_words = 4, GSO_BAD_PACKET);
	BROKEN(tcp, total = 39, GSO_BAD_PACKET);
	BROKEN(udp, total = 27, GSO_BAD_PACKET);
	BROKEN(tcp, vnet.header_bytes = 65535, GSO_BAD_HEADER_BYTES);
	BROKEN(tcp, vnet.header_bytes = 39, GSO_BAD_HEADER_BYTES);
	BROKEN(tcp, vnet.header_bytes = 0, GSO_BAD_HEADER_BYTES);
	BROKEN(tcp, vnet.gso_size = 0, GSO_BAD_SIZE);
	BROKEN(tcp, vnet.gso_size = 1, GSO_BAD_SIZE);
	BROKEN(tcp, vnet.gso_size = 535, GSO_BAD_SIZE);
	BROKEN(udp, vnet.gso_size = 0, GSO_BAD_SIZE);
	BROKEN(tcp, vnet.gso_size = 65535, GSO_BAD_SEGMENTS); /* one segment is no segmentation */
	BROKEN(tcp, total = 40 + 1432, GSO_BAD_SEGMENTS);
	BROKEN(tcp, total = 40, GSO_BAD_SEGMENTS);
	BROKEN(tcp, vnet.checksum_start = 0, GSO_BAD_CHECKSUM_PLACE);
	BROKEN(tcp, vnet.checksum_start = 65535, GSO_BAD_CHECKSUM_PLACE);
	BROKEN(tcp, vnet.checksum_offset = 6, GSO_BAD_CHECKSUM_PLACE);
	BROKEN(udp, vnet.checksum_offset = 16, GSO_BAD_CHECKSUM_PLACE);
}

/* UDP segments may be small, down to one byte each. */
static void small_udp(struct suite *s)
{
	struct gso_case x = udp;

	x.vnet.gso_size = 535;
	CHECK(s, check(&x) == GSO_SOUND);
	x.vnet.gso_size = 22;
	x.total = 28 + 64 * 22;
	CHECK(s, check(&x) == GSO_SOUND);
	x.total++;
	CHECK(s, check(&x) == GSO_BAD_SEGMENTS);
	x.vnet.gso_size = 1;
	x.total = 28 + 64;
	CHECK(s, check(&x) == GSO_SOUND);
	x.total = 28 + 2;
	CHECK(s, check(&x) == GSO_SOUND);
	x.total = 28 + 1;
	CHECK(s, check(&x) == GSO_BAD_SEGMENTS);
	x.total = 28 + 65;
	CHECK(s, check(&x) == GSO_BAD_SEGMENTS);
}

static void segments(struct suite *s)
{
	struct gso_case x = tcp;

	x.vnet.gso_size = 536;
	x.total = 40 + 64 * 536;
	CHECK(s, check(&x) == GSO_SOUND);
	x.total++;
	CHECK(s, check(&x) == GSO_BAD_SEGMENTS);
	x.vnet.gso_size = 1432;
	x.total = 65535;
	CHECK(s, check(&x) == GSO_SOUND);
}

/* A vector is a virtio header only. It is refused before the good packet that it describes, and before noise. */
static void vectors_are_refused(struct suite *s)
{
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		struct gso_case x = v->length == VNET_HEADER_BYTES && v->bytes[8] == 6 ? tcp : udp;
		if (v->direction != VECTOR_VNET)
			continue;
		CHECK_CASE(s, v->length == VNET_HEADER_BYTES && v->counter == rx_gso, v->name);
		vnet_header_get(&x.vnet, v->bytes);
		CHECK_CASE(s, check(&x) != GSO_SOUND, v->name);
		x.protocol = PROTOCOL_TCP;
		x.tcp_words = 5;
		CHECK_CASE(s, check(&x) != GSO_SOUND, v->name);
	}
}

static void byte_form(struct suite *s)
{
	const uint8_t bytes[VNET_HEADER_BYTES] = { 1, 5, 0x28, 0x01, 0xf4, 0x02, 0x14, 0x03, 0x10, 0x04 };
	uint8_t back[VNET_HEADER_BYTES];
	struct vnet_header v;

	vnet_header_get(&v, bytes);
	CHECK(s, v.header_bytes == 0x0128 && v.gso_size == 0x02f4 && v.checksum_start == 0x0314 &&
			 v.checksum_offset == 0x0410);
	vnet_header_put(&v, back);
	CHECK(s, memcmp(bytes, back, sizeof bytes) == 0);
}

int main(void)
{
	struct suite s = { .name = "gso", .random = 5 };

	sound(&s);
	each_rule_alone(&s);
	small_udp(&s);
	segments(&s);
	vectors_are_refused(&s);
	byte_form(&s);
	return suite_end(&s);
}
