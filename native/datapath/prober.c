/* See prober.h: who is asked, and when. */
#include "prober.h"
#include "path-mtu.h"
#include "peer-traffic.h"
#include "tx-batch.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>

static void *reserve(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int prober_open(struct prober *r)
{
	*r = (struct prober){ .lock = PTHREAD_MUTEX_INITIALIZER };
	r->peer = reserve(PEERS_MAX * sizeof *r->peer);
	r->due.entry = reserve(PEERS_MAX * sizeof *r->due.entry);
	r->bytes = reserve(IPV4_BYTES_MAX);
	if (r->peer == NULL || r->due.entry == NULL || r->bytes == NULL)
		return ENOMEM;
	return getrandom(r->random, sizeof r->random, 0) == (ssize_t)sizeof r->random ? 0 : EIO;
}

/* xoroshiro128+ (Blackman and Vigna, 2018). */
uint64_t prober_random(struct prober *r)
{
	const uint64_t a = r->random[0], b = r->random[1] ^ a;
	const uint64_t result = a + r->random[1];

	r->random[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	r->random[1] = b << 37 | b >> 27;
	return result;
}

struct probed_peer *prober_peer(struct worker *w, uint32_t number)
{
	struct probed_peer *p = &w->prober->peer[number];
	const uint32_t *identity = w->routes.slot->peers[number].identity;

	if (memcmp(p->identity, identity, sizeof p->identity) != 0) {
		*p = (struct probed_peer){ .is_due = p->is_due };
		memcpy(p->identity, identity, sizeof p->identity);
	}
	return p;
}

int prober_send(int fd, uint32_t address, uint16_t port, const struct packet *p)
{
	struct sockaddr_in to = tx_batch_address(&(struct peer_endpoint){ .address = address, .port = port });
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1 },
	};

	return sendmmsg(fd, &m, 1, MSG_DONTWAIT) == 1 ? 0 : errno;
}

/* The block of a peer that answers probes; NULL: it is not to be asked. */
static struct peer_block *askable(struct worker *w, uint32_t number)
{
	struct peer_block *b = peer_blocks_of(w->counters, &w->routes, number);

	if (b == NULL)
		return NULL;
	const struct peer *row = &w->routes.slot->peers[number];
	return (row->features & FEATURE_PROBE) != 0 && row->endpoint4 != 0 ? b : NULL;
}

static bool has_budget(const struct prober *r, uint64_t now)
{
	return r->spent_ns <= now;
}

static void spend(struct prober *r, uint64_t now)
{
	const uint64_t from = now > QUESTION_BURST_NS ? now - QUESTION_BURST_NS : 0;

	r->spent_ns = (r->spent_ns > from ? r->spent_ns : from) + QUESTION_COST_NS;
}

static uint64_t wait_after(uint32_t unanswered)
{
	return unanswered == 1 ? SECOND_NS : unanswered == 2 ? 2 * SECOND_NS : ASK_ACTIVE_NS;
}

static void note_asked(struct probed_peer *p, struct peer_block *b, uint64_t now)
{
	const uint64_t history = statistic(b, peer_history), asked = (history >> 32) + 1;

	p->unanswered++;
	p->asked_ns = now;
	p->next_ns = now + wait_after(p->unanswered);
	set_statistic(b, peer_asked, statistic(b, peer_asked) + 1);
	set_statistic(b, peer_asked_ns, now);
	set_statistic(b, peer_history, (asked < 32 ? asked : 32) << 32 | (history << 1 & 0xffffffff));
}

static struct probe question_of(struct worker *w, uint32_t sequence)
{
	return (struct probe){
		.kind = PROBE_QUESTION,
		.sequence = sequence,
		.opaque = prober_random(w->prober),
		.prefix = w->self.subnet,
		.prefix_length = w->self.subnet_length,
	};
}

static void ask(struct worker *w, uint32_t number, struct probed_peer *p, struct peer_block *b)
{
	const struct peer *row = &w->routes.slot->peers[number];
	const struct probe probe = question_of(w, p->sequence = (p->sequence + 1) & ~LONG_SEQUENCE);
	uint8_t bytes[PROBE_BYTES];
	struct packet packet = { .bytes = bytes, .length = sizeof bytes };

	probe_write(&packet, &probe);
	spend(w->prober, w->now_ns);
	note_asked(p, b, w->now_ns);
	p->question[p->sequence % QUESTIONS_KEPT] = (struct question){
		.is_open = true,
		.sequence = probe.sequence,
		.opaque = probe.opaque,
		.at_ns = clock_now_ns(),
	};
	/* A question that the kernel refuses gets no answer: the network does not let it through. */
	if (prober_send(w->udp, row->endpoint4, row->port4, &packet) == 0)
		count_add(w->block, probes_asked, 1);
}

