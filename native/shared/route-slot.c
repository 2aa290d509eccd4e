/* See route-slot.h, and layout.h for the form of a slot. */
#include "route-slot.h"
#include <string.h>

/* An IPv4 address lies in the high bits, so that both families are compared and masked alike. */
typedef unsigned __int128 wide;

/* What the routes so far mean for the next one. */
struct order {
	uint32_t family;
	uint32_t count; /* routes of this family */
	wide last;      /* the last address of the route before, if there is one of this family */
};

static wide wide_of(const uint32_t word[4])
{
	return (wide)word[0] << 96 | (wide)word[1] << 64 | (wide)word[2] << 32 | word[3];
}

static wide host_bits(uint32_t length)
{
	return length >= 128 ? 0 : ~(wide)0 >> length;
}

static const char *prefix_fault(const uint32_t *row)
{
	const uint32_t family = row[ROUTE_FAMILY], length = row[ROUTE_LENGTH];

	if (family != FAMILY_IPV4 && family != FAMILY_IPV6)
		return "the address family is not 4 or 6";
	if (family == FAMILY_IPV4 && (length < 1 || length > 32))
		return "the prefix length is not 1 to 32";
	if (length < 1 || length > 128)
		return "the prefix length is not 1 to 128";
	return (wide_of(row + ROUTE_ADDRESS) & host_bits(length)) != 0 ? "host bits are set" : NULL;
}

static const char *hop_fault(const struct table_rows *rows, const uint32_t *row)
{
	const uint32_t number = row[ROUTE_PEER];

	if (number >= rows->peer_count)
		return "there is no peer of its number";
	const uint32_t *peer = &rows->peers[PEER_ROW * (size_t)number];
	if (peer_is_free(peer + PEER_IDENTITY))
		return "there is no peer of its number";
	/* Bare IPv4 packets go to IPv4 endpoints only. */
	if (peer[PEER_ENDPOINT4] == 0 && (row[ROUTE_FAMILY] == FAMILY_IPV4 || peer_is_free(peer + PEER_ENDPOINT6)))
		return "the hop is 0.0.0.0";
	const uint32_t port = peer[PEER_ENDPOINT4] != 0 ? peer[PEER_PORT4] : peer[PEER_PORT6];
	return port == 0 || port > UINT16_MAX ? "the port is not 1 to 65535" : NULL;
}

static const char *order_fault(const uint32_t *row, struct order *before)
{
	const wide first = wide_of(row + ROUTE_ADDRESS);

	if (row[ROUTE_FAMILY] != before->family) {
		if (row[ROUTE_FAMILY] < before->family)
			return "it is not sorted: IPv4 comes first";
		*before = (struct order){ .family = row[ROUTE_FAMILY] };
	}
	if (before->count == FAMILY_ROUTES_MAX)
		return "more than 65536 routes";
	if (before->count > 0 && first <= before->last)
		return "it is not sorted or overlaps the route before it";
	before->count++;
	before->last = first | host_bits(row[ROUTE_LENGTH]);
	return NULL;
}

static const char *peer_fault(const uint32_t *row)
{
	const bool has_endpoint6 = !peer_is_free(row + PEER_ENDPOINT6);

	if (peer_is_free(row + PEER_IDENTITY)) {
		for (size_t i = 0; i < PEER_ROW; i++)
			if (row[i] != 0)
				return "it has no identity";
		return NULL;
	}
	if (row[PEER_ENDPOINT4] == 0 && !has_endpoint6)
		return "it has no endpoint";
	if (row[PEER_PORT4] > UINT16_MAX || row[PEER_PORT6] > UINT16_MAX ||
	    (row[PEER_ENDPOINT4] != 0) != (row[PEER_PORT4] != 0) || has_endpoint6 != (row[PEER_PORT6] != 0))
		return "a port is not 1 to 65535 beside an endpoint and 0 without";
	return row[PEER_POLICY] > UINT8_MAX || row[PEER_ENGINE] > UINT8_MAX ? "policy or engine is above 255" : NULL;
}

