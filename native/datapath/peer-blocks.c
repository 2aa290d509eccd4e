/*
 * See peer-blocks.h. One thread at a time is here: a thread reports a generation after it has fitted the blocks to it,
 * and tartand publishes no other one before all threads have reported this one.
 *
 * Threads that still use the table before may write to a block after it was zeroed, under an identity that they read
 * before. This does no harm: the number is free then, and its block is zeroed once more for the next peer, which gets
 * the number only after all threads have left that table (layout.h, struct peer).
 */
#include "peer-blocks.h"
#include "tcp-udp.h"

/* Whether the calling thread is the first that adopts this generation. */
static bool claim(struct counters_file *c, uint32_t generation)
{
	uint32_t before = atomic_load(&c->blocks_generation);

	return before != generation && atomic_compare_exchange_strong(&c->blocks_generation, &before, generation);
}

static bool has_identity(const struct peer_block *b, const uint32_t identity[4])
{
	for (size_t i = 0; i < 4; i++)
		if (atomic_load_explicit(&b->identity[i], memory_order_relaxed) != identity[i])
			return false;
	return true;
}

static void zero(struct peer_block *b)
{
	for (size_t i = 0; i < 4; i++)
		atomic_store_explicit(&b->identity[i], 0, memory_order_relaxed);
	atomic_store_explicit(&b->path_mtu, 0, memory_order_relaxed);
	atomic_store_explicit(&b->path_mtu_until_s, 0, memory_order_relaxed);
	atomic_store_explicit(&b->last_heard_ns, 0, memory_order_relaxed);
	for (size_t i = 0; i < sizeof b->statistics / sizeof b->statistics[0]; i++)
		atomic_store_explicit(&b->statistics[i], 0, memory_order_relaxed);
	for (size_t i = 0; i < sizeof b->lane_ports / sizeof b->lane_ports[0]; i++)
		atomic_store_explicit(&b->lane_ports[i], 0, memory_order_relaxed);
}

/* Whoever reads the new identity finds the rest zeroed. */
static void give(struct peer_block *b, const uint32_t identity[4])
{
	zero(b);
	for (size_t i = 0; i < 4; i++)
		atomic_store_explicit(&b->identity[i], identity[i], memory_order_release);
}

void peer_blocks_fit(struct counters_file *c, const struct route_table *t)
{
	static const uint32_t nobody[4] = { 0 };

	if (!claim(c, t->generation))
		return;
	/* The table before may have had more peers. */
	uint32_t end = atomic_load_explicit(&c->blocks_count, memory_order_relaxed);
	end = end < PEERS_MAX ? end : PEERS_MAX;
	end = end < t->peer_count ? t->peer_count : end;
	for (uint32_t i = 0; i < end; i++) {
		const uint32_t *identity = i < t->peer_count ? t->slot->peers[i].identity : nobody;
		if (!has_identity(&c->peer[i], identity))
			give(&c->peer[i], identity);
	}
	atomic_store_explicit(&c->blocks_count, t->peer_count, memory_order_relaxed);
}

static uint32_t seconds(uint64_t ns)
{
	return (uint32_t)(ns / UINT64_C(1000000000));
}

static bool is_of_peer(const struct counters_file *c, const struct route_table *t, uint32_t number)
{
	return number < t->peer_count && has_identity(&c->peer[number], t->slot->peers[number].identity);
}

struct peer_block *peer_blocks_of(struct counters_file *c, const struct route_table *t, uint32_t number)
{
	return is_of_peer(c, t, number) ? &c->peer[number] : NULL;
}

size_t peer_blocks_path_mtu(const struct counters_file *c, const struct route_table *t, uint32_t number,
			    uint64_t now_ns)
{
	if (!is_of_peer(c, t, number))
		return IPV4_BYTES_MAX;
	const struct peer_block *b = &c->peer[number];
	const uint32_t bytes = atomic_load_explicit(&b->path_mtu, memory_order_relaxed);
	/* Another thread may write both words now. Then the value before counts for seconds at most. */
	const bool is_fresh = atomic_load_explicit(&b->path_mtu_until_s, memory_order_relaxed) > seconds(now_ns);
	return is_fresh && bytes > OUTER_BYTES ? bytes - OUTER_BYTES : IPV4_BYTES_MAX;
}

void peer_blocks_learn_path_mtu(struct counters_file *c, const struct route_table *t, uint32_t number, size_t bytes,
				uint64_t now_ns)
{
	if (!is_of_peer(c, t, number))
		return;
	struct peer_block *b = &c->peer[number];
	atomic_store_explicit(&b->path_mtu, (uint32_t)(bytes + OUTER_BYTES), memory_order_relaxed);
	atomic_store_explicit(&b->path_mtu_until_s, seconds(now_ns) + PATH_MTU_SECONDS, memory_order_relaxed);
}

size_t peer_blocks_extra(const struct route_table *t, uint32_t number)
{
	return number < t->peer_count && t->slot->peers[number].engine == PEER_ENGINE_KERNEL ? KERNEL_EXTRA_BYTES : 0;
}
