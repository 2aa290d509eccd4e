/* control.c: when a thread adopts, refuses or gives up a table, and what the control words do. */
#include "control.h"
#include "fixture.h"
#include "test.h"

struct bench {
	struct routes_file *file;
	struct counters_file *counters;
	struct thread_block *block;
	struct worker *w;
};

static struct bench bench_open(void)
{
	struct bench b = { .file = calloc(1, sizeof *b.file), .w = calloc(1, sizeof *b.w) };

	b.counters = fixture_counters();
	b.block = &b.counters->thread[0];
	b.w->file = b.file;
	b.w->counters = b.counters;
	b.w->block = b.block;
	b.file->mtu = MTU;
	b.file->forward_until = UINT64_MAX;
	return b;
}

static void bench_close(struct bench *b)
{
	free(b->file);
	fixture_counters_free(b->counters);
	free(b->w);
}

static void publish(struct bench *b, uint32_t generation, uint32_t count)
{
	fixture_pack(&b->file->slot[generation % 2], generation, fixture_routes, count);
	atomic_store(&b->file->generation, generation);
}

/* Fault N2: a poll of the worker by another thread answers nothing. */
static void question(struct suite *s)
{
	struct bench b = bench_open();

	atomic_store(&b.file->asked, 7);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && atomic_load(&b.block->answered) == 0);
	control_answer(b.w);
	CHECK(s, atomic_load(&b.block->answered) == 7);
	bench_close(&b);
}

static void control_words(struct suite *s)
{
	struct bench b = bench_open();

	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.gate == GATE_OPEN && b.w->self.mtu == MTU);
	CHECK(s, b.w->now_ns > 0);
	atomic_store(&b.file->forward_until, b.w->now_ns - 1);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.gate == GATE_ORPHANED);
	atomic_store(&b.file->fence, 1);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.gate == GATE_FENCED);
	atomic_store(&b.file->fence, 0);
	atomic_store(&b.file->forward_until, b.w->now_ns + UINT64_C(3600000000000));
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.gate == GATE_OPEN);
	atomic_store(&b.file->mtu, 0);
	CHECK(s, control_poll(b.w) == CONTROL_PAUSED);
	atomic_store(&b.file->mtu, 0xffffffff);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.mtu == 65535);
	CHECK(s, b.w->self.longest_received == 65535);
	/* fault N20: what the underlay carries is received, whatever the MTU of the tunnel. */
	atomic_store(&b.file->mtu, 1464);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.longest_received == 1464);
	atomic_store(&b.file->underlay_mtu, 1500);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.longest_received == 1472);
	atomic_store(&b.file->underlay_mtu, 1400);
	CHECK(s, control_poll(b.w) == CONTROL_FORWARD && b.w->self.longest_received == 1464);
	atomic_store(&b.file->drain, 1);
	CHECK(s, control_poll(b.w) == CONTROL_STOP);
	bench_close(&b);
}

static void adoption(struct suite *s)
{
	struct bench b = bench_open();

	control_poll(b.w);
	CHECK(s, b.w->routes.slot == NULL && b.block->generation == 0);
	publish(&b, 1, 1);
	control_poll(b.w);
	CHECK(s, b.w->routes.route_count == 1 && b.block->generation == 1);
	CHECK(s, b.counters->peer[0].identity[0] == 1 && b.counters->peer[1].identity[0] == 0);
	publish(&b, 2, 2);
	CHECK(s, b.block->generation == 1 && route_table_find(&b.w->routes, ADDRESS(10, 5, 3, 1)) == NULL);
	control_poll(b.w);
	CHECK(s, b.w->routes.route_count == 2 && b.block->generation == 2 && b.counters->peer[1].identity[0] == 2);
	CHECK(s, route_table_find(&b.w->routes, ADDRESS(10, 5, 3, 1)) != NULL);
	/* An empty table is adopted like any other. */
	publish(&b, 3, 0);
	control_poll(b.w);
	CHECK(s, b.block->generation == 3 && route_table_find(&b.w->routes, ADDRESS(10, 5, 3, 1)) == NULL);
	CHECK(s, b.block->counters[table_refused] == 0);
	bench_close(&b);
}

/* A bad publication does not touch the other slot. Its table stays in use, and no generation is reported. */
static void refusal_keeps_the_old_table(struct suite *s)
{
	struct bench b = bench_open();

	publish(&b, 1, 1);
	control_poll(b.w);
	publish(&b, 2, 2);
	b.file->slot[0].peers[0].endpoint4 ^= 1;
	for (int i = 0; i < 5; i++)
		control_poll(b.w);
	CHECK(s, b.block->counters[table_refused] == 1 && b.block->generation == 1);
	CHECK(s, b.w->routes.route_count == 1 && route_table_find(&b.w->routes, ADDRESS(10, 5, 2, 1)) != NULL);
	/* The repaired table is adopted when it is verified again. */
	b.file->slot[0].peers[0].endpoint4 ^= 1;
	b.w->retry_at_ns = 0;
	control_poll(b.w);
	CHECK(s, b.block->generation == 2 && b.w->routes.route_count == 2 && b.block->counters[table_refused] == 1);
	bench_close(&b);
}

/* After a bad publication into the slot in use there is no table. */
static void refusal_of_the_slot_in_use(struct suite *s)
{
	struct bench b = bench_open();

	publish(&b, 1, 2);
	control_poll(b.w);
	publish(&b, 3, 1);
	b.file->slot[1].head.checksum ^= 1;
	control_poll(b.w);
	CHECK(s, b.w->routes.slot == NULL && b.block->generation == 1 && b.block->counters[table_refused] == 1);
	CHECK(s, route_table_find(&b.w->routes, ADDRESS(10, 5, 2, 1)) == NULL);
	publish(&b, 4, 2);
	control_poll(b.w);
	CHECK(s, b.w->routes.route_count == 2 && b.block->generation == 4);
	bench_close(&b);
}

int main(void)
{
	struct suite s = { .name = "control", .random = 8 };

	question(&s);
	control_words(&s);
	adoption(&s);
	refusal_keeps_the_old_table(&s);
	refusal_of_the_slot_in_use(&s);
	return suite_end(&s);
}
