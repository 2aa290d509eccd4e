/*
 * forward.c: all vectors of packets.json, the flags, the gates, and random bytes that end in one counter each. The
 * tests forward-rx.c and forward-tx.c go through the rules of each direction.
 */
#include "bench.h"
#include "vectors.h"

/* Whether the vector names a note: the packet passes then, and ends in another counter. */
static bool is_note(enum counter counter)
{
	return counter == rx_opts || counter == rx_trimmed || counter == rx_port;
}

static void run_rx_vector(struct bench *b, const struct vector *v, struct packet *p)
{
	struct outer outer = { .source = v->source, .port = v->port };
	struct outcome out;
	enum verdict verdict = forward_inbound(p, &outer, &b->self, &b->routes, &out);
	bool passes = v->counter == rx_ok || is_note(v->counter);

	CHECK_CASE(&b->s, out.counter == (passes ? rx_ok : v->counter), v->name);
	CHECK_CASE(&b->s, verdict == (passes ? WRITE_TO_TUN : v->counter == rx_probe ? TAKE_PROBE : DROP), v->name);
	CHECK_CASE(&b->s, out.notes.options == (v->counter == rx_opts), v->name);
}

static void run_tx_vector(struct bench *b, const struct vector *v, struct packet *p)
{
	struct outcome out;
	enum verdict verdict = forward_outbound(p, 0, &b->self, &b->routes, &out);

	CHECK_CASE(&b->s, out.counter == v->counter, v->name);
	CHECK_CASE(&b->s, verdict != SEND_TO_PEER || v->counter == tx_ok, v->name);
	CHECK_CASE(&b->s, (verdict == REPLY_ICMP) == (v->counter == tx_noroute || v->counter == tx_ttl ||
						      v->counter == tx_oversize), v->name);
}

static void vectors_pass(struct bench *b)
{
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		/* A copy of the exact length, so that the sanitizer sees a read of one byte more. */
		uint8_t *copy = malloc(v->length + 1);
		struct packet p = { .bytes = copy + 1, .length = v->length };
		memcpy(copy + 1, v->bytes, v->length);
		if (v->direction == VECTOR_RX)
			run_rx_vector(b, v, &p);
		else if (v->direction == VECTOR_TX)
			run_tx_vector(b, v, &p);
		free(copy);
	}
}

static void switches(struct bench *b)
{
	const struct recipe rx_spoofed = { .source = ADDRESS(8, 8, 8, 8), .destination = OURS };
	const struct recipe rx_martian_source = { .source = ADDRESS(127, 0, 0, 1), .destination = OURS };
	const struct recipe rx_elsewhere = { .source = THEIRS, .destination = ADDRESS(8, 8, 8, 8) };
	const struct recipe tx_spoofed = { .source = ADDRESS(8, 8, 8, 8), .destination = THEIRS };
	struct outcome out;

	b->self.flags = FLAG_NO_SOURCE_CHECK;
	CHECK(&b->s, inbound(b, &rx_spoofed, &from_peer, &out) == WRITE_TO_TUN);
	CHECK(&b->s, inbound(b, &rx_martian_source, &from_peer, &out) == DROP && out.counter == rx_martian);
	CHECK(&b->s, inbound(b, &rx_elsewhere, &from_peer, &out) == DROP && out.counter == rx_bad_dst);
	CHECK(&b->s, outbound(b, &tx_spoofed, &out) == SEND_TO_PEER);
	b->self.flags = FLAG_NO_DESTINATION_CHECK;
	CHECK(&b->s, inbound(b, &rx_elsewhere, &from_peer, &out) == WRITE_TO_TUN);
	CHECK(&b->s, inbound(b, &rx_spoofed, &from_peer, &out) == DROP && out.counter == rx_spoof_src);
	b->self.flags = 0;
}

static void gates(struct bench *b)
{
	const struct recipe rx = { GOOD };
	const struct recipe tx = { TO_PEER };
	struct outcome out;

	b->self.gate = GATE_FENCED;
	CHECK(&b->s, inbound(b, &rx, &from_peer, &out) == DROP && out.counter == rx_fenced);
	CHECK(&b->s, outbound(b, &tx, &out) == DROP && out.counter == tx_fenced);
	b->self.gate = GATE_ORPHANED;
	CHECK(&b->s, inbound(b, &rx, &from_peer, &out) == DROP && out.counter == rx_orphaned);
	CHECK(&b->s, outbound(b, &tx, &out) == DROP && out.counter == tx_orphaned);
	b->self.gate = GATE_OPEN;
}

/* Without a table there is no peer and no route: a new process fails closed. */
static void no_table(struct bench *b)
{
	const struct route_table none = { 0 };
	struct outcome out;
	struct packet p = packet_make(b->bytes, &(struct recipe){ GOOD });

	CHECK(&b->s, forward_inbound(&p, &from_peer, &b->self, &none, &out) == DROP && out.counter == rx_not_member);
	p = packet_make(b->bytes, &(struct recipe){ TO_PEER });
	CHECK(&b->s, forward_outbound(&p, 0, &b->self, &none, &out) == REPLY_ICMP && out.counter == tx_noroute);
}

/* A vector with a few changed bytes ends in one counter of its direction. A good packet passes afterwards. */
static void mutations(struct bench *b)
{
	const size_t count = sizeof vectors / sizeof vectors[0];

	for (int round = 0; round < 100000; round++) {
		const struct vector *v = &vectors[suite_below(&b->s, (uint32_t)count)];
		struct packet p = { .bytes = b->bytes, .length = v->length > 128 ? 128 : v->length };
		struct outcome out;
		memcpy(b->bytes, v->bytes, p.length);
		for (uint32_t i = suite_below(&b->s, 4); i > 0 && p.length > 0; i--)
			b->bytes[suite_below(&b->s, (uint32_t)p.length)] = (uint8_t)suite_random(&b->s);
		if (round % 2 == 0) {
			enum verdict verdict = forward_inbound(&p, &from_peer, &b->self, &b->routes, &out);
			CHECK(&b->s, out.counter <= rx_error_tun || (out.counter >= rx_bad_type && out.counter <= rx_probe));
			CHECK(&b->s, (verdict == WRITE_TO_TUN) == (out.counter == rx_ok));
			CHECK(&b->s, (verdict == TAKE_PROBE) == (out.counter == rx_probe));
		} else {
			enum verdict verdict = forward_outbound(&p, 0, &b->self, &b->routes, &out);
			CHECK(&b->s, out.counter >= tx_ok && out.counter <= tx_error_other);
			CHECK(&b->s, (verdict == SEND_TO_PEER) == (out.counter == tx_ok));
		}
	}
	struct outcome out;
	CHECK(&b->s, inbound(b, &(struct recipe){ GOOD }, &from_peer, &out) == WRITE_TO_TUN);
}

int main(void)
{
	struct bench b = bench_open("forward", 17);
	const uint64_t before = fixture_checksum(b.routes.slot);

	vectors_pass(&b);
	switches(&b);
	gates(&b);
	no_table(&b);
	mutations(&b);
	CHECK(&b.s, fixture_checksum(b.routes.slot) == before);
	return bench_close(&b);
}