/* The path carries less than `bytes`, as the kernel says, or else to the next usual length, as for data (tx-send.c). */
static void learn_path_mtu(struct worker *w, uint32_t number, const struct packet *p)
{
	const struct peer *row = &w->routes.slot->peers[number];
	const struct peer_endpoint endpoint = { .address = row->endpoint4, .port = row->port4, .peer = number };
	size_t longest = path_mtu_ask(w->path_mtu, &endpoint, p);

	/* The path has become wider. The answer to what was sent now goes to another socket, so it is asked again. */
	if (longest >= p->length)
		return;
	if (longest == 0)
		longest = icmp_smaller_mtu(p->length);
	peer_blocks_learn_path_mtu(w->counters, &w->routes, number, longest, w->now_ns);
}

/* A refused question counts as asked: it gets no answer. */
bool prober_ask_from(struct worker *w, int fd, uint32_t number, uint64_t *opaque)
{
	const struct peer *row = &w->routes.slot->peers[number];
	struct prober *r = w->prober;
	uint8_t bytes[PROBE_BYTES];
	struct packet packet = { .bytes = bytes, .length = sizeof bytes };

	pthread_mutex_lock(&r->lock);
	const bool may_ask = has_budget(r, w->now_ns - QUESTION_BURST_NS / 2);
	if (may_ask) {
		struct probe probe = question_of(w, 0);
		probe.of_lane_port = true;
		probe_write(&packet, &probe);
		spend(r, w->now_ns);
		*opaque = probe.opaque;
		if (prober_send(fd, row->endpoint4, row->port4, &packet) == 0)
			count_add(w->block, probes_asked, 1);
	}
	pthread_mutex_unlock(&r->lock);
	return may_ask;
}

static void ask_long(struct worker *w, uint32_t number, struct probed_peer *p, uint16_t length)
{
	const struct peer *row = &w->routes.slot->peers[number];
	const struct probe probe = question_of(w, LONG_SEQUENCE | (uint32_t)(prober_random(w->prober) >> 33));
	struct packet packet = { .bytes = w->prober->bytes, .length = length };

	probe_write(&packet, &probe);
	spend(w->prober, w->now_ns);
	path_search_sent(&p->path, length, w->now_ns);
	p->long_question = (struct question){ .is_open = true, .sequence = probe.sequence, .opaque = probe.opaque };
	const int err = prober_send(w->udp, row->endpoint4, row->port4, &packet);
	if (err == 0)
		count_add(w->block, probes_asked, 1);
	if (err != EMSGSIZE)
		return;
	learn_path_mtu(w, number, &packet);
	path_search_failed(&p->path, length, w->now_ns);
}

/* As long on the path as the longest packet by the kernel engine, where packets to the peer go so. */
static uint16_t longest_question(const struct worker *w, size_t extra)
{
	const size_t longest = w->self.mtu + extra;

	return (uint16_t)(extra == 0 || longest <= w->self.longest_received ? longest : w->self.longest_received);
}

/*
 * Asks for the path MTU if it is time, and tells whether a short question is needed beside it: without its answer nobody
 * knows whether the long one was lost for its length. Returns when to come again.
 */
static uint64_t search_path(struct worker *w, uint32_t number, struct probed_peer *p, struct peer_block *b)
{
	/* What data has learnt since the last turn may be too old for data by now. */
	const uint64_t turn_ns = ASK_ACTIVE_NS + SECOND_NS;
	const size_t learnt = peer_blocks_path_mtu(w->counters, &w->routes, number, w->now_ns - turn_ns);
	const uint64_t answered_ns = statistic(b, peer_answered_ns);
	const size_t extra = peer_blocks_extra(&w->routes, number);
	const uint16_t length = path_search_next(&p->path, longest_question(w, extra), (uint32_t)learnt, answered_ns,
						 w->now_ns);

	if (length > 0) {
		if (p->next_ns > w->now_ns)
			ask(w, number, p, b);
		ask_long(w, number, p, length);
	}
	if (statistic(b, peer_path_mtu_out) != inner_bytes(p->path.passes, extra))
		set_statistic(b, peer_path_mtu_out, inner_bytes(p->path.passes, extra));
	if (p->path.next_ns > w->now_ns)
		return p->path.next_ns;
	/* A length that was refused is followed by the next one. A silent peer is asked as any silent peer. */
	return p->path.asking == 0 ? w->now_ns + QUESTION_COST_NS : UINT64_MAX;
}

/* The first of the due peers: asked, delayed to its time, or let go because nothing passes any more. */
static void serve_first(struct worker *w)
{
	struct prober *r = w->prober;
	const uint32_t number = due_peers_first(&r->due)->peer;
	struct peer_block *b = askable(w, number);

	if (b == NULL || !peer_traffic_is_active(b, w->now_ns)) {
		r->peer[number].is_due = false;
		due_peers_remove_first(&r->due);
		/* From now on it is one of the others. */
		if (r->others_ns > w->now_ns + ASK_OTHERS_NS)
			r->others_ns = w->now_ns + ASK_OTHERS_NS;
		return;
	}
	struct probed_peer *p = prober_peer(w, number);
	const bool is_time = p->next_ns <= w->now_ns;
	const uint64_t path_ns = search_path(w, number, p, b);
	if (is_time)
		ask(w, number, p, b);
	due_peers_delay_first(&r->due, path_ns < p->next_ns ? path_ns : p->next_ns);
}

