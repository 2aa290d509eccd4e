/* What the prober does with probes that arrive: it answers questions, and measures by answers. See prober.h. */
#include "peer-traffic.h"
#include "prober.h"

#define PATH_IN_SECONDS 65u

/* The answer is as short as a probe can be, and goes where the question came from. */
static void send_answer(struct worker *w, const struct probe *question, size_t arrived, const struct outer *outer)
{
	uint8_t bytes[PROBE_BYTES];
	struct packet p = { .bytes = bytes, .length = sizeof bytes };
	const struct probe said = {
		.kind = PROBE_ANSWER,
		.sequence = question->sequence,
		.opaque = question->opaque,
		.prefix = w->self.subnet,
		.prefix_length = w->self.subnet_length,
		.arrived = (uint16_t)arrived,
	};

	probe_write(&p, &said);
	if (prober_send(w->udp, outer->source, outer->port, &p) == 0)
		count_add(w->block, probes_answered, 1);
}

/* A long question is what its sender searches its path with. What passed counts for three of its rounds. */
static void note_length(struct peer_block *b, size_t arrived, uint64_t now_ns)
{
	const uint64_t now_s = now_ns / SECOND_NS, before = statistic(b, peer_path_mtu_in);
	const bool is_old = before >> 16 <= now_s;

	if (arrived > PROBE_BYTES && (is_old || arrived >= (before & 0xffff)))
		set_statistic(b, peer_path_mtu_in, (now_s + PATH_IN_SECONDS) << 16 | arrived);
}

/* Questions of a peer that may send by the kernel engine are longer by what that adds, and its packets are not. */
static size_t inner_arrived(const struct worker *w, uint32_t sender, size_t arrived)
{
	const size_t extra = peer_blocks_extra(&w->routes, sender);

	return arrived > PROBE_BYTES + extra ? arrived - extra : arrived;
}

static void take_question(struct worker *w, struct probed_peer *peer, struct peer_block *b,
			  const struct probe *question, size_t arrived, const struct outer *outer, uint32_t sender)
{
	const uint32_t random = (uint32_t)(prober_random(w->prober) >> 32);

	if (question->of_lane_port)
		peer_traffic_note_port(b, outer->port);
	note_length(b, inner_arrived(w, sender, arrived), w->now_ns);
	if (answer_limit_take(&peer->limit, (uint32_t)(w->now_ns / SECOND_NS), random))
		send_answer(w, question, arrived, outer);
	else
		count_add(w->block, probes_limited, 1);
}

/* Only who has heard the question knows its opaque. */
static bool is_answered(struct question *q, const struct probe *answer)
{
	if (!q->is_open || q->sequence != answer->sequence || q->opaque != answer->opaque)
		return false;
	q->is_open = false;
	return true;
}

static void take_long_answer(struct worker *w, struct probed_peer *peer, struct peer_block *b,
			     const struct probe *answer, uint32_t sender)
{
	if (!is_answered(&peer->long_question, answer) || answer->arrived != peer->path.asking)
		return;
	path_search_passed(&peer->path, answer->arrived, w->now_ns);
	set_statistic(b, peer_path_mtu_out, inner_bytes(peer->path.passes, peer_blocks_extra(&w->routes, sender)));
}

static void take_answer(struct probed_peer *peer, struct peer_block *b, const struct probe *answer)
{
	struct question *q = &peer->question[answer->sequence % QUESTIONS_KEPT];
	const uint64_t now = clock_now_ns();

	if (!is_answered(q, answer))
		return;
	const uint32_t later = (peer->sequence - q->sequence) & ~LONG_SEQUENCE;
	peer->unanswered = later;
	if (peer->unanswered == 0)
		peer->next_ns = peer->asked_ns + ASK_ACTIVE_NS;
	round_trips_add(&peer->trips, clock_since_ns(now, q->at_ns) / 1000);
	set_statistic(b, peer_answered, statistic(b, peer_answered) + 1);
	set_statistic(b, peer_answered_ns, now);
	set_statistic(b, peer_history, statistic(b, peer_history) | UINT64_C(1) << later);
	set_statistic(b, peer_rtt_p50_us, round_trips_percentile(&peer->trips, 50));
	if (peer->trips.total >= ROUND_TRIPS_P99_MIN)
		set_statistic(b, peer_rtt_p99_us, round_trips_percentile(&peer->trips, 99));
}

void prober_take(struct worker *w, const struct packet *p, const struct outer *outer, uint32_t sender)
{
	struct peer_block *block = peer_blocks_of(w->counters, &w->routes, sender);
	struct probe probe;

	if (w->prober == NULL || block == NULL || !probe_read(p, &probe))
		return;
	pthread_mutex_lock(&w->prober->lock);
	struct probed_peer *peer = prober_peer(w, sender);
	peer_traffic_heard(block, w->now_ns);
	if (probe.kind == PROBE_QUESTION)
		take_question(w, peer, block, &probe, p->length, outer, sender);
	else if ((probe.sequence & LONG_SEQUENCE) != 0)
		take_long_answer(w, peer, block, &probe, sender);
	else
		take_answer(peer, block, &probe);
	pthread_mutex_unlock(&w->prober->lock);
}
