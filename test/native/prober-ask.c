/*
 * Whom the prober asks, and when: the test sets the clock of the worker and polls by hand. The peers of the table have
 * one endpoint, the lab's peer, whose socket has the questions.
 */
#include "lab.h"
#include "test.h"
#include "control.h"
#include "peer-traffic.h"
#include "prober.h"

#define PEERS 5000u
/* Later than any answer, which has the real time: so a long question is never held lost. */
#define START (1000000 * SECOND_NS)
#define STEP (50 * MILLISECOND_NS)

static struct prober prober;

static void loop_none(struct worker *w)
{
	(void)w;
}

/* Peer i has 10.5.0.0/16 from its address i * 8 on, and answers probes. */
static void publish_many(struct lab *l, uint32_t generation, uint16_t port, uint32_t count)
{
	struct fixture_route *routes = calloc(count, sizeof *routes);
	struct route_slot *slot = &l->file->slot[generation % 2];

	for (uint32_t i = 0; i < count; i++)
		routes[i] = (struct fixture_route){ ADDRESS(10, 5, 0, 0) + i * 8, 29, PEER_IP, port };
	fixture_pack(slot, generation, routes, count);
	for (uint32_t i = 0; i < count; i++)
		slot->peers[i].features = FEATURE_PROBE;
	slot->head.checksum = fixture_checksum(slot);
	atomic_store(&l->file->generation, generation);
	free(routes);
}

static struct lab *open_at_rest(uint32_t count)
{
	struct lab *l = lab_open(loop_none);
	struct sockaddr_in a;
	socklen_t bytes = sizeof a;

	pthread_join(l->thread, NULL);
	pthread_create(&l->thread, NULL, lab_thread, l); /* which lab_close() joins */
	getsockname(l->peer, (struct sockaddr *)&a, &bytes);
	if (prober_open(&prober) != 0)
		abort();
	l->w->prober = &prober;
	l->w->asks = true;
	publish_many(l, 2, ntohs(a.sin_port), count);
	if (control_poll(l->w) != CONTROL_FORWARD)
		abort();
	l->w->now_ns = START;
	return l;
}

static struct probe long_question;
static uint32_t long_questions;

/* Takes the next question from the socket. Returns its length, or -1 if there is none. */
static int next_of_any_length(struct lab *l, struct probe *probe)
{
	uint8_t bytes[MTU];
	const ssize_t length = recv(l->peer, bytes, sizeof bytes, MSG_DONTWAIT);
	struct packet p = { .bytes = bytes, .length = length < 0 ? 0 : (size_t)length };

	return probe_read(&p, probe) && probe->kind == PROBE_QUESTION ? (int)p.length : -1;
}

/* The same, and passes over long ones. */
static int next_question(struct lab *l, struct probe *probe)
{
	int length;

	while ((length = next_of_any_length(l, probe)) > (int)PROBE_BYTES) {
		long_question = *probe;
		long_questions++;
	}
	return length;
}

static void give_answer(struct lab *l, const struct probe *question, uint32_t peer, uint16_t arrived)
{
	struct probe said = *question;
	uint8_t bytes[PROBE_BYTES];
	struct packet p = { .bytes = bytes, .length = sizeof bytes };
	const struct outer outer = { .source = PEER_IP, .port = 1 };

	said.kind = PROBE_ANSWER;
	said.arrived = arrived;
	probe_write(&p, &said);
	prober_take(l->w, &p, &outer, peer);
}

/* Lets time pass until `until`, and notes when questions came, in milliseconds from START. Returns how many. */
static size_t pass(struct lab *l, uint64_t until, uint64_t *at_ms, size_t room)
{
	struct probe probe;
	size_t count = 0;

	for (; l->w->now_ns < until; l->w->now_ns += STEP) {
		prober_ask(l->w);
		while (next_question(l, &probe) >= 0)
			if (count++ < room)
				at_ms[count - 1] = (l->w->now_ns - START) / MILLISECOND_NS;
	}
	return count;
}

/* The peer's data keeps the pair active. */
static void send_data(struct lab *l, uint32_t peer)
{
	const struct peer_run run = { .peer = peer, .packets = 1, .bytes = 100 };

	if (peer_traffic_sent(l->counters, &l->w->routes, &run, l->w->now_ns))
		prober_activate(l->w, peer);
}

