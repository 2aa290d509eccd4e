/* forward_outbound() of forward.c: more cases than the vectors have, header faults, and the bytes of what is sent. */
#include "bench.h"

struct tx_case {
	const char *name;
	struct recipe r;
	enum counter counter;
	enum verdict verdict;
	struct icmp_error error;
};

#define NOWHERE ADDRESS(10, 5, 200, 9)

static const struct tx_case tx_cases[] = {
	{ "good", { TO_PEER }, tx_ok, SEND_TO_PEER, { 0 } },
	{ "from the tunnel address", { .source = ADDRESS(10, 5, 1, 0), .destination = THEIRS }, tx_ok, SEND_TO_PEER, { 0 } },
	{ "TTL 2", { TO_PEER, .ttl = 2 }, tx_ok, SEND_TO_PEER, { 0 } },
	{ "TTL 1", { TO_PEER, .ttl = 1 }, tx_ttl, REPLY_ICMP, { 11, 0, 0 } },
	{ "TTL 0", { TO_PEER, .ttl = TTL_ZERO }, tx_ttl, REPLY_ICMP, { 11, 0, 0 } },
	{ "TTL 1, ICMP error", { TO_PEER, .ttl = 1, .protocol = 1, .payload = { 3 } }, tx_ttl, DROP, { 0 } },
	{ "TTL 1, echo", { TO_PEER, .ttl = 1, .protocol = 1, .payload = { 8 } }, tx_ttl, REPLY_ICMP, { 11, 0, 0 } },
	{ "TTL 1, later fragment", { TO_PEER, .ttl = 1, .fragment = 3 }, tx_ttl, DROP, { 0 } },
	{ "TTL 1 to a peer's broadcast", { .source = OURS, .destination = ADDRESS(10, 5, 2, 255), .ttl = 1 }, tx_ttl, DROP, { 0 } },
	{ "no route", { .source = OURS, .destination = NOWHERE }, tx_noroute, REPLY_ICMP, { 3, 0, 0 } },
	{ "no route and TTL 1", { .source = OURS, .destination = NOWHERE, .ttl = 1 }, tx_noroute, REPLY_ICMP, { 3, 0, 0 } },
	{ "own subnet would loop", { .source = OURS, .destination = ADDRESS(10, 5, 1, 77) }, tx_noroute, REPLY_ICMP, { 3, 0, 0 } },
	{ "own broadcast", { .source = OURS, .destination = ADDRESS(10, 5, 1, 255) }, tx_noroute, DROP, { 0 } },
	{ "broadcast of the network", { .source = OURS, .destination = ADDRESS(10, 5, 255, 255) }, tx_noroute, DROP, { 0 } },
	{ "from our broadcast", { .source = ADDRESS(10, 5, 1, 255), .destination = NOWHERE }, tx_noroute, DROP, { 0 } },
	{ "multicast", { .source = OURS, .destination = ADDRESS(224, 0, 0, 251) }, tx_noroute, DROP, { 0 } },
	{ "limited broadcast", { .source = OURS, .destination = 0xffffffff }, tx_noroute, DROP, { 0 } },
	{ "to 0.0.0.0", { .source = OURS, .destination = 0 }, tx_noroute, DROP, { 0 } },
	{ "to 127.0.0.1", { .source = OURS, .destination = ADDRESS(127, 0, 0, 1) }, tx_noroute, DROP, { 0 } },
	{ "MTU", { TO_PEER, .total = MTU }, tx_ok, SEND_TO_PEER, { 0 } },
	{ "fault N1: MTU + 1 is cut", { TO_PEER, .total = MTU + 1 }, tx_ok, SEND_TO_PEER, { 0 } },
	{ "MTU + 1 with DF", { TO_PEER, .total = MTU + 1, .fragment = FRAGMENT_DF }, tx_oversize, REPLY_ICMP, { 3, 4, MTU } },
	{ "MTU + 1 with DF, ICMP error", { TO_PEER, .total = MTU + 1, .fragment = FRAGMENT_DF, .protocol = 1,
	  .payload = { 11 } }, tx_oversize, DROP, { 0 } },
	{ "65,535 with DF", { TO_PEER, .total = 65535, .fragment = FRAGMENT_DF }, tx_oversize, REPLY_ICMP, { 3, 4, MTU } },
	{ "from 0.0.0.0", { .source = 0, .destination = THEIRS }, tx_bad_src, DROP, { 0 } },
	{ "from 127.0.0.1", { .source = ADDRESS(127, 0, 0, 1), .destination = THEIRS }, tx_bad_src, DROP, { 0 } },
	{ "from 255.255.255.255", { .source = 0xffffffff, .destination = THEIRS }, tx_bad_src, DROP, { 0 } },
	{ "a peer's source", { .source = THEIRS, .destination = ADDRESS(10, 5, 3, 9) }, tx_spoof_src, DROP, { 0 } },
	{ "a public source", { .source = ADDRESS(8, 8, 8, 8), .destination = THEIRS }, tx_spoof_src, DROP, { 0 } },
	{ "spoofed and no route", { .source = ADDRESS(8, 8, 8, 8), .destination = NOWHERE }, tx_spoof_src, DROP, { 0 } },
	{ "options pass", { TO_PEER, .header = 24, .options = { 7, 3, 4 } }, tx_ok, SEND_TO_PEER, { 0 } },
};

