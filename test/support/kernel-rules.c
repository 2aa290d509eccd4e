/*
 * kernel-rules COUNT SEED: random packets through the kernel engine's programs (BPF_PROG_TEST_RUN). Verdict and counters
 * are what the second implementation of the rules (fuzz/rules.h) says, as far as they are the programs' own: the stack
 * checks header checksums and source routes, the device of the underlay limits lengths, and no port is expected. Says
 * how many packets ended in which counter. It runs in a namespace where 192.0.2.2 and .3 have a route by device 2.
 */
#include "rules.h"
#include "test.h"
#include "vectors.h"

#include "../../native/addon/kernel-maps.h"
#include <errno.h>
#include <linux/pkt_cls.h>
#include <stdio.h>
#include <sys/resource.h>

#define OWN ADDRESS(192, 0, 2, 1)
#define ETHERNET 14u
#define DEVICE 2u

struct round {
	uint8_t bytes[2048]; /* Ethernet header and packet */
	uint8_t neutral[2048]; /* the packet as the reference sees it */
	size_t length;
	bool inbound;
	uint32_t flags;
	uint32_t fence;
	bool is_late;
	uint32_t states[2];
	struct kernel_key key;
	uint32_t gso_size;
	uint32_t gso_segs;
};

static uint64_t seen[COUNTER_COUNT + 1];

static uint32_t choose(struct suite *s, const uint32_t *of, uint32_t count)
{
	/* The first one half of the time. */
	return of[suite_below(s, 2) == 0 ? 0 : suite_below(s, count)];
}

static void make_packet(struct suite *s, struct round *r)
{
	static const uint32_t ours[] = { ADDRESS(10, 5, 1, 9), ADDRESS(10, 5, 1, 255), ADDRESS(10, 5, 2, 9),
					 ADDRESS(10, 5, 255, 255), ADDRESS(127, 0, 0, 1), ADDRESS(8, 8, 8, 8) };
	static const uint32_t theirs[] = { ADDRESS(10, 5, 2, 9), ADDRESS(10, 5, 3, 9), ADDRESS(10, 5, 1, 7),
					   ADDRESS(10, 5, 200, 9), ADDRESS(224, 0, 0, 1), ADDRESS(0, 0, 0, 1) };
	static const uint32_t totals[] = { 48, 20, 28, 200, 1228, 1229, 1471, 1472 };
	static const uint32_t protocols[] = { PROTOCOL_UDP, PROTOCOL_TCP, PROTOCOL_ICMP, 47 };
	static const uint32_t fragments[] = { 0, FRAGMENT_DF, FRAGMENT_MF, 0x1ff0, FRAGMENT_MF | 5, FRAGMENT_DF | FRAGMENT_MF };
	static const uint32_t headers[] = { 20, 24, 60 };
	const uint32_t our = choose(s, ours, 6), their = choose(s, theirs, 6);
	const struct recipe recipe = {
		.source = r->inbound ? their : our,
		.destination = r->inbound ? our : their,
		.total = choose(s, totals, 8),
		.header = choose(s, headers, 3),
		.fragment = (uint16_t)choose(s, fragments, 6),
		.ttl = (uint8_t)(suite_below(s, 8) == 0 ? suite_below(s, 3) : 64),
		.protocol = (uint8_t)choose(s, protocols, 4),
		.payload = { 0x12, 0x34, 0, 7, 0, 28, 0, 0, 0, 0, 0, 0, 0x50 },
	};
	struct recipe whole = recipe;
	if (whole.total < whole.header + 16)
		whole.total = whole.header + 16;
	if (suite_below(s, 16) == 0)
		whole.received = whole.total + suite_below(s, 4);
	r->length = packet_make(r->bytes + ETHERNET, &whole).length;
	if (r->length > MTU)
		r->length = MTU;
}

static void take_vector(struct suite *s, struct round *r)
{
	const struct vector *v = &vectors[suite_below(s, sizeof vectors / sizeof vectors[0])];

	r->length = v->length > MTU ? MTU : v->length;
	memcpy(r->bytes + ETHERNET, v->bytes, r->length);
}

/* What the reference would judge and the programs do not, made harmless. */
static void neutralise(struct round *r)
{
	uint8_t *b = r->neutral;
	const size_t header = (r->bytes[ETHERNET] & 15u) * 4u;
	struct packet p = { .bytes = b, .length = r->length };

	memcpy(b, r->bytes + ETHERNET, r->length);
	if (r->length < 20 || header < 20 || header > r->length)
		return;
	memset(b + 20, 1, header - 20); /* no-operations */
	/* The data process lowers the TTL once more, the kernel does not. */
	if (!r->inbound && b[8] == 1)
		b[8] = 2;
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, header));
}

