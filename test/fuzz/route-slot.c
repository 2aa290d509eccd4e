/*
 * Fuzz target: a table from the rows that tartand publishes to the look-up. route_slot_check() takes what the rules
 * allow when every pair of routes is compared; the look-up finds what reading all routes one after another finds; every
 * IPv6 route is in the index; a packed slot with one bit changed is refused.
 *
 * The input begins with three bytes for each of PEERS peers: what it has, its endpoint, its port. A route is eight
 * bytes: family and peer, length, six bytes of the address.
 */
#include "fixture.h"
#include "target.h"

#define PEERS 8u
#define PEER_BYTES 3u
#define RECORD_BYTES 8u
#define COUNT_MAX 200u

struct peer_numbers {
	uint32_t identity[4], endpoint6[4], endpoint4, port4, port6, features, policy, engine, pair[4];
};

struct route_numbers {
	uint32_t address[4], length, family, peer;
};

_Static_assert(sizeof(struct peer_numbers) == 4 * PEER_ROW && sizeof(struct route_numbers) == 4 * ROUTE_ROW, "rows");

/* The first and the last address of a route as bytes in network order, those of an IPv4 address first. */
struct range {
	uint8_t start[16], end[16];
};

static struct range range_of(const struct route_numbers *r)
{
	struct range range;

	for (uint32_t i = 0; i < 16; i++) {
		const uint32_t bits = r->length < 8 * i ? 0 : r->length - 8 * i;
		range.start[i] = (uint8_t)(r->address[i / 4] >> (24 - 8 * (i % 4)));
		range.end[i] = bits >= 8 ? range.start[i] : (uint8_t)(range.start[i] | 0xffu >> bits);
	}
	return range;
}

static bool is_none(const uint32_t word[4])
{
	return word[0] == 0 && word[1] == 0 && word[2] == 0 && word[3] == 0;
}

static bool is_sound_route(const struct route_numbers *r, const struct peer_numbers *peers)
{
	if ((r->family != 4 && r->family != 6) || r->length < 1 || r->length > (r->family == 4 ? 32u : 128u))
		return false;
	for (uint32_t bit = r->length; bit < 128; bit++)
		if ((r->address[bit / 32] >> (31 - bit % 32) & 1) != 0)
			return false;
	if (r->peer >= PEERS || is_none(peers[r->peer].identity))
		return false;
	const struct peer_numbers *p = &peers[r->peer];
	if (p->endpoint4 != 0)
		return p->port4 >= 1 && p->port4 <= 65535;
	return r->family == 6 && !is_none(p->endpoint6) && p->port6 >= 1 && p->port6 <= 65535;
}

static bool is_sound_peer(const struct peer_numbers *p)
{
	static const struct peer_numbers none;

	if (is_none(p->identity))
		return memcmp(p, &none, sizeof none) == 0;
	return (p->endpoint4 != 0 || !is_none(p->endpoint6)) && p->port4 <= 65535 && p->port6 <= 65535 &&
	       (p->endpoint4 == 0) == (p->port4 == 0) && is_none(p->endpoint6) == (p->port6 == 0) && p->policy <= 255 &&
	       p->engine <= 255;
}

struct routes {
	uint32_t count;
	struct route_numbers number[COUNT_MAX + 1];
	struct range range[COUNT_MAX + 1];
};

/* Whether route `b` may not come after route `a`. */
static bool collide(const struct routes *r, uint32_t a, uint32_t b)
{
	if (r->number[a].family != r->number[b].family)
		return r->number[a].family > r->number[b].family;
	return memcmp(r->range[b].start, r->range[a].end, 16) <= 0;
}

/* The number of the first route at fault, or how many there are. */
static uint32_t first_fault(const struct routes *r, const struct peer_numbers *peers)
{
	for (uint32_t i = 0; i < r->count; i++) {
		if (!is_sound_route(&r->number[i], peers))
			return i;
		for (uint32_t j = 0; j < i; j++)
			if (collide(r, j, i))
				return i;
	}
	return r->count;
}

/* There are few values, so that endpoints repeat. Bit 0 mends the peer. */
static struct peer_numbers read_peer(const uint8_t *b, uint32_t number, bool mend)
{
	struct peer_numbers p = {
		.identity = { [3] = b[0] & 2 ? 0 : number + 1 },
		.endpoint6 = { [3] = b[0] & 4 ? b[1] & 3u : 0 },
		.endpoint4 = b[0] & 8 ? 0 : ADDRESS(192, 0, 2, b[1] & 15),
		.port4 = b[2],
		.port6 = b[0] & 4 ? b[2] & 7u : 0,
		.features = b[0] & 16 ? b[2] : 0,
		.policy = b[0] & 32 ? b[2] * 2u : 0,
		.pair = { [3] = b[0] & 64 ? 1 : 0 },
	};