/* Routes come first: what they say of their peer names the prefix that an operator knows. */
bool route_slot_check(const struct table_rows *rows, struct route_slot_fault *fault)
{
	struct order before = { .family = FAMILY_IPV4 };

	*fault = (struct route_slot_fault){ .is_peer = true, .number = PEERS_MAX, .why = "more than 65536 peers" };
	if (rows->peer_count > PEERS_MAX)
		return false;
	for (uint32_t i = 0; i < rows->route_count; i++) {
		const uint32_t *row = &rows->routes[ROUTE_ROW * (size_t)i];
		*fault = (struct route_slot_fault){ .number = i, .why = prefix_fault(row) };
		fault->why = fault->why ? fault->why : hop_fault(rows, row);
		fault->why = fault->why ? fault->why : order_fault(row, &before);
		if (fault->why)
			return false;
	}
	for (uint32_t i = 0; i < rows->peer_count; i++) {
		const char *why = peer_fault(&rows->peers[PEER_ROW * (size_t)i]);
		*fault = (struct route_slot_fault){ .is_peer = true, .number = i, .why = why };
		if (why)
			return false;
	}
	return true;
}

static uint32_t index_size(uint32_t count)
{
	uint32_t size = 2;
	while (size < 2 * count)
		size *= 2;
	return size;
}

struct route_slot_head route_slot_measure(const struct table_rows *rows, uint32_t generation)
{
	return (struct route_slot_head){
		.generation = generation,
		.route_count = rows->route_count,
		.peer_count = rows->peer_count,
		.by_prefix_size = index_size(rows->route_count),
		.by_endpoint_size = index_size(rows->peer_count),
	};
}

void route_slot_parts(const struct route_slot_head *head, struct route_slot_part parts[ROUTE_SLOT_PARTS])
{
	const size_t index_entry = sizeof(uint32_t);

	parts[0] = (struct route_slot_part){
		0, offsetof(struct route_slot, routes) + head->route_count * sizeof(struct route) };
	parts[1] = (struct route_slot_part){
		offsetof(struct route_slot, peers), head->peer_count * sizeof(struct peer) };
	parts[2] = (struct route_slot_part){
		offsetof(struct route_slot, by_prefix), head->by_prefix_size * index_entry };
	parts[3] = (struct route_slot_part){
		offsetof(struct route_slot, by_endpoint), head->by_endpoint_size * index_entry };
}

/* Returns the first free entry after the key's place. */
static uint32_t *free_entry(uint32_t *index, uint32_t size, uint32_t hash)
{
	uint32_t at = hash & (size - 1);
	while (index[at] != 0)
		at = (at + 1) & (size - 1);
	return &index[at];
}

/* The index keeps the first peer of each endpoint. */
static void index_endpoint(struct route_slot *slot, uint32_t size, uint32_t number)
{
	const uint32_t endpoint = slot->peers[number].endpoint4;
	uint32_t at = index_hash(endpoint) & (size - 1);

	for (; slot->by_endpoint[at] != 0; at = (at + 1) & (size - 1))
		if (slot->peers[slot->by_endpoint[at] - 1].endpoint4 == endpoint)
			return;
	slot->by_endpoint[at] = number + 1;
}

static void pack_peer(struct route_slot *slot, uint32_t size, uint32_t number, const uint32_t *row)
{
	struct peer *p = &slot->peers[number];

	*p = (struct peer){
		.endpoint4 = row[PEER_ENDPOINT4],
		.port4 = (uint16_t)row[PEER_PORT4],
		.port6 = (uint16_t)row[PEER_PORT6],
		.features = row[PEER_FEATURES],
		.policy = (uint8_t)row[PEER_POLICY],
		.engine = (uint8_t)row[PEER_ENGINE],
	};
	memcpy(p->identity, row + PEER_IDENTITY, sizeof p->identity);
	memcpy(p->endpoint6, row + PEER_ENDPOINT6, sizeof p->endpoint6);
	memcpy(p->pair, row + PEER_PAIR, sizeof p->pair);
	if (p->endpoint4 != 0)
		index_endpoint(slot, size, number);
}

static void pack_route(struct route_slot *slot, uint32_t size, uint32_t number, const uint32_t *row)
{
	struct route *r = &slot->routes[number];
	const uint32_t length = row[ROUTE_LENGTH];

	*r = (struct route){
		.peer = row[ROUTE_PEER],
		.length = (uint8_t)length,
		.family = (uint8_t)row[ROUTE_FAMILY],
	};
	memcpy(r->address, row + ROUTE_ADDRESS, sizeof r->address);
	if (r->family == FAMILY_IPV4)
		slot->head.lengths4 |= UINT64_C(1) << length;
	else
		slot->head.lengths6[length / 64] |= UINT64_C(1) << length % 64;
	const uint32_t hash = r->family == FAMILY_IPV4 ? index_hash(r->address[0]) : index_hash6(r->address);
	*free_entry(slot->by_prefix, size, hash) = number + 1;
}