static struct round make_round(struct suite *s)
{
	static const uint32_t remotes[] = { ADDRESS(192, 0, 2, 2), ADDRESS(192, 0, 2, 3), OWN, ADDRESS(192, 0, 2, 9) };
	static const uint32_t locals[] = { OWN, OWN, OWN, ADDRESS(198, 51, 100, 1) };
	static const uint32_t vnis[] = { 1, 1, 1, 2 };
	static const uint32_t states[] = { KERNEL_KERNEL, KERNEL_KERNEL, KERNEL_USER, KERNEL_REFUSE };
	struct round r = { .inbound = suite_below(s, 2) == 0 };

	r.flags = suite_below(s, 4) == 0 ? suite_below(s, 4) : 0;
	r.fence = suite_below(s, 64) == 0;
	r.is_late = suite_below(s, 64) == 0;
	r.states[0] = choose(s, states, 4);
	r.states[1] = choose(s, states, 4);
	r.key = (struct kernel_key){ choose(s, remotes, 4), choose(s, locals, 4), choose(s, vnis, 4) };
	if (suite_below(s, 4) == 0)
		take_vector(s, &r);
	else
		make_packet(s, &r);
	for (uint32_t i = suite_below(s, 4); i > 1 && r.length > 0; i--)
		r.bytes[ETHERNET + suite_below(s, (uint32_t)(r.length < 64 ? r.length : 64))] = (uint8_t)suite_random(s);
	if (suite_below(s, 4) == 0 && r.length > 100) {
		r.gso_size = 1 + suite_below(s, 1500);
		r.gso_segs = 2 + suite_below(s, 40);
	}
	r.bytes[12] = r.length < 20 ? 0 : 8; /* ETH_P_IP; the kernel tries no shorter packet of it */
	neutralise(&r);
	return r;
}

static size_t longest_segment(const struct round *r)
{
	const uint8_t *b = r->neutral;
	const size_t header = (b[0] & 15u) * 4u;

	if (r->gso_size == 0)
		return r->length;
	return r->gso_size + header + (b[9] == PROTOCOL_UDP ? 8u : (size_t)(b[header + 12] >> 4) * 4u);
}

/* Whether the lengths of the segments can be told: those of others are left to the data process. */
static bool segments_are_known(const struct round *r)
{
	const uint8_t *b = r->neutral;

	if (r->gso_size == 0 || b[9] == PROTOCOL_UDP)
		return true;
	return b[9] == PROTOCOL_TCP && (b[0] & 15u) * 4u + 12 < r->length;
}

/* COUNTER_COUNT: it goes on into the tun, and nothing is counted. */
static enum counter expected_outbound(const struct round *r)
{
	const uint8_t *b = r->neutral;
	const uint32_t endpoint = rules_header(b, r->length) == 0 ? rules_endpoint(rules_address(b + 16)) : 0;

	if (endpoint == 0 || r->states[endpoint - ADDRESS(192, 0, 2, 2)] != KERNEL_KERNEL)
		return COUNTER_COUNT;
	if (r->fence || r->is_late || !segments_are_known(r))
		return COUNTER_COUNT;
	return rules_outbound(b, r->length, longest_segment(r), r->flags) == tx_ok ? tx_ok : COUNTER_COUNT;
}

static enum counter expected_inbound(const struct round *r)
{
	const uint8_t *b = r->neutral;
	const struct outer outer = { .source = r->key.remote };
	const uint32_t peer = r->key.remote - ADDRESS(192, 0, 2, 2);

	if (r->fence || r->is_late)
		return r->fence ? rx_fenced : rx_orphaned;
	if (r->length < 20)
		return rx_short;
	if (r->key.vni != 1 || peer > 1 || r->states[peer] == KERNEL_REFUSE)
		return rx_not_member;
	if (r->key.local != OWN)
		return rx_bad_dst;
	return b[0] >> 4 == 14 ? rx_bad_version : rules_inbound(b, r->length, &outer, r->flags);
}

static bool notes_fit(const struct kernel_counters *n, const struct round *r, uint64_t packets)
{
	const uint8_t *b = r->neutral;
	const bool trimmed = (size_t)(b[2] << 8 | b[3]) < r->length;

	return n->of[rx_opts] == (b[0] == 0x45 ? 0 : packets) && n->of[rx_trimmed] == (trimmed ? packets : 0);
}

/* Whether the one counter has gone up by so many, and no other one that a packet ends in. */
static bool is_alone(const struct kernel_counters *n, enum counter counter, uint64_t packets)
{
	static const enum counter all[] = {
#define END(name) name,
		COUNTERS_RX(END) COUNTERS_TX(END) COUNTERS_RX_LATER(END)
#undef END
	};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		if (n->of[all[i]] != (all[i] == counter ? packets : 0))
			return false;
	}
	return true;
}

