/* See peer-traffic.h. Threads share these words, so each is written as rarely as its meaning allows. */
#include "peer-traffic.h"
#include "clock.h"

/* Four seconds, roughly. */
#define SPAN_BITS 32
#define PORT_BITS 16

/* Writes the time unless it is there to a millisecond. Returns whether it is the first of its span. */
static bool touch(_Atomic uint64_t *word, uint64_t now_ns)
{
	const uint64_t before = atomic_load_explicit(word, memory_order_relaxed);

	if (before / MILLISECOND_NS == now_ns / MILLISECOND_NS)
		return false;
	atomic_store_explicit(word, now_ns, memory_order_relaxed);
	return before >> SPAN_BITS != now_ns >> SPAN_BITS;
}

static void add(_Atomic uint64_t *word, uint64_t amount)
{
	atomic_fetch_add_explicit(word, amount, memory_order_relaxed);
}

bool peer_traffic_sent(struct counters_file *c, const struct route_table *t, const struct peer_run *run,
		       uint64_t now_ns)
{
	struct peer_block *b = peer_blocks_of(c, t, run->peer);

	if (b == NULL)
		return false;
	add(&b->statistics[peer_sent_packets], run->packets);
	add(&b->statistics[peer_sent_bytes], run->bytes);
	return touch(&b->statistics[peer_sent_ns], now_ns);
}

static bool has_port(uint64_t ports, uint16_t port)
{
	for (; ports != 0; ports >>= PORT_BITS)
		if ((uint16_t)ports == port)
			return true;
	return false;
}

bool peer_traffic_knows_port(const struct peer_block *b, uint16_t port)
{
	return has_port(atomic_load_explicit(&b->lane_ports[0], memory_order_relaxed), port) ||
	       has_port(atomic_load_explicit(&b->lane_ports[1], memory_order_relaxed), port);
}

void peer_traffic_note_port(struct peer_block *b, uint16_t port)
{
	const uint64_t newer = atomic_load_explicit(&b->lane_ports[0], memory_order_relaxed);
	const uint64_t older = atomic_load_explicit(&b->lane_ports[1], memory_order_relaxed);

	if (port == 0 || peer_traffic_knows_port(b, port))
		return;
	/* The port that leaves the first word is in the second one before. */
	atomic_store_explicit(&b->lane_ports[1], older << PORT_BITS | newer >> (64 - PORT_BITS),
			      memory_order_relaxed);
	atomic_store_explicit(&b->lane_ports[0], newer << PORT_BITS | port, memory_order_relaxed);
}

/* A peer that is where its lease says has no other address. A port of a lane tells nothing of that. */
static void note_address(struct peer_block *b, const struct peer *peer, uint32_t source, uint16_t port)
{
	const bool is_endpoint = source == peer->endpoint4 && port == peer->port4;
	const uint64_t seen = is_endpoint ? 0 : (uint64_t)source << 16 | port;
	_Atomic uint64_t *word = &b->statistics[peer_address_seen];

	if (!is_endpoint && peer_traffic_knows_port(b, port))
		return;
	if (atomic_load_explicit(word, memory_order_relaxed) != seen)
		atomic_store_explicit(word, seen, memory_order_relaxed);
}

bool peer_traffic_received(struct counters_file *c, const struct route_table *t, const struct peer_run *run,
			   uint32_t source, uint16_t port, uint64_t now_ns)
{
	struct peer_block *b = peer_blocks_of(c, t, run->peer);

	if (b == NULL)
		return false;
	add(&b->statistics[peer_received_packets], run->packets);
	add(&b->statistics[peer_received_bytes], run->bytes);
	note_address(b, &t->slot->peers[run->peer], source, port);
	peer_traffic_heard(b, now_ns);
	return touch(&b->statistics[peer_received_ns], now_ns);
}

bool peer_traffic_is_active(const struct peer_block *b, uint64_t now_ns)
{
	const uint64_t sent = atomic_load_explicit(&b->statistics[peer_sent_ns], memory_order_relaxed);
	const uint64_t received = atomic_load_explicit(&b->statistics[peer_received_ns], memory_order_relaxed);
	const uint64_t last = sent > received ? sent : received;

	return last != 0 && clock_since_ns(now_ns, last) < ACTIVE_NS;
}

void peer_traffic_heard(struct peer_block *b, uint64_t now_ns)
{
	touch(&b->last_heard_ns, now_ns);
}
