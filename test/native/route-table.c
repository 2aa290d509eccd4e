/* route-table.c: verification, look-up against a linear search, and memory that is damaged after verification. */
#include "fixture.h"
#include "test.h"

static const struct route *naive_find(const struct route *routes, uint32_t count, uint32_t address)
{
	for (uint32_t i = 0; i < count; i++)
		if ((address & ipv4_mask(routes[i].length)) == routes[i].network)
			return &routes[i];
	return NULL;
}

static bool naive_has_endpoint(const struct route *routes, uint32_t count, uint32_t endpoint)
{
	for (uint32_t i = 0; i < count; i++)
		if (routes[i].endpoint == endpoint)
			return true;
	return false;
}

/* Makes sorted, disjoint routes of mixed lengths. Returns how many fit into the address space. */
static uint32_t random_routes(struct suite *s, struct route *routes, uint32_t count, uint32_t endpoints)
{
	uint64_t at = ADDRESS(10, 0, 0, 0);

	for (uint32_t i = 0; i < count; i++) {
		uint8_t length = (uint8_t)(20 + suite_below(s, 13));
		uint64_t size = UINT64_C(1) << (32 - length);
		at = (at + suite_below(s, 3) * size + size - 1) / size * size;
		if (at + size > UINT64_C(0xe0000000))
			return i;
		routes[i] = (struct route){ .network = (uint32_t)at, .length = length, .port = PORT,
					    .endpoint = ADDRESS(192, 0, 0, 0) + suite_below(s, endpoints) };
		at += size;
	}
	return count;
}

static void equals_twin(struct suite *s, uint32_t wanted, int queries)
{
	struct route *routes = calloc(wanted + 1, sizeof *routes);
	struct route_slot *slot = calloc(1, sizeof *slot);
	struct route_table t = { 0 };
	uint32_t count = random_routes(s, routes, wanted, wanted + 1);

	fixture_pack(slot, 7, routes, count);
	CHECK(s, route_table_open(&t, slot, 7));
	for (int i = 0; i < queries; i++) {
		uint32_t address = suite_random(s);
		if (count > 0 && i % 2 == 0)
			address = routes[suite_below(s, count)].network + suite_below(s, 16) - 4;
		const struct route *expected = naive_find(routes, count, address);
		const struct route *found = route_table_find(&t, address);
		CHECK(s, (expected == NULL) == (found == NULL));
		CHECK(s, expected == NULL || found == NULL || memcmp(expected, found, sizeof *found) == 0);
		uint32_t endpoint = ADDRESS(192, 0, 0, 0) + suite_below(s, wanted + 4);
		const struct route *by_endpoint = route_table_by_endpoint(&t, endpoint);
		CHECK(s, (by_endpoint != NULL) == naive_has_endpoint(routes, count, endpoint) &&
				 (by_endpoint == NULL || by_endpoint->endpoint == endpoint));
	}
	free(slot);
	free(routes);
}

static void extremes(struct suite *s)
{
	struct route_slot *slot = calloc(1, sizeof *slot);
	const struct route routes[] = {
		{ .network = 0, .length = 1, .port = 1, .endpoint = 5 },
		{ .network = 0xffffffff, .length = 32, .port = 1, .endpoint = 0xffffffff },
	};
	struct route_table t = { 0 };

	CHECK(s, route_table_find(&t, 1) == NULL && route_table_by_endpoint(&t, 1) == NULL);
	fixture_pack(slot, 2, routes, 2);
	CHECK(s, route_table_open(&t, slot, 2));
	CHECK(s, route_table_find(&t, 0x7fffffff) == &slot->routes[0]);
	CHECK(s, route_table_find(&t, 0x80000000) == NULL);
	CHECK(s, route_table_find(&t, 0xffffffff) == &slot->routes[1]);
	CHECK(s, route_table_by_endpoint(&t, 0xffffffff) == &slot->routes[1]);
	CHECK(s, route_table_by_endpoint(&t, 6) == NULL);
	free(slot);
}

