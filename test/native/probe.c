/* The bytes of a probe, which of them forward_inbound() takes, how many are answered, and who is a stranger. */
#include "bench.h"
#include "answer-limit.h"
#include "clock.h"
#include "peer-traffic.h"
#include "probe.h"
#include "strangers.h"

static const struct probe question = {
	.kind = PROBE_QUESTION,
	.sequence = 0x01020304,
	.opaque = UINT64_C(0x1122334455667788),
	.prefix = ADDRESS(10, 5, 2, 0),
	.prefix_length = 24,
};

static bool is_same(const struct probe *a, const struct probe *b)
{
	return a->kind == b->kind && a->sequence == b->sequence && a->opaque == b->opaque && a->prefix == b->prefix &&
	       a->prefix_length == b->prefix_length && a->arrived == b->arrived && a->of_lane_port == b->of_lane_port;
}

/* The example of the head of probe.h, byte for byte. */
static void has_these_bytes(struct suite *s)
{
	static const uint8_t expected[30] = { 0xe0, 1,    1,    0,    1,    2, 3,  4,  0x11, 0x22, 0x33,
					      0x44, 0x55, 0x66, 0x77, 0x88, 4, 24, 10, 5,    2,    0 };
	uint8_t bytes[30];
	struct packet p = { .bytes = bytes, .length = sizeof bytes };
	struct probe read;

	memset(bytes, 0xaa, sizeof bytes);
	probe_write(&p, &question);
	CHECK(s, memcmp(bytes, expected, sizeof bytes) == 0);
	CHECK(s, probe_read(&p, &read) && is_same(&read, &question));
	struct probe answer = question;
	answer.kind = PROBE_ANSWER;
	answer.arrived = 0x1234;
	probe_write(&p, &answer);
	CHECK(s, bytes[2] == 2 && bytes[22] == 0x12 && bytes[23] == 0x34);
	CHECK(s, probe_read(&p, &read) && is_same(&read, &answer));
	struct probe other = question;
	other.of_lane_port = true;
	probe_write(&p, &other);
	CHECK(s, bytes[3] == 1 && probe_read(&p, &read) && is_same(&read, &other));
}

/* A peer has as many ports as lanes and one more, and twice as many after its data process was replaced. */
static void keeps_the_newest_ports(struct suite *s)
{
	struct peer_block b = { 0 };

	CHECK(s, !peer_traffic_knows_port(&b, 0));
	for (uint16_t port = 40001; port <= 40010; port++) {
		peer_traffic_note_port(&b, port);
		peer_traffic_note_port(&b, port);
		for (uint16_t i = 40000; i <= 40011; i++)
			CHECK(s, peer_traffic_knows_port(&b, i) == (i > 40000 && i <= port && i + 8 > port));
	}
}

/* Every length, and every value of every byte: only sound ones are read. */
static void refuses_what_is_not_sound(struct suite *s)
{
	uint8_t bytes[64];
	struct packet p = { .bytes = bytes, .length = sizeof bytes };
	struct probe read;

	probe_write(&p, &question);
	for (p.length = 0; p.length <= sizeof bytes; p.length++)
		CHECK(s, probe_read(&p, &read) == (p.length >= PROBE_BYTES));
	p.length = PROBE_BYTES;
	for (size_t at = 0; at < PROBE_BYTES; at++) {
		unsigned int sound = 0;
		for (unsigned int value = 0; value < 256; value++) {
			probe_write(&p, &question);
			bytes[at] = (uint8_t)value;
			sound += probe_read(&p, &read);
		}
		/* 10.5.2.0 has no host bit at prefix lengths from 23 on; an answer is never told of no bytes. */
		const unsigned int expected = at == 17 ? 10 : at < 3 || at == 16 || at >= 21 ? 1 : 256;
		CHECK(s, sound == expected);
	}
}

static void is_taken_from_the_peer_that_has_the_prefix(struct bench *b)
{
	struct packet p = { .bytes = b->bytes, .length = 100 };
	struct probe probe = question;
	struct outcome out;

	probe_write(&p, &probe);
	CHECK(&b->s, forward_inbound(&p, &from_peer, &b->self, &b->routes, &out) == TAKE_PROBE && out.sender == 0);
	probe.prefix = ADDRESS(10, 5, 3, 0);
	probe_write(&p, &probe);
	CHECK(&b->s, forward_inbound(&p, &from_peer, &b->self, &b->routes, &out) == DROP && out.counter == rx_bad_probe);
	const struct outer from_other = { .source = ADDRESS(192, 0, 2, 3), .port = 4711 };
	CHECK(&b->s, forward_inbound(&p, &from_other, &b->self, &b->routes, &out) == TAKE_PROBE && out.sender == 1);
	probe.prefix_length = 25;
	probe_write(&p, &probe);
	CHECK(&b->s, forward_inbound(&p, &from_other, &b->self, &b->routes, &out) == DROP && out.counter == rx_bad_probe);
	const struct outer stranger = { .source = ADDRESS(192, 0, 2, 77), .port = PORT };
	CHECK(&b->s, forward_inbound(&p, &stranger, &b->self, &b->routes, &out) == DROP && out.counter == rx_not_member);
	b->self.gate = GATE_FENCED;
	CHECK(&b->s, forward_inbound(&p, &from_other, &b->self, &b->routes, &out) == DROP && out.counter == rx_fenced);
	b->self.gate = GATE_OPEN;
}