static void asks_a_new_pair_at_once_and_again(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	uint64_t at[8] = { 0 };

	send_data(l, 0);
	size_t count = pass(l, START + 8 * SECOND_NS, at, 8);
	send_data(l, 0);
	CHECK(s, count == 3 && at[0] == 0 && at[1] == 1000 && at[2] == 3000);
	count = pass(l, START + 17 * SECOND_NS, at, 8);
	CHECK(s, count == 2 && at[0] == 8000 && at[1] == 13000);
	CHECK(s, l->counters->peer[0].statistics[peer_asked] == 5 && l->counters->peer[0].statistics[peer_answered] == 0);
	CHECK(s, l->counters->peer[0].statistics[peer_history] == UINT64_C(5) << 32);
	CHECK(s, l->counters->peer[0].statistics[peer_rtt_p50_us] == 0);

	lab_close(l);
}

static void measures_by_answers(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	_Atomic uint64_t *words = l->counters->peer[0].statistics;
	struct probe first, second, third;

	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &first) == PROBE_BYTES);
	l->w->now_ns += SECOND_NS;
	prober_ask(l->w);
	CHECK(s, next_question(l, &second) == PROBE_BYTES && second.sequence == first.sequence + 1);
	CHECK(s, second.opaque != first.opaque);
	/* Who guesses the opaque is not believed, and neither is an answer that comes twice. */
	struct probe guessed = first;
	guessed.opaque ^= 1;
	give_answer(l, &guessed, 0, 24);
	CHECK(s, words[peer_answered] == 0);
	give_answer(l, &first, 0, 24);
	give_answer(l, &first, 0, 24);
	CHECK(s, words[peer_answered] == 1 && words[peer_history] == (UINT64_C(2) << 32 | 2));
	give_answer(l, &second, 0, 24);
	CHECK(s, words[peer_answered] == 2 && words[peer_history] == (UINT64_C(2) << 32 | 3));
	CHECK(s, words[peer_rtt_p50_us] > 0 && words[peer_rtt_p99_us] == 0 && words[peer_answered_ns] != 0);
	/* The next one follows five seconds after the one that was answered. */
	uint64_t at[4] = { 0 };
	CHECK(s, pass(l, START + 6 * SECOND_NS, at, 4) == 0);
	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &third) == PROBE_BYTES);
	for (int i = 0; i < 120; i++) {
		give_answer(l, &third, 0, 24);
		l->w->now_ns += 6 * SECOND_NS;
		send_data(l, 0);
		prober_ask(l->w);
		CHECK(s, next_question(l, &third) == PROBE_BYTES);
	}
	CHECK(s, words[peer_rtt_p99_us] >= words[peer_rtt_p50_us]);
	CHECK(s, words[peer_history] == (UINT64_C(32) << 32 | 0xfffffffe));
	lab_close(l);
}

/* Of 5,000 at rest each has its turn, one a second; one that does not answer is asked three times. */
static void asks_the_others_in_turn(struct suite *s)
{
	struct lab *l = open_at_rest(PEERS);
	struct probe probe;
	uint32_t asked = 0, expected = 1, tries = 0;

	for (uint64_t second = 0; second < 300; second++) {
		uint32_t now = 0;
		for (uint64_t part = 0; part < 20; part++, l->w->now_ns += STEP) {
			prober_ask(l->w);
			while (next_question(l, &probe) >= 0) {
				now++;
				CHECK(s, l->counters->peer[expected].statistics[peer_asked] == tries + 1);
				/* Every tenth is silent. */
				if (expected % 10 != 0)
					give_answer(l, &probe, expected, 24);
				else if (++tries < OTHERS_TRIES)
					continue;
				tries = 0;
				expected++;
			}
		}
		CHECK(s, now == 1);
		asked += now;
	}
	CHECK(s, asked == 300 && expected > 230);
	lab_close(l);
}

static void keeps_to_its_budget(struct suite *s)
{
	struct lab *l = open_at_rest(PEERS);
	uint32_t total = 0, most = 0;
	uint32_t window[20] = { 0 };
	uint64_t step = 0;

	for (; l->w->now_ns < START + 110 * SECOND_NS; l->w->now_ns += STEP, step++) {
		struct probe probe;
		if (step % 160 == 0)
			for (uint32_t i = 0; i < PEERS; i++)
				send_data(l, i);
		prober_ask(l->w);
		window[step % 20] = 0;
		while (next_of_any_length(l, &probe) >= 0) {
			window[step % 20]++;
			total++;
		}
		uint32_t second = 0;
		for (size_t i = 0; i < 20; i++)
			second += window[i];
		most = second > most ? second : most;
	}
	CHECK(s, most <= 50 && total > 110 * 35);
	/* Nobody is asked twice before each was asked once. */
	uint32_t twice = 0;
	for (uint32_t i = 0; i < PEERS; i++)
		twice += l->counters->peer[i].statistics[peer_asked] > 1;
	CHECK(s, twice < PEERS / 2);
	lab_close(l);
}

