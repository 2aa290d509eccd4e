/* prober.c in a running loop: questions of a peer are answered where they came from, and each is in one counter. */
#include "lab.h"
#include "test.h"
#include "probe.h"
#include "prober.h"

static struct prober prober;

static void loop_with_prober(struct worker *w)
{
	w->prober = &prober;
	loop_rx(w);
}

static void ask(struct lab *l, const struct probe *probe, size_t length)
{
	uint8_t bytes[MTU];
	struct packet p = { .bytes = bytes, .length = length };

	probe_write(&p, probe);
	peer_send(l, p.bytes, p.length);
}

static void answers_questions(struct suite *s)
{
	struct lab *l = lab_open(loop_with_prober);
	struct probe probe = { .kind = PROBE_QUESTION, .prefix = ADDRESS(10, 5, 2, 0), .prefix_length = 24 }, answer;
	uint8_t got[MTU];

	for (uint32_t i = 0; i < 5; i++) {
		probe.sequence = i;
		probe.opaque = UINT64_C(0xfedcba9876543210) + i;
		const size_t length = i == 4 ? MTU : PROBE_BYTES + i;
		ask(l, &probe, length);
		const ssize_t bytes = take(l->peer, got, sizeof got);
		struct packet p = { .bytes = got, .length = bytes < 0 ? 0 : (size_t)bytes };
		CHECK(s, bytes == PROBE_BYTES && probe_read(&p, &answer) && answer.kind == PROBE_ANSWER);
		CHECK(s, answer.sequence == probe.sequence && answer.opaque == probe.opaque && answer.arrived == length);
		CHECK(s, answer.prefix == ADDRESS(10, 5, 1, 0) && answer.prefix_length == 24);
	}
	/* An answer that nobody asked for says that the peer lives, and no more. */
	probe.kind = PROBE_ANSWER;
	probe.arrived = 100;
	ask(l, &probe, PROBE_BYTES);
	CHECK(s, reaches(l, rx_probe, rx_probe, 6) && count(l, probes_answered) == 5);
	CHECK(s, l->counters->peer[0].last_heard_ns != 0);
	CHECK(s, l->counters->peer[0].statistics[peer_received_packets] == 0);
	probe.kind = PROBE_QUESTION;
	probe.arrived = 0;
	for (uint32_t i = 0; i < 50; i++)
		ask(l, &probe, PROBE_BYTES);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 56));
	CHECK(s, count(l, probes_answered) + count(l, probes_limited) == 55 && count(l, probes_limited) >= 20);
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "prober", .random = 33 };

	if (prober_open(&prober) != 0)
		return 1;
	answers_questions(&s);
	return suite_end(&s);
}