/* A peer alone is always answered. Beside a flood with its address it has its share of the ten a second. */
static void answers_ten_a_second(struct suite *s)
{
	struct answer_limit l = { 0 };
	unsigned int answered = 0, of_peer = 0;

	for (uint32_t i = 0; i < ANSWERS_PER_SECOND; i++)
		CHECK(s, answer_limit_take(&l, 100, suite_random(s)));
	CHECK(s, !answer_limit_take(&l, 100, suite_random(s)));
	const uint32_t seconds = 2000, flood = 200;
	for (uint32_t second = 200; second < 200 + seconds; second++) {
		unsigned int now = 0;
		for (uint32_t i = 0; i < flood; i++) {
			const bool is_answered = answer_limit_take(&l, second, suite_random(s));
			now += is_answered;
			/* The question of the peer is the last one of the second. */
			of_peer += i == flood - 1 && is_answered;
		}
		CHECK(s, now <= ANSWERS_PER_SECOND);
		answered += now;
	}
	CHECK(s, answered > seconds * 7);
	/* One in twenty would be its fair share, 100 of 2,000. */
	CHECK(s, of_peer > 20);
}

static void remembers_eight_strangers(struct suite *s)
{
	struct counters_file *c = fixture_counters();

	for (uint32_t i = 1; i <= STRANGERS_MAX; i++)
		strangers_note(c, i, i * SECOND_NS);
	strangers_note(c, 1, 20 * SECOND_NS);
	/* The least recent one, address 2, makes room. */
	strangers_note(c, 99, 21 * SECOND_NS);
	uint64_t packets = 0;
	bool has_two = false;
	for (size_t i = 0; i < STRANGERS_MAX; i++) {
		packets += c->stranger[i].packets;
		has_two = has_two || c->stranger[i].address == 2;
		CHECK(s, c->stranger[i].address != 1 || (c->stranger[i].packets == 2 && c->stranger[i].last_ns == 20 * SECOND_NS));
	}
	CHECK(s, packets == STRANGERS_MAX + 1 && !has_two);
	fixture_counters_free(c);
}

static void notes_traffic_of_a_peer(struct bench *b)
{
	struct counters_file *c = fixture_counters();
	const struct peer_run run = { .peer = 1, .packets = 3, .bytes = 4000 }, of_nobody = { .peer = 2, .packets = 1 };
	const uint64_t now = 100 * SECOND_NS;
	const struct peer_block *block = &c->peer[1];

	/* Not before the block is that of the peer. */
	CHECK(&b->s, !peer_traffic_sent(c, &b->routes, &run, now) && block->statistics[peer_sent_packets] == 0);
	peer_blocks_fit(c, &b->routes);
	CHECK(&b->s, !peer_traffic_is_active(block, now));
	CHECK(&b->s, peer_traffic_sent(c, &b->routes, &run, now));
	CHECK(&b->s, !peer_traffic_sent(c, &b->routes, &run, now + SECOND_NS));
	CHECK(&b->s, block->statistics[peer_sent_packets] == 6 && block->statistics[peer_sent_bytes] == 8000);
	CHECK(&b->s, block->last_heard_ns == 0);
	CHECK(&b->s, peer_traffic_sent(c, &b->routes, &run, now + ACTIVE_NS - SECOND_NS));
	CHECK(&b->s, peer_traffic_is_active(block, now + ACTIVE_NS) && !peer_traffic_is_active(block, now + 2 * ACTIVE_NS));
	CHECK(&b->s, peer_traffic_sent(c, &b->routes, &run, now + 2 * ACTIVE_NS));
	CHECK(&b->s, peer_traffic_received(c, &b->routes, &run, ADDRESS(192, 0, 2, 3), PORT, now));
	CHECK(&b->s, block->last_heard_ns == now && block->statistics[peer_address_seen] == 0);
	CHECK(&b->s, !peer_traffic_received(c, &b->routes, &run, ADDRESS(192, 0, 2, 3), 5000, now));
	CHECK(&b->s, block->statistics[peer_address_seen] == ((uint64_t)ADDRESS(192, 0, 2, 3) << 16 | 5000));
	CHECK(&b->s, block->statistics[peer_received_packets] == 6 && block->statistics[peer_received_bytes] == 8000);
	CHECK(&b->s, !peer_traffic_sent(c, &b->routes, &of_nobody, now) && c->peer[2].statistics[peer_sent_packets] == 0);
	fixture_counters_free(c);
}

int main(void)
{
	struct bench b = bench_open("probe", 31);

	keeps_the_newest_ports(&b.s);
	has_these_bytes(&b.s);
	refuses_what_is_not_sound(&b.s);
	is_taken_from_the_peer_that_has_the_prefix(&b);
	answers_ten_a_second(&b.s);
	remembers_eight_strangers(&b.s);
	notes_traffic_of_a_peer(&b);
	return bench_close(&b);
}
