/*
 * Fuzz target: any bytes through the packet rules, as they are and with a right header checksum. The counter, the reply
 * and the bytes afterwards are what the second implementations in rules.h and icmp-reference.h say.
 *
 * The first byte of the input chooses: bit 0 the direction (1: from the TUN), bits 1 and 2 the flags, bits 3 to 7 the
 * outer source and truncation, or the length of the segments into which the packet would be cut.
 */
#include "rules.h"
#include "target.h"

static void check_reply(const struct packet *p, const struct self *self, const struct outcome *out)
{
	uint8_t *room = malloc(ICMP_BYTES_MAX), expected[ICMP_BYTES_MAX];
	struct packet reply = { .bytes = room, .length = ICMP_BYTES_MAX };
	const struct icmp_error error = {
		.type = out->counter == tx_ttl ? 11 : 3,
		.code = out->counter == tx_oversize ? 4 : 0,
		.mtu = out->counter == tx_oversize ? MTU : 0,
	};

	icmp_build(&reply, &out->error, self->subnet, p, &out->header);
	size_t n = reference_icmp(expected, sizeof expected, &error, self->subnet, p->bytes, p->length);
	require(reply.length == n && memcmp(room, expected, n) == 0);
	free(room);
}

static void go_out(struct packet *p, uint8_t choice, const struct self *self, const struct route_table *routes)
{
	const size_t longest = (size_t)(choice >> 3) * 64;
	uint8_t *before = malloc(p->length + 1);
	const size_t received = p->length;
	struct outcome out;

	memcpy(before, p->bytes, received);
	const enum counter counter = rules_outbound(before, received, longest, self->flags);
	enum verdict verdict = forward_outbound(p, longest, self, routes, &out);
	require(out.counter == counter);
	require(verdict == (counter == tx_ok ? SEND_TO_PEER : rules_told(before, counter) ? REPLY_ICMP : DROP));
	if (verdict == REPLY_ICMP)
		check_reply(p, self, &out);
	if (verdict == SEND_TO_PEER) {
		require(out.endpoint.port == PORT && out.endpoint.address == rules_endpoint(rules_address(before + 16)));
		require(p->length == (size_t)(before[2] << 8 | before[3]) && p->bytes[8] == before[8] - 1);
		require(reference_sum(0, p->bytes, (before[0] & 15u) * 4u) == 0);
		before[8]--;
		memcpy(before + 10, p->bytes + 10, 2);
	}
	require(p->length <= received && memcmp(p->bytes, before, received) == 0);
	free(before);
}

static void come_in(struct packet *p, uint8_t choice, const struct self *self, const struct route_table *routes)
{
	const struct outer outer = {
		.source = ADDRESS(192, 0, 2, (choice >> 3 & 7) == 0 ? 2 : choice >> 3 & 7),
		.port = (uint16_t)(PORT + (choice >> 6 == 1)),
		.truncated = choice >> 6 == 3,
	};
	uint8_t *before = malloc(p->length + 1);
	const size_t received = p->length;
	struct outcome out;

	memcpy(before, p->bytes, received);
	const enum counter counter = rules_inbound(before, received, &outer, self->flags);
	enum verdict verdict = forward_inbound(p, &outer, self, routes, &out);
	require(out.counter == counter);
	require(verdict == (counter == rx_ok ? WRITE_TO_TUN : counter == rx_probe ? TAKE_PROBE : DROP));
	/* The fixture has a peer for each route, 10.5.2.0/24 and 10.5.3.0/24. */
	require(verdict != TAKE_PROBE || out.sender == outer.source - ADDRESS(192, 0, 2, 2));
	if (verdict == WRITE_TO_TUN) {
		require(p->length == (size_t)(before[2] << 8 | before[3]) && out.notes.trimmed == (p->length < received));
		require(out.notes.options == (before[0] != 0x45) && out.notes.unexpected_port == (outer.port != PORT));
	}
	require(memcmp(p->bytes, before, received) == 0);
	free(before);
}

/* The copy has the exact length, so that the sanitizer sees a read past it. */
static void judge(uint8_t choice, const uint8_t *input, size_t length, bool mend, const struct route_table *routes)
{
	struct self self = fixture_self;
	uint8_t *bytes = malloc(length);
	struct packet p = { .bytes = bytes, .length = length };

	if (length > 0)
		memcpy(bytes, input, length);
	self.flags = choice >> 1 & 3;
	if (mend) {
		packet_put_u16(&p, 10, 0);
		packet_put_u16(&p, 10, checksum_make(&p, 0, (size_t)(packet_u8(&p, 0) & 15) * 4));
	}
	if (choice & 1)
		go_out(&p, choice, &self, routes);
	else
		come_in(&p, choice, &self, routes);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	static struct route_table routes; /* megabytes, so it is made once; nothing writes to it */

	if (length == 0)
		return 0;
	if (routes.slot == NULL)
		fixture_open(&routes);
	judge(input[0], input + 1, length - 1, false, &routes);
	judge(input[0], input + 1, length - 1, true, &routes);
	return 0;
}