void route_slot_pack(struct route_slot *slot, uint32_t generation, const struct table_rows *rows)
{
	const struct route_slot_head head = route_slot_measure(rows, generation);

	slot->head = head;
	memset(slot->by_prefix, 0, head.by_prefix_size * sizeof slot->by_prefix[0]);
	memset(slot->by_endpoint, 0, head.by_endpoint_size * sizeof slot->by_endpoint[0]);
	for (uint32_t i = 0; i < rows->peer_count; i++)
		pack_peer(slot, head.by_endpoint_size, i, &rows->peers[PEER_ROW * (size_t)i]);
	for (uint32_t i = 0; i < rows->route_count; i++)
		pack_route(slot, head.by_prefix_size, i, &rows->routes[ROUTE_ROW * (size_t)i]);
	slot->head.checksum = route_slot_checksum(&slot->head, slot);
}

static uint64_t add_word(uint64_t h, const uint8_t *p)
{
	uint64_t w;
	memcpy(&w, p, sizeof w);
	h = (h ^ w) * 0x100000001b3u;
	return h ^ h >> 29;
}

/*
 * FNV-1a over 64-bit words, in four lanes that the processor computes side by side: a full slot has seven megabytes.
 * All parts of a slot are multiples of 8 bytes.
 */
static void add_words(uint64_t lane[4], const void *data, size_t bytes)
{
	uint64_t a = lane[0], b = lane[1], c = lane[2], d = lane[3];
	const uint8_t *p = data, *end = p + bytes;

	for (; end - p >= 32; p += 32) {
		a = add_word(a, p);
		b = add_word(b, p + 8);
		c = add_word(c, p + 16);
		d = add_word(d, p + 24);
	}
	for (; p < end; p += 8)
		a = add_word(a, p);
	lane[0] = a;
	lane[1] = b;
	lane[2] = c;
	lane[3] = d;
}

uint64_t route_slot_checksum(const struct route_slot_head *head, const struct route_slot *slot)
{
	uint64_t lane[4] = { UINT64_C(0xcbf29ce484222325), 1, 2, 3 };
	struct route_slot_part part[ROUTE_SLOT_PARTS];
	const size_t head_bytes = sizeof *head;

	route_slot_parts(head, part);
	add_words(lane, head, offsetof(struct route_slot_head, checksum));
	add_words(lane, (const uint8_t *)slot + head_bytes, part[0].bytes - head_bytes);
	for (size_t i = 1; i < ROUTE_SLOT_PARTS; i++)
		add_words(lane, (const uint8_t *)slot + part[i].at, part[i].bytes);
	for (size_t i = 1; i < 4; i++)
		lane[0] = add_word(lane[0], (const uint8_t *)&lane[i]);
	return lane[0];
}

static bool index_is_sound(uint32_t size, uint32_t count)
{
	return size >= 2 && size <= INDEX_MAX && (size & (size - 1)) == 0 && size >= 2 * count;
}

static bool head_is_sound(const struct route_slot_head *head)
{
	if (head->route_count > ROUTES_MAX || !index_is_sound(head->by_prefix_size, head->route_count))
		return false;
	if (head->peer_count > PEERS_MAX || !index_is_sound(head->by_endpoint_size, head->peer_count))
		return false;
	if (head->route_count > 0 && head->peer_count == 0)
		return false;
	/* Bits 1 to 32, and 1 to 128. Bit 0 would be a default route. */
	return (head->lengths4 & ~UINT64_C(0x1fffffffe)) == 0 && (head->lengths6[0] & 1) == 0 && head->lengths6[2] <= 1;
}

/* The head is copied before it is checked: a count that grows after its check would lead out of the slot. */
bool route_slot_verify(const struct route_slot *slot, uint32_t generation, struct route_slot_head *head)
{
	memcpy(head, &slot->head, sizeof *head);
	return head->generation == generation && head_is_sound(head) &&
	       route_slot_checksum(head, slot) == head->checksum;
}
