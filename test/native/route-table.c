/* route-table.c: verification, look-up against a linear search, and memory that is damaged after verification. */
#include "fixture.h"
#include "test.h"

static const struct fixture_route *naive_find(const struct fixture_route *routes, uint32_t count, uint32_t address)
{
	for (uint32_t i = 0; i < count; i++)
		if ((address & ipv4_mask(routes[i].length)) == routes[i].network)
			return &routes[i];
	return NULL;
}

static bool naive_has_endpoint(const struct fixture_route *routes, uint32_t count, uint32_t endpoint)
{
	for (uint32_t i = 0; i < count; i++)
		if (routes[i].endpoint == endpoint)
			return true;
	return false;
}

/* Makes sorted, disjoint routes of mixed lengths. Returns how many fit into the address space. */
static uint32_t random_routes(struct suite *s, struct fixture_route *routes, uint32_t count, uint32_t endpoints)
{
	uint64_t at = ADDRESS(10, 0, 0, 0);

	for (uint32_t i = 0; i < count; i++) {
		uint8_t length = (uint8_t)(20 + suite_below(s, 13));
		uint64_t size = UINT64_C(1) << (32 - length);
		at = (at + suite_below(s, 3) * size + size - 1) / size * size;
		if (at + size > UINT64_C(0xe0000000))
			return i;
		routes[i] = (struct fixture_route){ .network = (uint32_t)at, .length = length, .port = PORT,
					    .endpoint = ADDRESS(192, 0, 0, 0) + suite_below(s, endpoints) };
		at += size;
	}
	return count;
}

static bool is_route(const struct route_table *t, const struct route *found, const struct fixture_route *expected)
{
	if (found == NULL || expected == NULL)
		return found == NULL && expected == NULL;
	const struct peer *peer = route_table_peer(t, found);
	return found->address[0] == expected->network && found->length == expected->length &&
	       found->family == FAMILY_IPV4 && peer->endpoint4 == expected->endpoint && peer->port4 == expected->port;
}

static void equals_twin(struct suite *s, uint32_t wanted, int queries)
{
	struct fixture_route *routes = calloc(wanted + 1, sizeof *routes);
	struct route_slot *slot = calloc(1, sizeof *slot);
	struct route_table t = { 0 };
	uint32_t count = random_routes(s, routes, wanted, wanted + 1);

	fixture_pack(slot, 7, routes, count);
	CHECK(s, route_table_open(&t, slot, 7));
	for (int i = 0; i < queries; i++) {
		uint32_t address = suite_random(s);
		if (count > 0 && i % 2 == 0)
			address = routes[suite_below(s, count)].network + suite_below(s, 16) - 4;
		CHECK(s, is_route(&t, route_table_find(&t, address), naive_find(routes, count, address)));
		uint32_t endpoint = ADDRESS(192, 0, 0, 0) + suite_below(s, wanted + 4);
		const struct peer *by_endpoint = route_table_by_endpoint(&t, endpoint);
		CHECK(s, (by_endpoint != NULL) == naive_has_endpoint(routes, count, endpoint) &&
				 (by_endpoint == NULL || by_endpoint->endpoint4 == endpoint));
	}
	free(slot);
	free(routes);
}

