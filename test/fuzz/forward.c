/*
 * Fuzz target: any bytes through the packet rules. The first byte of the input chooses: bit 0 the direction (1: from
 * the TUN), bits 1 and 2 the switches, bits 3 to 7 the outer source and truncation. What must hold is that of forward.h.
 */
#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_reply(const struct packet *p, const struct self *self, const struct outcome *out)
{
	uint8_t *room = malloc(ICMP_BYTES_MAX);
	struct packet reply = { .bytes = room, .length = ICMP_BYTES_MAX };
	struct ipv4 h;

	icmp_build(&reply, &out->error, self->subnet, p, &out->header);
	require(reply.length <= ICMP_BYTES_MAX && ipv4_parse(&reply, &h) == IPV4_SOUND);
	require(h.destination == out->header.source && !ipv4_is_martian(h.destination));
	require(checksum_sum(&reply, 20, reply.length - 20) == 0xffff);
	free(room);
}

static void go_out(struct packet *p, const struct self *self, const struct route_table *routes)
{
	size_t received = p->length;
	struct outcome out;
	enum verdict verdict = forward_outbound(p, self, routes, &out);

	require(verdict != WRITE_TO_TUN && out.counter >= tx_ok && out.counter <= tx_error_other);
	require((verdict == SEND_TO_PEER) == (out.counter == tx_ok) && p->length <= received);
	if (verdict == REPLY_ICMP)
		check_reply(p, self, &out);
	if (verdict == SEND_TO_PEER)
		require(p->length <= self->mtu && out.hop.port == PORT && checksum_sum(p, 0, out.header.header_bytes) == 0xffff &&
			packet_u8(p, 8) >= 1);
}

static void come_in(struct packet *p, uint8_t choice, const struct self *self, const struct route_table *routes)
{
	const struct outer outer = {
		.source = ADDRESS(192, 0, 2, (choice >> 3 & 7) == 0 ? 2 : choice >> 3 & 7),
		.port = PORT,
		.truncated = choice >> 6 == 3,
	};
	size_t received = p->length;
	struct outcome out;
	enum verdict verdict = forward_inbound(p, &outer, self, routes, &out);

	require(verdict == (out.counter == rx_ok ? WRITE_TO_TUN : DROP) && out.counter <= rx_error_tun);
	require(p->length <= received);
	if (verdict == DROP)
		return;
	require(outer.source == ADDRESS(192, 0, 2, 2) || outer.source == ADDRESS(192, 0, 2, 3));
	require(p->length == out.header.total_bytes && p->length <= self->mtu && out.header.ttl > 0);
	if (!(self->flags & FLAG_NO_DESTINATION_CHECK))
		require((out.header.destination & 0xffffff00) == self->subnet);
	if (!(self->flags & FLAG_NO_SOURCE_CHECK))
		require(route_table_find(routes, out.header.source)->hop == outer.source);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	static struct route_table routes; /* megabytes: made once, nothing writes to it */
	struct self self = fixture_self;

	if (length == 0)
		return 0;
	if (routes.slot == NULL)
		fixture_open(&routes);
	/* Of the exact length, so that a read of one byte more is seen. */
	uint8_t *bytes = malloc(length);
	struct packet p = { .bytes = bytes + 1, .length = length - 1 };
	memcpy(bytes, input, length);
	self.flags = input[0] >> 1 & 3;
	if (input[0] & 1)
		go_out(&p, &self, &routes);
	else
		come_in(&p, input[0], &self, &routes);
	free(bytes);
	return 0;
}
