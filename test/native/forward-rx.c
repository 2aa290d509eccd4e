/* forward_inbound() of forward.c: more cases than the vectors have, options of all kinds, and the notes. */
#include "bench.h"

struct rx_case {
	const char *name;
	struct recipe r;
	struct outer outer; /* a source of 0 stands for the peer */
	enum counter counter;
};

static const struct rx_case rx_cases[] = {
	{ "good", { GOOD }, { 0 }, rx_ok },
	{ "to the tunnel address", { .source = THEIRS, .destination = ADDRESS(10, 5, 1, 0) }, { 0 }, rx_ok },
	{ "as long as the MTU", { GOOD, .total = MTU }, { 0 }, rx_ok },
	{ "one longer", { GOOD, .total = MTU + 1 }, { 0 }, rx_oversize },
	{ "padded past the MTU", { GOOD, .received = MTU + 1 }, { 0 }, rx_oversize },
	{ "truncated", { GOOD }, { PEER, PORT, true }, rx_oversize },
	{ "header only", { GOOD, .total = 20 }, { 0 }, rx_ok },
	{ "stranger", { GOOD }, { ADDRESS(192, 0, 2, 77), PORT, false }, rx_not_member },
	{ "a stranger's source route", { GOOD, .header = 24, .options = { 131, 3, 4 } },
	  { ADDRESS(192, 0, 2, 77), PORT, false }, rx_not_member },
	{ "TTL 1 goes to the container", { GOOD, .ttl = 1 }, { 0 }, rx_ok },
	{ "TTL 0", { GOOD, .ttl = TTL_ZERO }, { 0 }, rx_ttl },
	{ "from 127.0.0.1", { .source = ADDRESS(127, 0, 0, 1), .destination = OURS }, { 0 }, rx_martian },
	{ "from 255.255.255.255", { .source = 0xffffffff, .destination = OURS }, { 0 }, rx_martian },
	{ "from 240.0.0.1", { .source = ADDRESS(240, 0, 0, 1), .destination = OURS }, { 0 }, rx_martian },
	{ "from 0.1.2.3", { .source = ADDRESS(0, 1, 2, 3), .destination = OURS }, { 0 }, rx_martian },
	{ "another peer's subnet", { .source = ADDRESS(10, 5, 3, 9), .destination = OURS }, { 0 }, rx_spoof_src },
	{ "our own subnet as source", { .source = OURS, .destination = OURS }, { 0 }, rx_spoof_src },
	{ "subnet nobody has", { .source = ADDRESS(10, 5, 9, 9), .destination = OURS }, { 0 }, rx_spoof_src },
	{ "to another peer", { .source = THEIRS, .destination = ADDRESS(10, 5, 3, 9) }, { 0 }, rx_bad_dst },
	{ "fault N18: our broadcast", { .source = THEIRS, .destination = ADDRESS(10, 5, 1, 255) }, { 0 }, rx_bad_dst },
	{ "broadcast of the network", { .source = THEIRS, .destination = ADDRESS(10, 5, 255, 255) }, { 0 }, rx_bad_dst },
	{ "to 255.255.255.255", { .source = THEIRS, .destination = 0xffffffff }, { 0 }, rx_bad_dst },
	{ "to 0.0.0.0", { .source = THEIRS, .destination = 0 }, { 0 }, rx_bad_dst },
	{ "to our public address", { .source = THEIRS, .destination = ADDRESS(192, 0, 2, 1) }, { 0 }, rx_bad_dst },
	{ "strict source route", { GOOD, .header = 28, .options = { 1, 137, 7, 4, 10, 5, 3, 1 } }, { 0 }, rx_srcroute },
	{ "source route of length 0", { GOOD, .header = 24, .options = { 131, 0 } }, { 0 }, rx_srcroute },
	{ "source route as the last byte", { GOOD, .header = 24, .options = { 1, 1, 1, 131 } }, { 0 }, rx_srcroute },
	{ "ping of death", { GOOD, .fragment = 0x1fff }, { 0 }, rx_bad_frag },
	{ "odd length with more to come", { GOOD, .total = 41, .fragment = FRAGMENT_MF }, { 0 }, rx_bad_frag },
	{ "empty fragment", { GOOD, .total = 20, .fragment = FRAGMENT_MF | 5 }, { 0 }, rx_bad_frag },
	{ "last fragment of odd length", { GOOD, .total = 41, .fragment = 5 }, { 0 }, rx_ok },
	{ "last fragment to the last byte", { GOOD, .total = 20 + 7, .fragment = 0x1fff }, { 0 }, rx_ok },
	{ "one byte past the last", { GOOD, .total = 20 + 8, .fragment = 0x1fff }, { 0 }, rx_bad_frag },
};