static void prepare(struct kernel_path *path, const struct round *r)
{
	path->config->flags = r->flags;
	path->config->fence = r->fence;
	path->config->forward_until_ns = r->is_late ? 1 : UINT64_MAX;
	path->peers[0].state = r->states[0];
	path->peers[1].state = r->states[1];
}

static bool run(struct suite *s, struct kernel_path *path, struct kernel_counters *before)
{
	struct round r = make_round(s);
	struct bpf_trial trial = { .bytes = r.bytes, .length = (uint32_t)r.length + ETHERNET, .room = sizeof r.bytes };
	const uint64_t packets = r.gso_segs > 1 ? r.gso_segs : 1;
	const enum counter expected = r.inbound ? expected_inbound(&r) : expected_outbound(&r);
	const uint32_t verdict = expected == COUNTER_COUNT ? (uint32_t)TC_ACT_UNSPEC :
				 expected == rx_ok || expected == tx_ok ? TC_ACT_REDIRECT : TC_ACT_SHOT;
	struct kernel_failure failure;
	struct kernel_counters now;

	if (r.length == 0)
		return true;
	trial.context.gso_size = r.gso_size;
	trial.context.gso_segs = r.gso_segs;
	prepare(path, &r);
	if (!kernel_path_try(path, r.inbound ? KERNEL_INBOUND : KERNEL_OUTBOUND, &trial, r.inbound ? &r.key : NULL, &failure)) {
		if (failure.err == EPROTONOSUPPORT)
			return true; /* Linux before 6.0 */
		printf("%s: errno %d %s\n", failure.step, failure.err, failure.log);
		return false;
	}
	CHECK(s, kernel_path_counters(path, &now) == 0);
	struct kernel_counters n = now;
	for (int i = 0; i < COUNTER_COUNT; i++)
		n.of[i] -= before->of[i];
	*before = now;
	seen[expected]++;
	const bool fits = trial.verdict == verdict && is_alone(&n, expected, packets) &&
			  (expected != rx_ok || notes_fit(&n, &r, packets));
	CHECK_CASE(s, fits, expected == COUNTER_COUNT ? "next" : counter_name(expected));
	if (fits)
		return true;
	printf("%s verdict %d, gso %u x %u, flags %u, states %u %u, key %x %x %u, bytes ", r.inbound ? "inbound" : "outbound",
	       (int)trial.verdict, r.gso_size, r.gso_segs, r.flags, r.states[0], r.states[1], r.key.remote, r.key.local,
	       r.key.vni);
	for (size_t i = 0; i < 64 && i < r.length; i++)
		printf("%02x", r.bytes[ETHERNET + i]);
	for (int i = 0; i < COUNTER_COUNT; i++)
		printf(n.of[i] == 0 ? "" : " %s", counter_name((enum counter)i));
	printf("\n");
	return false;
}

static bool fill(struct kernel_path *path)
{
	*path->config = (struct kernel_config){
		.network = fixture_self.network,
		.network_mask = ipv4_mask(fixture_self.network_length),
		.subnet = fixture_self.subnet,
		.subnet_mask = ipv4_mask(fixture_self.subnet_length),
		.local = OWN,
		.vni = 1,
		.tun = DEVICE,
		.link = DEVICE,
		.lengths = { 24 },
	};
	for (uint32_t i = 0; i < 2; i++) {
		const struct fixture_route *r = &fixture_routes[i];
		const struct kernel_peer peer = {
			.state = KERNEL_KERNEL, .remote = r->endpoint, .local = OWN, .mtu = MTU + KERNEL_OVERHEAD4,
		};
		if (kernel_path_set_peer(path, i, &peer) != 0 ||
		    kernel_path_set_prefix(path, (struct kernel_prefix){ r->network, 24 }, i) != 0)
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	const long count = argc > 2 ? atol(argv[1]) : 100000;
	struct suite s = { .name = "kernel-rules", .random = argc > 2 ? (uint64_t)atoll(argv[2]) : 1 };
	struct kernel_counters before = { 0 };
	struct kernel_failure failure;
	struct kernel_path path;

	if (!kernel_path_open(&path, &failure)) {
		printf("%s: errno %d %s\n", failure.step, failure.err, failure.log);
		return 1;
	}
	CHECK(&s, fill(&path));
	for (long i = 0, wrong = 0; i < count && wrong < 5; i++)
		wrong += !run(&s, &path, &before);
	kernel_path_close(&path);
	for (int i = 0; i <= COUNTER_COUNT; i++) {
		if (seen[i] != 0)
			printf("%s %llu\n", i == COUNTER_COUNT ? "next" : counter_name((enum counter)i), (unsigned long long)seen[i]);
	}
	return suite_end(&s);
}
