/*
 * The contract between publisher and threads: one publisher rewrites slots by the rule while several threads adopt
 * tables and look up. Every endpoint of a table contains its generation, so that a torn table is seen. TSan sees other
 * races.
 */
#include "fixture.h"
#include "test.h"
#include "control.h"
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define READERS 3
#define GENERATIONS 400
#define ROUTES 64

struct reader {
	pthread_t thread;
	struct worker worker;
	unsigned long lookups;
	unsigned long torn;
};

static uint32_t endpoint_of(uint32_t generation)
{
	return ADDRESS(192, 0, 0, 0) + generation;
}

static void *read_routes(void *argument)
{
	struct reader *r = argument;
	struct worker *w = &r->worker;

	while (control_poll(w) != CONTROL_STOP) {
		for (uint32_t i = 0; i < ROUTES && w->routes.slot != NULL; i++) {
			const struct route *found = route_table_find(&w->routes, ADDRESS(10, 5, i, 9));
			r->lookups++;
			if (found == NULL ||
			    route_table_peer(&w->routes, found)->endpoint4 != endpoint_of(w->routes.generation) ||
			    route_table_by_endpoint(&w->routes, endpoint_of(w->routes.generation)) == NULL)
				r->torn++;
		}
	}
	return NULL;
}

static bool all_adopted(struct counters_file *c, uint32_t generation)
{
	for (int i = 0; i < READERS; i++)
		if (atomic_load_explicit(&c->thread[i].generation, memory_order_acquire) != generation)
			return false;
	return true;
}

static void publish(struct routes_file *f, uint32_t generation)
{
	struct fixture_route routes[ROUTES];

	for (uint32_t i = 0; i < ROUTES; i++)
		routes[i] = (struct fixture_route){ .network = ADDRESS(10, 5, i, 0), .length = 24, .port = PORT,
					    .endpoint = endpoint_of(generation) };
	fixture_pack(&f->slot[generation % 2], generation, routes, ROUTES);
	atomic_store_explicit(&f->generation, generation, memory_order_release);
}

int main(void)
{
	struct suite s = { .name = "threads", .random = 9 };
	struct routes_file *f = calloc(1, sizeof *f);
	struct counters_file *c = fixture_counters();
	struct reader *readers = calloc(READERS, sizeof *readers);

	atomic_store(&f->mtu, MTU);
	atomic_store(&f->forward_until, UINT64_MAX);
	for (int i = 0; i < READERS; i++) {
		readers[i].worker.file = f;
		readers[i].worker.counters = c;
		readers[i].worker.block = &c->thread[i];
		pthread_create(&readers[i].thread, NULL, read_routes, &readers[i]);
	}
	for (uint32_t generation = 1; generation <= GENERATIONS; generation++) {
		publish(f, generation);
		while (!all_adopted(c, generation))
			sched_yield();
	}
	atomic_store(&f->drain, 1);
	for (int i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		CHECK(&s, readers[i].lookups > 0 && readers[i].torn == 0);
		CHECK(&s, c->thread[i].counters[table_refused] == 0 && c->thread[i].generation == GENERATIONS);
	}
	free(readers);
	fixture_counters_free(c);
	free(f);
	return suite_end(&s);
}