static void rx_table(struct bench *b)
{
	for (size_t i = 0; i < sizeof rx_cases / sizeof rx_cases[0]; i++) {
		const struct rx_case *c = &rx_cases[i];
		struct outcome out;
		enum verdict verdict = inbound(b, &c->r, c->outer.source == 0 ? &from_peer : &c->outer, &out);
		CHECK_CASE(&b->s, out.counter == c->counter, c->name);
		CHECK_CASE(&b->s, (verdict == WRITE_TO_TUN) == (c->counter == rx_ok), c->name);
	}
}

/* Options that are not a source route pass, whatever their lengths, and are noted. */
static void rx_options(struct bench *b)
{
	static const uint8_t options[][8] = {
		{ 1, 1, 1, 1 }, { 0, 131, 3, 4 }, { 7, 3, 255 }, { 68, 0 }, { 68, 1, 131 }, { 7, 255, 131 }, { 7, 4, 131, 3 },
		{ 148, 4, 0, 0 }, { 255, 255, 255, 255, 255, 255, 255, 255 }, { 1, 1, 1, 7 }, { 1, 1, 1, 1, 1, 1, 1, 68 },
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
		struct recipe r = { GOOD, .header = i >= 8 ? 28 : 24 };
		struct outcome out;
		if (i == 9)
			r.header = 24;
		memcpy(r.options, options[i], 8);
		CHECK(&b->s, inbound(b, &r, &from_peer, &out) == WRITE_TO_TUN && out.counter == rx_ok && out.notes.options);
	}
	/* The search ends for random options of every length. */
	for (int i = 0; i < 5000; i++) {
		struct recipe r = { GOOD, .header = 24 + 4 * suite_below(&b->s, 10), .total = 80 };
		struct outcome out;
		for (size_t at = 0; at < sizeof r.options; at++)
			r.options[at] = (uint8_t)(suite_below(&b->s, 2) ? suite_below(&b->s, 4) : suite_random(&b->s));
		inbound(b, &r, &from_peer, &out);
		CHECK(&b->s, out.counter == rx_srcroute || (out.counter == rx_ok && out.notes.options));
	}
}

static void rx_notes(struct bench *b)
{
	struct outcome out;
	struct recipe padded = { GOOD, .total = 48, .received = 60 };
	struct packet p = packet_make(b->bytes, &padded);
	const struct outer other_port = { .source = PEER, .port = 40000 };

	CHECK(&b->s, forward_inbound(&p, &from_peer, &b->self, &b->routes, &out) == WRITE_TO_TUN);
	CHECK(&b->s, out.counter == rx_ok && p.length == 48);
	CHECK(&b->s, out.notes.trimmed && !out.notes.options && !out.notes.unexpected_port);
	CHECK(&b->s, inbound(b, &(struct recipe){ GOOD }, &other_port, &out) == WRITE_TO_TUN);
	CHECK(&b->s, out.counter == rx_ok && out.notes.unexpected_port && !out.notes.trimmed);
	CHECK(&b->s, packet_u8(&p, 8) == 64); /* receiving does not lower the TTL */
}

/* A packet of version 6 is judged by its length and its sender first, like any other. */
static void rx_version_6(struct bench *b)
{
	const struct outer stranger = { .source = ADDRESS(192, 0, 2, 77), .port = PORT };
	static const struct { size_t length; enum counter counter; } cases[] = {
		{ 1, rx_short },           { 19, rx_short },           { 20, rx_bad_version },
		{ 40, rx_bad_version },    { MTU, rx_bad_version },    { MTU + 1, rx_oversize },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct packet p = { .bytes = b->bytes, .length = cases[i].length };
		struct outcome out;
		memset(b->bytes, 0x60, p.length);
		forward_inbound(&p, &from_peer, &b->self, &b->routes, &out);
		CHECK(&b->s, out.counter == cases[i].counter);
		forward_inbound(&p, &stranger, &b->self, &b->routes, &out);
		CHECK(&b->s, out.counter == (cases[i].counter == rx_bad_version ? rx_not_member : cases[i].counter));
	}
}

/* Our own address is no peer's, even if a table lists it. */
static void rx_own_address(struct bench *b)
{
	struct self self = b->self;
	struct outcome out;
	struct packet p = packet_make(b->bytes, &(struct recipe){ GOOD });

	self.public_ip = PEER;
	forward_inbound(&p, &from_peer, &self, &b->routes, &out);
	CHECK(&b->s, out.counter == rx_not_member);
}

int main(void)
{
	struct bench b = bench_open("forward-rx", 6);

	rx_table(&b);
	rx_options(&b);
	rx_notes(&b);
	rx_version_6(&b);
	rx_own_address(&b);
	return bench_close(&b);
}