/* Each change makes the slot unacceptable, and the table from before stays. */
static void refuses_damage(struct suite *s)
{
	struct route_table t = { 0 };
	struct route_slot *slot = fixture_open(&t);
	uint32_t *words[] = { &slot->generation, &slot->count, &slot->index_size, &slot->reserved, &slot->routes[1].endpoint,
			      &slot->by_network[3], &slot->by_endpoint[0] };

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		uint32_t before = *words[i];
		*words[i] = before + 1;
		CHECK(s, !route_table_open(&t, slot, 1));
		*words[i] = before;
		CHECK(s, route_table_open(&t, slot, 1));
	}
	CHECK(s, !route_table_open(&t, slot, 2) && t.generation == 1);
	free(slot);
}

/* A head that leads out of the slot is refused before anything behind it is read, even if its checksum is right. */
static void refuses_bounds(struct suite *s)
{
	const struct { uint32_t count, index_size; uint64_t lengths; } heads[] = {
		{ ROUTES_MAX + 1, INDEX_MAX, 1 << 24 }, { 0xffffffff, INDEX_MAX, 1 << 24 }, { 2, 0, 1 << 24 },
		{ 2, 1, 1 << 24 },  { 0, 1, 0 },        { 2, 3, 1 << 24 },   { 2, 2 * INDEX_MAX, 1 << 24 },
		{ 2, 0x80000000, 1 << 24 },             { 3, 4, 1 << 24 },   { 0x80000001, 2, 1 << 24 },
		{ 2, 4, 1 },        { 2, 4, UINT64_C(1) << 33 },
	};
	struct route_slot *slot = calloc(1, sizeof *slot);

	for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
		struct route_table t = { 0 };
		slot->generation = 1;
		slot->count = heads[i].count;
		slot->index_size = heads[i].index_size;
		slot->lengths = heads[i].lengths;
		if (slot->count <= ROUTES_MAX && slot->index_size <= INDEX_MAX)
			slot->checksum = fixture_checksum(slot);
		CHECK(s, !route_table_open(&t, slot, 1) && t.slot == NULL);
	}
	free(slot);
}

/* The memory turns to noise after verification. A look-up may find a wrong route, but it ends inside the slot. */
static void survives_damage(struct suite *s)
{
	struct route_table t = { 0 };
	struct route_slot *slot = fixture_open(&t);
	const struct route *end = slot->routes + t.count;

	for (int round = 0; round < 20000; round++) {
		for (uint32_t i = 0; i <= t.index_mask; i++) {
			slot->by_network[i] = round % 3 == 0 ? 1 + suite_below(s, t.count) : suite_random(s);
			slot->by_endpoint[i] = round % 3 == 0 ? 1 + suite_below(s, t.count) : suite_random(s);
		}
		slot->count = suite_random(s);
		slot->index_size = suite_random(s);
		slot->lengths = suite_random(s);
		const struct route *found = route_table_find(&t, ADDRESS(10, 5, 2, 9));
		const struct route *by_endpoint = route_table_by_endpoint(&t, suite_random(s));
		CHECK(s, (found == NULL || (found >= slot->routes && found < end)) &&
				 (by_endpoint == NULL || (by_endpoint >= slot->routes && by_endpoint < end)));
	}
	free(slot);
}

int main(void)
{
	struct suite s = { .name = "route-table", .random = 2 };

	equals_twin(&s, 0, 100);
	equals_twin(&s, 1, 1000);
	for (int i = 0; i < 20; i++)
		equals_twin(&s, 1 + suite_below(&s, 300), 1000);
	equals_twin(&s, ROUTES_MAX, 2000);
	extremes(&s);
	refuses_damage(&s);
	refuses_bounds(&s);
	survives_damage(&s);
	return suite_end(&s);
}