	if (!mend)
		return p;
	p.identity[3] = number + 1;
	p.endpoint4 |= ADDRESS(192, 0, 2, 1);
	p.port4 |= 1;
	p.port6 = is_none(p.endpoint6) ? 0 : 1;
	p.policy &= 255;
	return p;
}

/* There are few values, so that routes overlap. Some lie at either end of the address space. */
static struct route_numbers read_route(const uint8_t *b, bool mend)
{
	struct route_numbers r = { .family = b[0] & 1 ? 6 : 4, .peer = b[0] >> 1 & 15, .length = b[1] % 35u };
	const uint32_t high = b[2] < 16 ? 0 : b[2] >= 240 ? 0xffff : (uint32_t)(10 << 8 | (b[2] & 3));

	r.address[0] = high << 16 | (uint32_t)b[3] << 8 | b[4];
	if (r.family == 6) {
		r.address[1] = b[5] & 1 ? 0xffffffff : 0;
		r.address[2] = b[6];
		r.address[3] = b[7];
		r.length = b[1] % 132u;
	}
	if (b[0] >= 224)
		r.family = b[7];
	if (b[1] >= 250)
		r.length = UINT32_MAX - b[2];
	if (!mend)
		return r;
	r.family = b[0] & 1 ? 6 : 4;
	r.peer %= PEERS;
	const uint32_t most = r.family == 4 ? 32 : 128;
	r.length = r.length < 1 || r.length > most ? most - 8 : r.length;
	for (uint32_t bit = r.length; bit < 128; bit++)
		r.address[bit / 32] &= ~(UINT32_C(0x80000000) >> bit % 32);
	return r;
}

static void append(struct routes *r, const struct route_numbers *number)
{
	r->number[r->count] = *number;
	r->range[r->count++] = range_of(number);
}

/* Inserts the route in order, or leaves it out if it overlaps another. */
static void insert(struct routes *r, const struct route_numbers *number)
{
	uint32_t at = 0, last = r->count;

	append(r, number);
	while (at < last && !collide(r, at, last))
		at++;
	const struct range range = r->range[last];
	if (at < last && collide(r, last, at)) {
		r->count = last;
		return;
	}
	memmove(&r->number[at + 1], &r->number[at], (last - at) * sizeof r->number[0]);
	memmove(&r->range[at + 1], &r->range[at], (last - at) * sizeof r->range[0]);
	r->number[at] = *number;
	r->range[at] = range;
}

static void look(const struct route_table *t, const struct peer_numbers *peers, const struct routes *all,
		 uint32_t address)
{
	const uint8_t bytes[16] = { (uint8_t)(address >> 24), (uint8_t)(address >> 16), (uint8_t)(address >> 8),
				    (uint8_t)address };
	const struct route_numbers *of = NULL;
	bool has_endpoint = false;

	for (uint32_t i = 0; i < all->count; i++) {
		const struct range *range = &all->range[i];
		if (all->number[i].family == 4 && memcmp(bytes, range->start, 4) >= 0 &&
		    memcmp(bytes, range->end, 4) <= 0)
			of = &all->number[i];
	}
	for (uint32_t i = 0; i < PEERS; i++)
		has_endpoint = has_endpoint || (address != 0 && peers[i].endpoint4 == address);
	const struct route *found = route_table_find(t, address);
	const struct peer *by_endpoint = route_table_by_endpoint(t, address);
	require((found == NULL) == (of == NULL) && (by_endpoint != NULL) == has_endpoint);
	if (found != NULL) {
		const struct peer_numbers *p = &peers[of->peer];
		const struct peer *peer = route_table_peer(t, found);
		require(found->family == 4 && found->address[0] == of->address[0] && found->length == of->length);
		require(found->peer == of->peer && peer == &t->slot->peers[of->peer]);
		require(peer->endpoint4 == p->endpoint4 && peer->port4 == p->port4);
	}
	if (by_endpoint != NULL)
		require(by_endpoint->endpoint4 == address);
}

/* Every IPv6 route is found by its prefix, and its length is announced. */
static void find_wide(const struct route_slot *s, const struct route_numbers *r, uint32_t number)
{
	const uint32_t mask = s->head.by_prefix_size - 1;
	uint32_t at = index_hash6(r->address) & mask;

	require((s->head.lengths6[r->length / 64] >> r->length % 64 & 1) == 1);
	for (; s->by_prefix[at] != number + 1; at = (at + 1) & mask)
		require(s->by_prefix[at] != 0);
	const struct route *found = &s->routes[number];
	require(memcmp(found->address, r->address, sizeof r->address) == 0);
	require(found->length == r->length && found->family == 6 && found->peer == r->peer);
}