static void asks_nobody_else(struct suite *s)
{
	struct lab *l = open_at_rest(3);
	uint64_t at[4];

	/* A row without the bit, and every peer while the subnet is lost. */
	l->file->slot[0].peers[0].features = 0;
	l->file->slot[0].peers[1].features = ~FEATURE_PROBE;
	l->file->slot[0].peers[2].features = 0;
	for (uint32_t i = 0; i < 3; i++)
		send_data(l, i);
	CHECK(s, pass(l, START + 20 * SECOND_NS, at, 4) == 0);
	l->file->slot[0].peers[2].features = FEATURE_PROBE;
	l->w->self.gate = GATE_FENCED;
	send_data(l, 2);
	CHECK(s, pass(l, START + 40 * SECOND_NS, at, 4) == 0);
	l->w->self.gate = GATE_OPEN;
	/* While data passes, it becomes one that is asked. */
	send_data(l, 2);
	CHECK(s, pass(l, START + 42 * SECOND_NS, at, 4) > 0);
	lab_close(l);
}

/* The next peer of a number begins anew, and an answer to a question to the one before is none of its. */
static void forgets_who_had_the_number(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	struct probe probe;

	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &probe) == PROBE_BYTES);
	const uint32_t port = l->file->slot[0].peers[0].port4;
	publish_many(l, 3, (uint16_t)port, 1);
	l->file->slot[1].peers[0].identity[3] = 77;
	l->file->slot[1].head.checksum = fixture_checksum(&l->file->slot[1]);
	const uint64_t now = l->w->now_ns;
	CHECK(s, control_poll(l->w) == CONTROL_FORWARD);
	l->w->now_ns = now;
	CHECK(s, l->counters->peer[0].identity[3] == 77 && l->counters->peer[0].statistics[peer_asked] == 0);
	give_answer(l, &probe, 0, 24);
	CHECK(s, l->counters->peer[0].statistics[peer_answered] == 0);
	send_data(l, 0);
	uint64_t at[4] = { 0 };
	CHECK(s, pass(l, START + 2 * SECOND_NS, at, 4) >= 1);
	lab_close(l);
}

static void sleeps_until_something_is_due(struct suite *s)
{
	struct lab *l = open_at_rest(1);

	prober_ask(l->w);
	CHECK(s, prober_sleep_ms(l->w, 1000) == 1000);
	send_data(l, 0);
	CHECK(s, prober_sleep_ms(l->w, 1000) == 1);
	lab_close(l);
}

/* The longest packet of the tunnel is asked for, and what the answer says of it is known to pass. */
static void asks_for_the_path_mtu(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	_Atomic uint64_t *words = l->counters->peer[0].statistics;
	struct probe probe;

	long_questions = 0;
	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &probe) == PROBE_BYTES && next_question(l, &probe) < 0 && long_questions == 1);
	/* Half of it is not the whole. */
	give_answer(l, &long_question, 0, MTU / 2);
	CHECK(s, words[peer_path_mtu_out] == 0);
	l->w->now_ns += 40 * SECOND_NS;
	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &probe) == PROBE_BYTES && next_question(l, &probe) < 0 && long_questions == 2);
	give_answer(l, &long_question, 0, MTU);
	CHECK(s, words[peer_path_mtu_out] == MTU && words[peer_answered] == 0 && words[peer_asked] == 2);
	uint64_t at[8];
	for (uint64_t i = 0; i < 2; i++) {
		send_data(l, 0);
		pass(l, l->w->now_ns + 5 * SECOND_NS, at, 8);
	}
	CHECK(s, long_questions == 2);
	lab_close(l);
}

/* A question to a peer of the kernel engine is as long on the path as its packets, and what is noted is the packet. */
static void asks_for_the_kernel_path(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	struct probe probe;

	l->file->slot[0].peers[0].engine = PEER_ENGINE_KERNEL;
	l->w->self.mtu = MTU - 8;
	l->w->self.longest_received = MTU;
	send_data(l, 0);
	prober_ask(l->w);
	CHECK(s, next_question(l, &probe) == PROBE_BYTES && next_question(l, &probe) < 0);
	give_answer(l, &long_question, 0, MTU);
	CHECK(s, l->counters->peer[0].statistics[peer_path_mtu_out] == MTU - 8);
	lab_close(l);
}