static void extremes(struct suite *s)
{
	struct route_slot *slot = calloc(1, sizeof *slot);
	const struct fixture_route routes[] = {
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
	CHECK(s, route_table_by_endpoint(&t, 0xffffffff) == &slot->peers[1]);
	CHECK(s, route_table_peer(&t, &slot->routes[1]) == &slot->peers[1]);
	CHECK(s, route_table_by_endpoint(&t, 6) == NULL);
	free(slot);
}

/* Each change makes the slot unacceptable, and the table from before stays. */
static void refuses_damage(struct suite *s)
{
	struct route_table t = { 0 };
	struct route_slot *slot = fixture_open(&t);
	struct route_slot_head *h = &slot->head;
	uint32_t *words[] = {
		&h->generation, &h->route_count, &h->peer_count, &h->by_prefix_size, &h->by_endpoint_size, &h->reserved,
		(uint32_t *)&h->lengths6[1], &slot->routes[1].address[0], &slot->routes[1].peer,
		&slot->peers[1].endpoint4, &slot->peers[1].identity[3], &slot->by_prefix[3], &slot->by_endpoint[0],
	};

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

/* Whether a slot with this head and the checksum that fits it is accepted. */
static bool opens_with(struct route_slot *slot, struct route_slot_head head)
{
	struct route_table t = { 0 };

	slot->head = head;
	if (head.route_count <= ROUTES_MAX && head.by_prefix_size <= INDEX_MAX && head.peer_count <= PEERS_MAX &&
	    head.by_endpoint_size <= INDEX_MAX)
		slot->head.checksum = fixture_checksum(slot);
	return route_table_open(&t, slot, 1);
}

/* A head that leads out of the slot is refused before anything behind it is read, even if its checksum is right. */
static void refuses_bounds(struct suite *s)
{
	const struct { uint32_t count, index_size; } bounds[] = {
		{ 0xffffffff, INDEX_MAX }, { 2, 0 },          { 2, 1 }, { 0, 1 },          { 2, 3 },
		{ 2, 2 * INDEX_MAX },      { 2, 0x80000000 }, { 3, 4 }, { 0x80000001, 2 }, { PEERS_MAX + 1, 4 },
	};
	const struct { uint64_t lengths4, lengths6[3]; } lengths[] = {
		{ .lengths4 = 1 }, { .lengths4 = UINT64_C(1) << 33 },
		{ .lengths6 = { 1 } }, { .lengths6 = { [2] = 2 } },
	};
	struct route_slot *slot = calloc(1, sizeof *slot);
	const struct route_slot_head sound = { .generation = 1, .route_count = 2, .peer_count = 2, .by_prefix_size = 4,
					       .by_endpoint_size = 4, .lengths4 = 1 << 24, .lengths6 = { 2, 0, 1 } };
	struct route_slot_head head = sound;

	CHECK(s, opens_with(slot, head));
	for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
		head = sound;
		head.route_count = bounds[i].count;
		head.by_prefix_size = bounds[i].index_size;
		CHECK(s, !opens_with(slot, head));
		head = sound;
		head.peer_count = bounds[i].count;
		head.by_endpoint_size = bounds[i].index_size;
		CHECK(s, !opens_with(slot, head));
	}
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		head = sound;
		head.lengths4 = lengths[i].lengths4;
		memcpy(head.lengths6, lengths[i].lengths6, sizeof head.lengths6);
		CHECK(s, !opens_with(slot, head));
	}
	head = sound;
	head.route_count = ROUTES_MAX + 1;
	head.by_prefix_size = INDEX_MAX;
	CHECK(s, !opens_with(slot, head));
	/* Routes without peers would lead to peer 0. */
	head = sound;
	head.peer_count = 0;
	CHECK(s, !opens_with(slot, head));
	free(slot);
}

/* The memory turns to noise after verification. A look-up may find a wrong route, but it ends inside the slot. */
static void survives_damage(struct suite *s)
{
	struct route_table t = { 0 };
	struct route_slot *slot = fixture_open(&t);
	const struct route *end = slot->routes + t.route_count;
	const struct peer *peers_end = slot->peers + t.peer_count;

	for (int round = 0; round < 20000; round++) {
		for (uint32_t i = 0; i <= t.by_prefix_mask; i++)
			slot->by_prefix[i] = round % 3 == 0 ? 1 + suite_below(s, t.route_count) : suite_random(s);
		for (uint32_t i = 0; i <= t.by_endpoint_mask; i++)
			slot->by_endpoint[i] = round % 3 == 0 ? 1 + suite_below(s, t.peer_count) : suite_random(s);
		slot->routes[0].peer = suite_random(s);
		slot->head = (struct route_slot_head){ .route_count = suite_random(s), .peer_count = suite_random(s),
						       .by_prefix_size = suite_random(s), .lengths4 = suite_random(s) };
		const struct route *found = route_table_find(&t, ADDRESS(10, 5, 2, 9));
		const struct peer *by_endpoint = route_table_by_endpoint(&t, suite_random(s));
		CHECK(s, found == NULL || (found >= slot->routes && found < end));
		CHECK(s, found == NULL || (route_table_peer(&t, found) >= slot->peers &&
					   route_table_peer(&t, found) < peers_end));
		CHECK(s, by_endpoint == NULL || (by_endpoint >= slot->peers && by_endpoint < peers_end));
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
	equals_twin(&s, FAMILY_ROUTES_MAX, 2000);
	extremes(&s);
	refuses_damage(&s);
	refuses_bounds(&s);
	survives_damage(&s);
	return suite_end(&s);
}