/* Changes any bit of the words in use. The checksum must detect it. */
static void change(struct route_slot *s, const uint8_t *record)
{
	struct route_slot_part parts[ROUTE_SLOT_PARTS];
	struct route_table table = { 0 };
	struct route_slot_head head = s->head;

	route_slot_parts(&head, parts);
	const struct route_slot_part *part = &parts[record[0] % ROUTE_SLOT_PARTS];
	if (part->bytes == 0)
		return;
	uint8_t *byte = (uint8_t *)s + part->at + (size_t)(record[1] << 8 | record[2]) % part->bytes;
	*byte = (uint8_t)(*byte ^ 1u << record[3] % 8);
	require(!route_slot_verify(s, 7, &head) && !route_table_open(&table, s, 7));
	*byte = (uint8_t)(*byte ^ 1u << record[3] % 8);
}

static void check_table(const struct peer_numbers *peers, const struct routes *all, const uint8_t *input,
			size_t records)
{
	static struct route_slot *slot; /* megabytes, so it is made once; all words in use are written again */
	const struct table_rows rows = { .peers = peers->identity, .peer_count = PEERS, .routes = all->number->address,
					 .route_count = all->count };
	struct route_table table = { 0 };
	struct route_slot_head head;

	if (slot == NULL)
		slot = calloc(1, sizeof *slot);
	route_slot_pack(slot, 7, &rows);
	require(route_slot_verify(slot, 7, &head) && head.route_count == all->count);
	require(!route_slot_verify(slot, 8, &head));
	require(route_table_open(&table, slot, 7) && table.route_count == all->count && table.peer_count == PEERS);
	for (uint32_t i = 0; i < all->count; i++) {
		const struct route_numbers *r = &all->number[i];
		if (r->family == 6)
			find_wide(slot, r, i);
		look(&table, peers, all, r->address[0]);
		look(&table, peers, all, r->address[0] - 1);
		look(&table, peers, all, r->address[0] + (r->length >= 32 ? 0 : UINT32_MAX >> r->length));
		look(&table, peers, all, r->address[0] + (r->length >= 32 ? 1 : (UINT32_MAX >> r->length) + 1));
	}
	for (uint32_t i = 0; i < PEERS; i++) {
		require(memcmp(slot->peers[i].identity, peers[i].identity, 16) == 0);
		require(memcmp(slot->peers[i].pair, peers[i].pair, 16) == 0);
		require(slot->peers[i].features == peers[i].features && slot->peers[i].policy == peers[i].policy);
		look(&table, peers, all, peers[i].endpoint4);
	}
	for (size_t i = 0; i < records; i++) {
		const uint8_t *b = input + i * RECORD_BYTES;
		look(&table, peers, all, ADDRESS(10, b[2] & 3, b[4], b[5]));
		look(&table, peers, all, ADDRESS(192, 0, 2, b[6]));
		change(slot, b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	struct peer_numbers given_peers[PEERS], mended_peers[PEERS];
	struct routes given = { .count = 0 }, mended = { .count = 0 };
	struct route_slot_fault fault;

	if (length < PEERS * PEER_BYTES)
		return 0;
	for (uint32_t i = 0; i < PEERS; i++) {
		given_peers[i] = read_peer(input + i * PEER_BYTES, i, false);
		mended_peers[i] = read_peer(input + i * PEER_BYTES, i, true);
	}
	input += PEERS * PEER_BYTES;
	length -= PEERS * PEER_BYTES;
	const size_t records = length / RECORD_BYTES < COUNT_MAX ? length / RECORD_BYTES : COUNT_MAX;
	/* The length is exact, so that the sanitizer sees a read past it. */
	struct route_numbers *exact = calloc(records, sizeof *exact);
	for (size_t i = 0; i < records; i++) {
		exact[i] = read_route(input + i * RECORD_BYTES, false);
		append(&given, &exact[i]);
		const struct route_numbers good = read_route(input + i * RECORD_BYTES, true);
		insert(&mended, &good);
	}
	const uint32_t good = first_fault(&given, given_peers);
	bool peers_are_sound = true;
	for (uint32_t i = 0; i < PEERS; i++)
		peers_are_sound = peers_are_sound && is_sound_peer(&given_peers[i]);
	const struct table_rows rows = { .peers = given_peers->identity, .peer_count = PEERS,
					 .routes = (const uint32_t *)exact, .route_count = (uint32_t)records };
	require(route_slot_check(&rows, &fault) == (good == records && peers_are_sound));
	require(good == records || (!fault.is_peer && fault.number == good));
	require(good < records || peers_are_sound || fault.is_peer);
	free(exact);
	given.count = good;
	if (peers_are_sound)
		check_table(given_peers, &given, input, records);
	const struct table_rows whole = { .peers = mended_peers->identity, .peer_count = PEERS,
					  .routes = mended.number->address, .route_count = mended.count };
	require(route_slot_check(&whole, &fault));
	check_table(mended_peers, &mended, input, records);
	return 0;
}
