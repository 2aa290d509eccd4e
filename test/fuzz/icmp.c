/*
 * Fuzz target: ICMP errors about any packet. Whether one may be sent, and every byte of it, is what the second
 * implementation in icmp-reference.h says. Nothing is quoted that was not received, and no reply gets a reply.
 *
 * Six bytes stand before the packet: type, code, MTU, how much of the packet was received, how much room the reply has.
 */
#include "icmp-reference.h"
#include "fixture.h"
#include "target.h"

#define BEFORE_BYTES 6u

static void check_built(const struct packet *whole, const struct ipv4 *h, const uint8_t *before)
{
	static const uint8_t types[] = { ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED, 12 };
	const struct icmp_error error = { .type = types[before[0] % 3], .code = before[1],
					  .mtu = (uint16_t)(before[2] << 8 | before[3]) };
	const uint32_t from = fixture_self.subnet;
	/* The header is received in any case, the rest of the packet in part or as a whole. */
	const size_t less = before[4] < 128 ? 0 : before[4] - 127u;
	const size_t received = whole->length - h->header_bytes < less ? h->header_bytes : whole->length - less;
	const size_t room = before[5] < 128 ? ICMP_BYTES_MAX : 28 + before[5] % (ICMP_BYTES_MAX - 27);
	/* The lengths are exact, so that the sanitizer sees an access past them. */
	uint8_t *bytes = malloc(received), *got = malloc(room), expected[ICMP_BYTES_MAX];
	const struct packet about = { .bytes = bytes, .length = received };
	struct packet reply = { .bytes = got, .length = room };
	struct ipv4 of_reply;

	memcpy(bytes, whole->bytes, received);
	icmp_build(&reply, &error, from, &about, h);
	require(memcmp(bytes, whole->bytes, received) == 0);
	size_t n = reference_icmp(expected, room, &error, from, bytes, received);
	require(reply.length == n && memcmp(got, expected, n) == 0);
	require(ipv4_parse(&reply, &of_reply) == IPV4_SOUND && !icmp_may_reply(&reply, &of_reply));
	free(bytes);
	free(got);
}

static void check(const struct packet *p, const uint8_t *before)
{
	struct ipv4 h;

	if (ipv4_parse(p, &h) != IPV4_SOUND)
		return;
	require(icmp_may_reply(p, &h) == reference_icmp_allowed(p->bytes));
	check_built(p, &h, before);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	if (length < BEFORE_BYTES)
		return 0;
	/* The copy has the exact length, so that the sanitizer sees a read past it. */
	struct packet p = { .bytes = malloc(length - BEFORE_BYTES), .length = length - BEFORE_BYTES };
	if (p.length > 0)
		memcpy(p.bytes, input + BEFORE_BYTES, p.length);
	check(&p, input);
	/* The header is repaired, so that the fuzzer gets past its checks. Some bytes may lie behind the packet. */
	const size_t padding = p.length < 20 ? 0 : packet_u8(&p, 3) % 32u;
	packet_put_u8(&p, 0, (uint8_t)(0x45 + packet_u8(&p, 0) % 11));
	if (p.length >= (size_t)(packet_u8(&p, 0) & 15) * 4 + padding) {
		packet_put_u16(&p, 2, (uint16_t)(p.length - padding));
		packet_put_u16(&p, 10, 0);
		packet_put_u16(&p, 10, checksum_make(&p, 0, (size_t)(packet_u8(&p, 0) & 15) * 4));
		check(&p, input);
	}
	free(p.bytes);
	return 0;
}
