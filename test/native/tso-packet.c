/* tso-packet.c: a TSO packet is cut into its segments, and virtio headers that make no sense are refused. */
#include "tso-packet.h"
#include "fixture.h"
#include "pseudo-header.h"
#include "reference.h"
#include "tcp-udp.h"
#include "test.h"

struct shape {
	const char *name;
	uint8_t protocol;
	size_t header; /* IP */
	size_t transport;
	size_t payload;
	uint16_t gso_size;
	uint8_t flags; /* of TCP */
};

static const struct shape shapes[] = {
	{ "two full", PROTOCOL_TCP, 20, 20, 2 * 1000, 1000, TCP_ACK },
	{ "a short last one", PROTOCOL_TCP, 20, 32, 5 * 1420 + 1, 1420, TCP_ACK | TCP_PSH },
	{ "all flags", PROTOCOL_TCP, 20, 60, 3 * 700, 700, TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR | TCP_ECE },
	{ "IP options", PROTOCOL_TCP, 60, 24, 4000, 1001, TCP_ACK },
	{ "as long as a packet can be", PROTOCOL_TCP, 20, 32, 65535 - 52, 1420, TCP_ACK },
	{ "tiny ones", PROTOCOL_TCP, 20, 20, 3000, 48, TCP_ACK },
	{ "one after all", PROTOCOL_TCP, 20, 20, 900, 1000, TCP_ACK | TCP_PSH },
	{ "UDP", PROTOCOL_UDP, 20, 8, 7 * 1000 + 3, 1000, 0 },
	{ "UDP of one byte", PROTOCOL_UDP, 20, 8, 64, 1, 0 },
	{ "UDP of odd length", PROTOCOL_UDP, 20, 8, 10 * 333, 333, 0 },
};

/* A TSO packet as the kernel hands it over, with the sum of the pseudo header in the checksum field. */
static struct packet make(struct suite *s, uint8_t *bytes, const struct shape *f, struct vnet_header *v)
{
	struct recipe r = { .source = ADDRESS(10, 5, 1, 9), .destination = ADDRESS(10, 5, 2, 9), .protocol = f->protocol,
			    .header = f->header, .total = f->header + f->transport + f->payload, .fragment = FRAGMENT_DF };
	struct packet p = packet_make(bytes, &r);
	struct ipv4 h;

	for (size_t at = f->header; at < p.length; at++)
		packet_put_u8(&p, at, (uint8_t)suite_random(s));
	packet_put_u16(&p, 4, 0xfffe); /* the identification wraps around */
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, f->header));
	ipv4_parse(&p, &h);
	bool is_udp = f->protocol == PROTOCOL_UDP;
	if (is_udp) {
		packet_put_u16(&p, f->header + 4, (uint16_t)(p.length - f->header));
	} else {
		packet_put_u32(&p, f->header + 4, 0xffffff00); /* so does the sequence number */
		packet_put_u8(&p, f->header + 12, (uint8_t)(f->transport / 4 << 4));
		packet_put_u8(&p, f->header + 13, f->flags);
	}
	packet_put_u16(&p, f->header + (is_udp ? 6 : 16), pseudo_header_sum(&h, p.length - f->header));
	*v = (struct vnet_header){ .flags = VNET_NEEDS_CHECKSUM, .gso_type = is_udp ? GSO_UDP_L4 : GSO_TCP4,
				   .header_bytes = 9999, .gso_size = f->gso_size, .checksum_start = (uint16_t)f->header,
				   .checksum_offset = is_udp ? 6 : 16 };
	return p;
}

static void cuts_like_the_reference(struct suite *s)
{
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		uint8_t *bytes = malloc(65535), *expected = malloc(65535);
		struct vnet_header v;
		struct packet p = make(s, bytes, &shapes[i], &v);
		struct tso_packet tso;
		struct ipv4 h;

		ipv4_parse(&p, &h);
		CHECK_CASE(s, tso_packet_read(&tso, &v, &p) && tso_packet_fits(&tso, &h), shapes[i].name);
		CHECK_CASE(s, tso.segments == (shapes[i].payload + v.gso_size - 1u) / v.gso_size, shapes[i].name);
		for (size_t number = 0; number < tso.segments; number++) {
			size_t length = reference_segment(expected, &v, &p, number);
			uint8_t *got = malloc(length);
			struct packet segment = { .bytes = got, .length = length - 1 };
			CHECK_CASE(s, !tso_packet_cut(&tso, &p, &h, number, &segment), shapes[i].name);
			segment.length = length;
			CHECK_CASE(s, tso_packet_cut(&tso, &p, &h, number, &segment), shapes[i].name);
			CHECK_CASE(s, segment.length == length && memcmp(got, expected, length) == 0, shapes[i].name);
			CHECK_CASE(s, ipv4_parse(&segment, &h) == IPV4_SOUND && pseudo_header_packet_sum(&segment, &h) == 0xffff,
				   shapes[i].name);
			free(got);
		}
		free(bytes);
		free(expected);
	}
}

