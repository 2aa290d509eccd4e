/* See prober.h. */
#include "prober.h"
#include "clock.h"
#include "peer-traffic.h"
#include "probe.h"
#include "tx-batch.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>

int prober_open(struct prober *r)
{
	const size_t bytes = PEERS_MAX * sizeof *r->peer;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return errno;
	*r = (struct prober){ .lock = PTHREAD_MUTEX_INITIALIZER, .peer = memory };
	return getrandom(r->random, sizeof r->random, 0) == (ssize_t)sizeof r->random ? 0 : EIO;
}

/* xoroshiro128+ (Blackman and Vigna, 2018). */
static uint64_t next_random(struct prober *r)
{
	const uint64_t a = r->random[0], b = r->random[1] ^ a;
	const uint64_t result = a + r->random[1];

	r->random[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	r->random[1] = b << 37 | b >> 27;
	return result;
}

/* What is kept of the peer. That of a peer which had the number before is forgotten. */
static struct probed_peer *peer_of(struct worker *w, uint32_t number)
{
	struct probed_peer *p = &w->prober->peer[number];
	const uint32_t *identity = w->routes.slot->peers[number].identity;

	if (memcmp(p->identity, identity, sizeof p->identity) != 0) {
		*p = (struct probed_peer){ 0 };
		memcpy(p->identity, identity, sizeof p->identity);
	}
	return p;
}

static bool send_probe(const struct worker *w, struct sockaddr_in *to, const struct packet *p)
{
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = { .msg_name = to, .msg_namelen = sizeof *to, .msg_iov = &iov, .msg_iovlen = 1 },
	};

	return sendmmsg(w->udp, &m, 1, MSG_DONTWAIT) == 1;
}

/* The answer is as short as a probe can be, and goes where the question came from. */
static void send_answer(struct worker *w, const struct probe *question, size_t arrived, const struct outer *outer)
{
	struct sockaddr_in to = tx_batch_address(&(struct peer_endpoint){ .address = outer->source, .port = outer->port });
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
	if (send_probe(w, &to, &p))
		count_add(w->block, probes_answered, 1);
}

static void take_question(struct worker *w, struct probed_peer *peer, const struct probe *question, size_t arrived,
			  const struct outer *outer)
{
	const uint32_t random = (uint32_t)(next_random(w->prober) >> 32);

	if (answer_limit_take(&peer->limit, (uint32_t)(w->now_ns / SECOND_NS), random))
		send_answer(w, question, arrived, outer);
	else
		count_add(w->block, probes_limited, 1);
}

void prober_take(struct worker *w, const struct packet *p, const struct outer *outer, uint32_t sender)
{
	struct peer_block *block = peer_blocks_of(w->counters, &w->routes, sender);
	struct probe probe;

	if (w->prober == NULL || block == NULL || !probe_read(p, &probe))
		return;
	pthread_mutex_lock(&w->prober->lock);
	peer_traffic_heard(block, w->now_ns);
	if (probe.kind == PROBE_QUESTION)
		take_question(w, peer_of(w, sender), &probe, p->length, outer);
	pthread_mutex_unlock(&w->prober->lock);
}