/* How long until the peer may be asked as one of the others; OTHERS_IDLE_NS for one that is not asked so. */
static uint64_t other_wait(struct worker *w, uint32_t number)
{
	if (askable(w, number) == NULL)
		return OTHERS_IDLE_NS;
	const struct probed_peer *p = prober_peer(w, number);
	if (p->is_due)
		return OTHERS_IDLE_NS;
	const uint64_t since = p->asked_ns == 0 ? ASK_ACTIVE_NS : clock_since_ns(w->now_ns, p->asked_ns);
	return since < ASK_ACTIVE_NS ? ASK_ACTIVE_NS - since : 0;
}

/* The number of the one to ask, or PEERS_MAX; and when to come again. */
static uint32_t next_other(struct worker *w, uint64_t *wait_ns)
{
	struct prober *r = w->prober;
	const uint32_t count = w->routes.peer_count;
	uint64_t least = count > OTHERS_PER_TURN ? ASK_OTHERS_NS : OTHERS_IDLE_NS;

	*wait_ns = ASK_OTHERS_NS;

	if (r->other < count && askable(w, r->other) != NULL) {
		const struct probed_peer *p = prober_peer(w, r->other);
		if (!p->is_due && p->unanswered > 0 && p->unanswered < OTHERS_TRIES)
			return r->other;
	}
	for (uint32_t i = 0; i < count && i < OTHERS_PER_TURN; i++) {
		r->other = r->other + 1 < count ? r->other + 1 : 0;
		const uint64_t wait = other_wait(w, r->other);
		if (wait == 0) {
			prober_peer(w, r->other)->unanswered = 0;
			return r->other;
		}
		least = wait < least ? wait : least;
	}
	*wait_ns = least > ASK_OTHERS_NS ? least : ASK_OTHERS_NS;
	return PEERS_MAX;
}

static void ask_other(struct worker *w)
{
	uint64_t wait_ns;
	const uint32_t number = next_other(w, &wait_ns);

	w->prober->others_ns = w->now_ns + wait_ns;
	if (number < PEERS_MAX)
		ask(w, number, prober_peer(w, number), askable(w, number));
}

static uint64_t next_time(const struct prober *r)
{
	const struct due_peer *first = due_peers_first(&r->due);
	const uint64_t at = first != NULL && first->at_ns < r->others_ns ? first->at_ns : r->others_ns;

	return at > r->spent_ns ? at : r->spent_ns;
}

void prober_ask(struct worker *w)
{
	struct prober *r = w->prober;

	const bool is_new = r->generation != w->routes.generation;

	if (!is_new && atomic_load_explicit(&r->next_ns, memory_order_relaxed) > w->now_ns)
		return;
	pthread_mutex_lock(&r->lock);
	r->generation = w->routes.generation;
	/* A peer that was not there before is not kept waiting. */
	if (is_new && r->others_ns > w->now_ns + ASK_OTHERS_NS)
		r->others_ns = w->now_ns + ASK_OTHERS_NS;
	if (w->self.gate != GATE_OPEN) {
		atomic_store_explicit(&r->next_ns, w->now_ns + SECOND_NS, memory_order_relaxed);
		pthread_mutex_unlock(&r->lock);
		return;
	}
	for (uint32_t i = 0; i < DUE_PER_TURN && has_budget(r, w->now_ns); i++) {
		const struct due_peer *first = due_peers_first(&r->due);
		if (first == NULL || first->at_ns > w->now_ns)
			break;
		serve_first(w);
	}
	if (r->others_ns <= w->now_ns && has_budget(r, w->now_ns))
		ask_other(w);
	atomic_store_explicit(&r->next_ns, next_time(r), memory_order_relaxed);
	pthread_mutex_unlock(&r->lock);
}

int prober_sleep_ms(const struct worker *w, int longest_ms)
{
	const uint64_t next = atomic_load_explicit(&w->prober->next_ns, memory_order_relaxed);
	const uint64_t ms = clock_since_ns(next, w->now_ns) / MILLISECOND_NS + 1;

	return ms < (uint64_t)longest_ms ? (int)ms : longest_ms;
}

void prober_activate(struct worker *w, uint32_t number)
{
	struct prober *r = w->prober;

	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	if (askable(w, number) != NULL) {
		struct probed_peer *p = prober_peer(w, number);
		if (!p->is_due) {
			p->is_due = true;
			p->unanswered = 0;
			p->next_ns = w->now_ns;
			due_peers_add(&r->due, number, w->now_ns);
			atomic_store_explicit(&r->next_ns, w->now_ns, memory_order_relaxed);
		}
	}
	pthread_mutex_unlock(&r->lock);
}