static bool accepts(struct suite *s, const struct vnet_header *v, const struct shape *f, uint16_t fragment)
{
	uint8_t *bytes = malloc(65535);
	struct vnet_header usual;
	struct packet p = make(s, bytes, f, &usual);
	struct tso_packet tso;
	struct ipv4 h;

	packet_put_u16(&p, 6, fragment);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, f->header));
	ipv4_parse(&p, &h);
	bool taken = tso_packet_read(&tso, v, &p) && tso_packet_fits(&tso, &h);
	free(bytes);
	return taken;
}

static void refuses(struct suite *s)
{
	const struct shape *tcp = &shapes[0], *udp = &shapes[7];
	const struct vnet_header good = { 1, GSO_TCP4, 40, 1000, 20, 16 };
	struct vnet_header v;

	CHECK(s, accepts(s, &good, tcp, 0));
	CHECK(s, !accepts(s, &good, tcp, FRAGMENT_MF));
	CHECK(s, !accepts(s, &good, udp, 0));
#define BROKEN(change) (v = good, v.change, CHECK(s, !accepts(s, &v, tcp, 0)))
	BROKEN(flags = 0);
	BROKEN(flags = 4 | 1);
	BROKEN(gso_type = 2);
	BROKEN(gso_type = 3);
	BROKEN(gso_type = 0x7f);
	BROKEN(gso_type = GSO_UDP_L4);
	BROKEN(gso_type = GSO_UDP_L4 | GSO_ECN);
	BROKEN(gso_size = 0);
	BROKEN(checksum_start = 0);
	BROKEN(checksum_start = 19);
	BROKEN(checksum_start = 24);
	BROKEN(checksum_start = 65535);
	BROKEN(checksum_offset = 6);
	BROKEN(checksum_offset = 65535);
}

/* A packet that is not cut gets its checksum finished. A UDP checksum of 0 is written as 0xffff. */
static void finishes(struct suite *s)
{
	for (int i = 0; i < 200000; i++) {
		uint8_t bytes[48];
		struct recipe r = { .source = suite_random(s), .destination = suite_random(s) };
		struct packet p = packet_make(bytes, &r);
		const struct vnet_header v = { .flags = VNET_NEEDS_CHECKSUM, .checksum_start = 20, .checksum_offset = 6 };
		struct tso_packet tso;
		struct ipv4 h;
		ipv4_parse(&p, &h);
		packet_put_u16(&p, 26, pseudo_header_sum(&h, 28));
		if (!CHECK(s, tso_packet_read(&tso, &v, &p) && tso_packet_fits(&tso, &h) && tso.segment_bytes == 0))
			return;
		tso_packet_finish(&tso, &p, &h);
		if (packet_u16(&p, 26) == 0 || pseudo_header_packet_sum(&p, &h) != 0xffff)
			CHECK(s, false);
	}
}

/* fault N1: TCP without DF is cut into segments that the path carries; the lengths of UDP datagrams stay. */
static void shortened(struct suite *s)
{
	uint8_t *bytes = malloc(65536), expected[2048], got[2048];
	const struct shape *tcp = &shapes[1], *udp = &shapes[7];
	struct vnet_header v;
	struct tso_packet t;
	struct packet p = make(s, bytes, tcp, &v);
	struct ipv4 h;

	ipv4_parse(&p, &h);
	CHECK(s, tso_packet_read(&t, &v, &p));
	tso_packet_shorten(&t, &p, 52 + 1420);
	CHECK(s, t.payload_bytes == 1420);
	tso_packet_shorten(&t, &p, 1272);
	CHECK(s, t.segment_bytes == 1272 && t.payload_bytes == 1220 && t.segments == 6 && tso_packet_fits(&t, &h));
	v.gso_size = 1220;
	for (size_t i = 0; i < t.segments; i++) {
		struct packet segment = { .bytes = got, .length = 1272 };
		size_t length = reference_segment(expected, &v, &p, i);
		CHECK(s, tso_packet_cut(&t, &p, &h, i, &segment) && segment.length == length &&
			 memcmp(got, expected, length) == 0);
	}
	tso_packet_shorten(&t, &p, 52); /* no room for any byte */
	CHECK(s, t.segment_bytes == 1272);
	p = make(s, bytes, udp, &v);
	CHECK(s, tso_packet_read(&t, &v, &p));
	tso_packet_shorten(&t, &p, 500);
	CHECK(s, t.payload_bytes == 1000);
	free(bytes);
}

int main(void)
{
	struct suite s = { .name = "tso-packet", .random = 31 };

	cuts_like_the_reference(&s);
	refuses(&s);
	finishes(&s);
	shortened(&s);
	return suite_end(&s);
}
