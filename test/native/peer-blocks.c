/* peer-blocks.c: a block is zeroed when its number changes hands, once for each table, whichever thread comes first. */
#include "fixture.h"
#include "peer-blocks.h"
#include "tcp-udp.h"
#include "test.h"
#include <pthread.h>

#define THREADS 4
#define GENERATIONS 200u
#define PEERS 64u

/* A slot whose peers have these identities, 0 for a free number, and the table of it. */
static struct route_table table_of(struct route_slot *slot, uint32_t generation, const uint32_t *identities,
				   uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		slot->peers[i] = (struct peer){ .identity = { [3] = identities[i] } };
	return (struct route_table){ .slot = slot, .generation = generation, .peer_count = count };
}

/* What a block keeps of a peer. */
static void learn(struct peer_block *b, uint32_t value)
{
	b->path_mtu = value;
	b->last_heard_ns = value;
	b->statistics[PEER_STATISTICS_MAX - 1] = value;
	b->lane_ports[1] = value;
}

static bool has(const struct peer_block *b, uint32_t identity, uint32_t value)
{
	return b->identity[0] == 0 && b->identity[3] == identity && b->path_mtu == value && b->last_heard_ns == value &&
	       b->statistics[PEER_STATISTICS_MAX - 1] == value && b->lane_ports[1] == value;
}

static void changes_hands(struct suite *s)
{
	struct counters_file *c = fixture_counters();
	struct route_slot *slot = calloc(1, sizeof *slot);
	struct route_table t = table_of(slot, 1, (uint32_t[]){ 7, 8, 9 }, 3);

	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[0], 7, 0) && has(&c->peer[1], 8, 0) && has(&c->peer[2], 9, 0) && has(&c->peer[3], 0, 0));
	for (uint32_t i = 0; i < 3; i++)
		learn(&c->peer[i], 5);
	/* Another thread adopts the same table. */
	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[0], 7, 5));
	/* Peer 8 leaves, and so does the last one: the table is shorter. The first one stays. */
	t = table_of(slot, 2, (uint32_t[]){ 7, 0 }, 2);
	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[0], 7, 5) && has(&c->peer[1], 0, 0) && has(&c->peer[2], 0, 0));
	/* A thread with the older table writes late. The next peer of the number does not find it. */
	learn(&c->peer[1], 6);
	t = table_of(slot, 3, (uint32_t[]){ 7, 11 }, 2);
	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[0], 7, 5) && has(&c->peer[1], 11, 0));
	t = (struct route_table){ .generation = 4 };
	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[0], 0, 0) && has(&c->peer[1], 0, 0));
	free(slot);
	fixture_counters_free(c);
}

/* A damaged count must not lead out of the memory. */
static void survives_damage(struct suite *s)
{
	struct counters_file *c = fixture_counters();
	struct route_table t = { .generation = 1 };

	atomic_store(&c->blocks_count, 0xffffffff);
	learn(&c->peer[PEERS_MAX - 1], 5);
	c->peer[PEERS_MAX - 1].identity[3] = 1;
	peer_blocks_fit(c, &t);
	CHECK(s, has(&c->peer[PEERS_MAX - 1], 0, 0));
	fixture_counters_free(c);
}

struct world {
	struct counters_file *counters;
	struct route_slot *slot;
	pthread_barrier_t barrier;
	unsigned long wrong;
};

/*
 * All threads adopt each table together, as they do when tartand rings. Then each looks at the blocks: those of the
 * table are fitted, because all threads have come out of the call.
 */
static void *adopt(void *argument)
{
	struct world *w = argument;

	for (uint32_t generation = 1; generation <= GENERATIONS; generation++) {
		struct route_table t = { .slot = w->slot, .generation = generation, .peer_count = PEERS };
		if (pthread_barrier_wait(&w->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
			uint32_t identities[PEERS];
			for (uint32_t i = 0; i < PEERS; i++)
				identities[i] = i % 2 == 0 ? i + 1 : generation;
			t = table_of(w->slot, generation, identities, PEERS);
		}
		pthread_barrier_wait(&w->barrier);
		peer_blocks_fit(w->counters, &t);
		pthread_barrier_wait(&w->barrier);
		for (uint32_t i = 0; i < PEERS; i++) {
			const uint32_t identity = atomic_load(&w->counters->peer[i].identity[3]);
			if (identity != (i % 2 == 0 ? i + 1 : generation))
				__atomic_add_fetch(&w->wrong, 1, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static void several_threads(struct suite *s)
{
	struct world w = { .counters = fixture_counters(), .slot = calloc(1, sizeof *w.slot) };
	pthread_t threads[THREADS];

	pthread_barrier_init(&w.barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, adopt, &w);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(s, w.wrong == 0);
	CHECK(s, atomic_load(&w.counters->blocks_generation) == GENERATIONS);
	free(w.slot);
	fixture_counters_free(w.counters);
}

/* The learnt path MTU is believed for a time, and only of the peer that has the number. */
static void path_mtu(struct suite *s)
{
	const uint64_t now = UINT64_C(5000000000), later = now + (PATH_MTU_SECONDS - 1) * UINT64_C(1000000000);
	struct counters_file *c = fixture_counters();
	struct route_slot *slot = calloc(1, sizeof *slot), *next = calloc(1, sizeof *next);
	struct route_table t = table_of(slot, 1, (uint32_t[]){ 7, 8 }, 2);

	peer_blocks_fit(c, &t);
	CHECK(s, peer_blocks_path_mtu(c, &t, 1, now) == IPV4_BYTES_MAX);
	peer_blocks_learn_path_mtu(c, &t, 1, 1300, now);
	CHECK(s, peer_blocks_path_mtu(c, &t, 1, now) == 1300 && peer_blocks_path_mtu(c, &t, 1, later) == 1300);
	CHECK(s, atomic_load(&c->peer[1].path_mtu) == 1300 + OUTER_BYTES);
	CHECK(s, peer_blocks_path_mtu(c, &t, 0, now) == IPV4_BYTES_MAX);
	CHECK(s, peer_blocks_path_mtu(c, &t, 2, now) == IPV4_BYTES_MAX);
	CHECK(s, peer_blocks_path_mtu(c, &t, 1, later + UINT64_C(1000000000)) == IPV4_BYTES_MAX);
	/* A thread with the table before the change neither finds nor writes anything under the number. */
	const struct route_table u = table_of(next, 2, (uint32_t[]){ 7, 9 }, 2);
	peer_blocks_fit(c, &u);
	peer_blocks_learn_path_mtu(c, &t, 1, 1300, now);
	CHECK(s, peer_blocks_path_mtu(c, &t, 1, now) == IPV4_BYTES_MAX);
	CHECK(s, peer_blocks_path_mtu(c, &u, 1, now) == IPV4_BYTES_MAX);
	peer_blocks_learn_path_mtu(c, &u, 5, 1300, now);
	CHECK(s, peer_blocks_path_mtu(c, &u, 5, now) == IPV4_BYTES_MAX);
	free(slot);
	free(next);
	fixture_counters_free(c);
}

int main(void)
{
	struct suite s = { .name = "peer-blocks", .random = 4 };

	changes_hands(&s);
	survives_damage(&s);
	several_threads(&s);
	path_mtu(&s);
	return suite_end(&s);
}