static void tx_table(struct bench *b)
{
	for (size_t i = 0; i < sizeof tx_cases / sizeof tx_cases[0]; i++) {
		const struct tx_case *c = &tx_cases[i];
		struct outcome out;
		enum verdict verdict = outbound(b, &c->r, &out);
		CHECK_CASE(&b->s, out.counter == c->counter, c->name);
		CHECK_CASE(&b->s, verdict == c->verdict, c->name);
		if (verdict == REPLY_ICMP)
			CHECK_CASE(&b->s, out.error.type == c->error.type && out.error.code == c->error.code &&
						  out.error.mtu == c->error.mtu, c->name);
	}
}

static void tx_header_faults(struct bench *b)
{
	static const struct { size_t at; uint8_t value; size_t length; enum counter counter; } faults[] = {
		{ 0, 0x45, 0, tx_short },       { 0, 0x45, 19, tx_short },      { 0, 0x65, 48, tx_bad_version },
		{ 0, 0x05, 48, tx_bad_version }, { 0, 0x44, 48, tx_bad_ihl },   { 0, 0x40, 48, tx_bad_ihl },
		{ 0, 0x4f, 48, tx_bad_ihl },    { 3, 49, 48, tx_bad_len },      { 3, 19, 48, tx_bad_len },
		{ 3, 48, 47, tx_bad_len },      { 11, 0x00, 48, tx_bad_csum },
	};
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		struct packet p = packet_make(b->bytes, &(struct recipe){ TO_PEER });
		struct outcome out;
		p.bytes[faults[i].at] = faults[i].value;
		p.length = faults[i].length;
		enum verdict verdict = forward_outbound(&p, 0, &b->self, &b->routes, &out);
		CHECK(&b->s, verdict == DROP && out.counter == faults[i].counter);
	}
}

static void tx_changes_only_the_ttl(struct bench *b)
{
	struct recipe r = { TO_PEER, .total = 48, .received = 60, .payload = "payload" };
	uint8_t before[60];
	struct outcome out;
	struct packet p = packet_make(b->bytes, &r);

	memcpy(before, b->bytes, sizeof before);
	CHECK(&b->s, forward_outbound(&p, 0, &b->self, &b->routes, &out) == SEND_TO_PEER);
	CHECK(&b->s, out.endpoint.address == PEER && out.endpoint.port == PORT);
	CHECK(&b->s, p.length == 48 && packet_u8(&p, 8) == 63 && checksum_sum(&p, 0, 20) == 0xffff);
	before[8] = 63;
	before[10] = b->bytes[10];
	before[11] = b->bytes[11];
	CHECK(&b->s, memcmp(before, b->bytes, sizeof before) == 0);
}

/* Packets with DF to a peer of the kernel engine are 8 bytes shorter, on every underlay; all else is as to others. */
static void tx_to_a_kernel_peer(struct bench *b)
{
	static const struct { uint32_t mtu, longest_received, total, fragment, told; } cases[] = {
		{ 1464, 1472, 1464, FRAGMENT_DF, 0 },    { 1464, 1472, 1465, FRAGMENT_DF, 1464 },
		{ 1472, 1472, 1464, FRAGMENT_DF, 0 },    { 1472, 1472, 1465, FRAGMENT_DF, 1464 },
		{ 1472, 1472, 1472, FRAGMENT_DF, 1464 }, { 1464, 1472, 1472, 0, 0 },
		{ 1400, 1472, 1400, FRAGMENT_DF, 0 },    { 1400, 1472, 1401, FRAGMENT_DF, 1400 },
	};
	struct peer *peer = &((struct route_slot *)(uintptr_t)b->routes.slot)->peers[0];
	const struct self before = b->self;

	peer->engine = PEER_ENGINE_KERNEL;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct recipe r = { TO_PEER, .total = (uint16_t)cases[i].total,
					  .fragment = (uint16_t)cases[i].fragment };
		struct outcome out;
		b->self.mtu = cases[i].mtu;
		b->self.longest_received = cases[i].longest_received;
		enum verdict verdict = outbound(b, &r, &out);
		CHECK(&b->s, verdict == (cases[i].told == 0 ? SEND_TO_PEER : REPLY_ICMP));
		CHECK(&b->s, out.counter == (cases[i].told == 0 ? tx_ok : tx_oversize));
		CHECK(&b->s, verdict != REPLY_ICMP || (out.error.code == 4 && out.error.mtu == cases[i].told));
	}
	peer->engine = PEER_ENGINE_USER;
	b->self = before;
}

int main(void)
{
	struct bench b = bench_open("forward-tx", 16);

	tx_table(&b);
	tx_header_faults(&b);
	tx_changes_only_the_ttl(&b);
	tx_to_a_kernel_peer(&b);
	return bench_close(&b);
}