/* What arrives of the peer's long questions is its path to us, for as long as it goes on asking. */
static void knows_what_arrives(struct suite *s)
{
	struct lab *l = open_at_rest(1);
	_Atomic uint64_t *word = &l->counters->peer[0].statistics[peer_path_mtu_in];
	static const struct { size_t length, expected; uint64_t after; uint8_t engine; } cases[] = {
		{ PROBE_BYTES, 0, 0, 0 }, { 1300, 1300, 0, 0 }, { 1400, 1400, 1, 0 }, { 1300, 1400, 60, 0 },
		{ 1300, 1300, 40, 0 }, { 1400, 1392, 100, PEER_ENGINE_KERNEL },
	};
	const struct outer outer = { .source = PEER_IP, .port = 1 };
	const struct probe question = { .kind = PROBE_QUESTION, .prefix = ADDRESS(10, 5, 0, 0), .prefix_length = 29 };

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t bytes[MTU];
		struct packet p = { .bytes = bytes, .length = cases[i].length };
		l->w->now_ns += cases[i].after * SECOND_NS;
		l->file->slot[0].peers[0].engine = cases[i].engine;
		probe_write(&p, &question);
		prober_take(l->w, &p, &outer, 0);
		CHECK(s, (*word & 0xffff) == cases[i].expected);
	}
	lab_close(l);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_near(uint32_t told, uint64_t real)
{
	return told * 100 + 100 >= real * 90 && told * 100 <= real * 110 + 100;
}

static void tells_percentiles(struct suite *s)
{
	for (int round = 0; round < 200; round++) {
		struct round_trips t = { 0 };
		uint64_t us[200];
		const uint32_t most = 1u << suite_below(s, 20), count = 1 + suite_below(s, 200);
		for (uint32_t i = 0; i < count; i++)
			round_trips_add(&t, us[i] = 1 + suite_below(s, most));
		qsort(us, count, sizeof us[0], compare);
		CHECK(s, is_near(round_trips_percentile(&t, 50), us[(count * 50 + 99) / 100 - 1]));
		CHECK(s, is_near(round_trips_percentile(&t, 99), us[(count * 99 + 99) / 100 - 1]));
	}
	struct round_trips t = { 0 };
	CHECK(s, round_trips_percentile(&t, 50) == 0);
	for (int i = 0; i < 240; i++)
		round_trips_add(&t, 1000);
	/* Old ones fade; one that is longer than any step is in the last. */
	for (int i = 0; i < 1000; i++)
		round_trips_add(&t, UINT64_MAX);
	CHECK(s, round_trips_percentile(&t, 1) > 500000);
}

static void gives_the_earliest(struct suite *s)
{
	static struct due_peer room[600];
	struct due_peers d = { .entry = room };
	uint64_t last = 0;

	for (uint32_t i = 0; i < 600; i++)
		due_peers_add(&d, i, suite_below(s, 500));
	for (uint32_t i = 0; i < 5000; i++) {
		const struct due_peer first = *due_peers_first(&d);
		CHECK(s, first.at_ns >= last);
		last = first.at_ns;
		due_peers_delay_first(&d, last + suite_below(s, 100));
	}
	bool seen[600] = { false };
	while (due_peers_first(&d) != NULL) {
		const struct due_peer first = *due_peers_first(&d);
		CHECK(s, first.at_ns >= last && !seen[first.peer]);
		seen[first.peer] = true;
		last = first.at_ns;
		due_peers_remove_first(&d);
	}
	for (uint32_t i = 0; i < 600; i++)
		CHECK(s, seen[i]);
}

int main(void)
{
	struct suite s = { .name = "prober-ask", .random = 35 };

	asks_a_new_pair_at_once_and_again(&s);
	measures_by_answers(&s);
	asks_the_others_in_turn(&s);
	keeps_to_its_budget(&s);
	asks_nobody_else(&s);
	forgets_who_had_the_number(&s);
	sleeps_until_something_is_due(&s);
	asks_for_the_path_mtu(&s);
	asks_for_the_kernel_path(&s);
	knows_what_arrives(&s);
	tells_percentiles(&s);
	gives_the_earliest(&s);
	return suite_end(&s);
}
