/* icmp.c: which packets get a reply, and every byte of it. */
#include "fixture.h"
#include "test.h"

static const struct recipe usual = { .source = ADDRESS(10, 5, 1, 9), .destination = ADDRESS(10, 5, 200, 9) };

static bool replied(const struct recipe *r)
{
	uint8_t bytes[2048];
	struct packet p = packet_make(bytes, r);
	struct ipv4 h;

	return ipv4_parse(&p, &h) == IPV4_SOUND && icmp_may_reply(&p, &h);
}

static void never_about_icmp_errors(struct suite *s)
{
	for (unsigned int type = 0; type < 256; type++) {
		struct recipe r = usual;
		r.protocol = PROTOCOL_ICMP;
		r.payload[0] = (uint8_t)type;
		bool query = type == 0 || type == 8 || type == 9 || type == 10 || (type >= 13 && type <= 18);
		CHECK(s, replied(&r) == query);
	}
	struct recipe without_type = usual;
	without_type.protocol = PROTOCOL_ICMP;
	without_type.total = 20;
	CHECK(s, !replied(&without_type));
}

static void never_about_these(struct suite *s)
{
	const uint32_t nobody[] = { 0, ADDRESS(0, 1, 2, 3), ADDRESS(127, 0, 0, 1), ADDRESS(224, 0, 0, 1),
				    ADDRESS(239, 255, 255, 250), ADDRESS(240, 0, 0, 1), 0xffffffff };
	struct recipe r = usual;

	CHECK(s, replied(&r));
	for (size_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
		r = usual;
		r.source = nobody[i];
		CHECK(s, !replied(&r));
		r = usual;
		r.destination = nobody[i];
		CHECK(s, !replied(&r));
	}
	r = usual;
	r.fragment = FRAGMENT_MF;
	CHECK(s, replied(&r)); /* the first fragment */
	r.fragment = FRAGMENT_MF | 1;
	CHECK(s, !replied(&r));
	r.fragment = 0x1fff;
	CHECK(s, !replied(&r));
}

/* The reply must quote `quote` bytes of the packet. */
static void check_reply(struct suite *s, const struct recipe *r, struct icmp_error error, size_t quote)
{
	uint8_t bytes[2048];
	/* The room is exact, so that the sanitizer sees a write past it. */
	uint8_t *room = malloc(ICMP_BYTES_MAX);
	struct packet p = packet_make(bytes, r);
	struct packet reply = { .bytes = room, .length = ICMP_BYTES_MAX };
	struct ipv4 h;
	struct ipv4 h2;

	CHECK(s, ipv4_parse(&p, &h) == IPV4_SOUND);
	icmp_build(&reply, &error, ADDRESS(10, 5, 1, 0), &p, &h);
	CHECK(s, reply.length == 28 + quote);
	CHECK(s, ipv4_parse(&reply, &h2) == IPV4_SOUND && h2.total_bytes == reply.length);
	CHECK(s, h2.source == ADDRESS(10, 5, 1, 0) && h2.destination == r->source && h2.protocol == PROTOCOL_ICMP);
	CHECK(s, packet_u8(&reply, 20) == error.type && packet_u8(&reply, 21) == error.code);
	CHECK(s, packet_u32(&reply, 24) == error.mtu);
	CHECK(s, checksum_sum(&reply, 20, reply.length - 20) == 0xffff);
	CHECK(s, memcmp(room + 28, bytes, quote) == 0);
	free(room);
}

static void replies(struct suite *s)
{
	const struct icmp_error unreachable = { .type = 3, .code = 0 };
	const struct icmp_error exceeded = { .type = 11, .code = 0 };
	const struct icmp_error needed = { .type = 3, .code = 4, .mtu = 1472 };
	struct recipe r = usual;

	memcpy(r.payload, "abcdefghijklmnop", 16);
	check_reply(s, &r, unreachable, 28);
	check_reply(s, &r, exceeded, 28);
	check_reply(s, &r, needed, 28);
	for (size_t payload = 0; payload < 12; payload++) {
		r.total = 20 + payload;
		check_reply(s, &r, unreachable, 20 + (payload < 8 ? payload : 8));
	}
	r.total = 1400;
	r.header = 60;
	check_reply(s, &r, needed, 68);
	r.total = 63;
	check_reply(s, &r, needed, 63);
}

/* The packet ends where its total length says. The bytes after it are padding of a link. */
static void quotes_no_padding(struct suite *s)
{
	struct recipe r = usual;

	r.total = 22;
	r.received = 46;
	check_reply(s, &r, (struct icmp_error){ .type = 3 }, 22);
}

static void smaller_mtu(struct suite *s)
{
	for (size_t bytes = 100; bytes <= 65535; bytes++)
		if (!(icmp_smaller_mtu(bytes) < bytes && icmp_smaller_mtu(bytes) >= 68))
			CHECK(s, false);
	CHECK(s, icmp_smaller_mtu(1472) == 1492 - 28);
	CHECK(s, icmp_smaller_mtu(1464) == 1280 - 28);
	CHECK(s, icmp_smaller_mtu(60) == 68);
}

int main(void)
{
	struct suite s = { .name = "icmp", .random = 4 };

	never_about_icmp_errors(&s);
	never_about_these(&s);
	replies(&s);
	quotes_no_padding(&s);
	smaller_mtu(&s);
	return suite_end(&s);
}
