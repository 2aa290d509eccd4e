/*
 * The kernel engine on the packet path: two clsact programs with direct action. `outbound` at egress of tartan0 chooses
 * the packets that go to a peer by the kernel's VXLAN-GPE device tartan-k. `inbound` at ingress of tartan-k takes what
 * members send, and hands it to the stack as if it had come from tartan0. The rules and the counters are those of
 * datapath/forward.c.
 *
 * Whatever `outbound` does not take goes on into tartan0, where the data process judges, counts and answers it. So only
 * the data process makes ICMP errors.
 *
 * generate.mjs compiles this file to kernel-programs.h. Helpers for packets end in _bytes, _key as in bpf-helpers(7).
 * The kernel lends bpf_fib_lookup() to programs under the GPL only, so this file may be used under GPL-2.0, too.
 *
 * Sources: bpf-helpers(7), tc-bpf(8), RFC 791, draft-ietf-nvo3-vxlan-gpe.
 */
#include "kernel-helpers.h"
#include "kernel-probe.h"

/* Every IPv4 path is taken to carry so many inner bytes without a look-up: their outer packet has 1,264. */
#define FITS_EVERY_PATH 1228u

#define SECTION(name) __attribute__((section(name), used))

/* A packet as it crosses the underlay: one that the kernel will cut, or has merged, is several. */
struct crossing {
	uint32_t packets;
	uint32_t bytes;   /* of all inner packets */
	uint32_t longest; /* bytes of the longest inner packet */
};

static inline uint32_t segments(const struct __sk_buff *skb)
{
	return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

/* False if the headers of the segments cannot be told. */
static inline bool measure(struct __sk_buff *skb, const struct view *v, struct crossing *c)
{
	uint8_t offset = 0;
	uint32_t headers;

	*c = (struct crossing){ .packets = segments(skb), .bytes = v->length, .longest = v->length };
	if (skb->gso_size == 0)
		return true;
	headers = v->header_bytes;
	if (v->protocol == IPPROTO_UDP)
		headers += 8;
	else if (v->protocol != IPPROTO_TCP || load_bytes(skb, v->start + v->header_bytes + 12, &offset, 1) != 0)
		return false;
	else
		headers += offset >> 4 << 2;
	c->bytes += (c->packets - 1) * headers;
	c->longest = skb->gso_size + headers;
	return true;
}

static inline int drop(struct kernel_counters *n, enum counter why, uint32_t packets)
{
	count(n, why, packets);
	return TC_ACT_SHOT;
}

/*
 * Never NULL: without CAP_PERFMON the verifier follows also branches that a processor takes by mistake, and would refuse
 * a pointer that is checked in one place and used in another.
 */
static inline struct kernel_traffic *traffic_of(uint32_t number, struct kernel_counters *n)
{
	struct kernel_traffic *t = look_up(&traffic_map, &number);

	if (t != NULL)
		return t;
	update(&traffic_map, &number, &config.no_traffic, BPF_NOEXIST);
	t = look_up(&traffic_map, &number);
	return t != NULL ? t : &n->unnoted;
}

/*
 * Whether the path carries an outer packet of this length uncut. The look-up is that of a packet forwarded from tartan0,
 * which has forwarding on. It knows learnt MTUs; those of routes are in the peer's slot.
 */
static inline bool fits(struct __sk_buff *skb, struct kernel_counters *n, const struct kernel_peer *peer, uint32_t bytes)
{
	struct bpf_fib_lookup *way = (void *)n->way;

	if (peer->mtu != 0 && bytes > peer->mtu)
		return false;
	if (bytes <= FITS_EVERY_PATH + KERNEL_OVERHEAD4)
		return true;
	if (bytes > 65535)
		return false;
	_Static_assert(sizeof n->way >= sizeof *way, "a look-up has another size");
	way->family = AF_INET;
	way->l4_protocol = IPPROTO_UDP;
	way->sport = 0;
	way->dport = 0;
	way->tot_len = (uint16_t)bytes;
	way->ifindex = config.tun;
	way->rt_metric = 0; /* the TOS of the question, too */
	way->ipv4_src = swap32(peer->local);
	way->ipv4_dst = swap32(peer->remote);
	const long found = fib_lookup(skb, way, sizeof *way, 0);
	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* Whether the data process would send the packet, as far as its addresses and its TTL go. */
static inline bool may_leave(const struct view *v)
{
	if (v->ttl == 0 || is_martian(v->source) || in_subnet(v->destination))
		return false;
	return (config.flags & KERNEL_NO_SOURCE_CHECK) != 0 || in_subnet(v->source);
}

static inline int to_peer(struct __sk_buff *skb, struct kernel_counters *n, const struct view *v,
			  const struct kernel_peer *peer)
{
	const uint64_t flags = BPF_F_ZERO_CSUM_TX | (v->dont_fragment ? BPF_F_DONT_FRAGMENT : 0);

	return tunnel(skb, n, peer->remote, peer->local, flags);
}

/* A probe goes by the kernel or not at all: on the slow path it would prove nothing. */
static inline int send_probe(struct __sk_buff *skb, const struct view *v, const struct kernel_peer *peer, uint8_t kind,
			     struct kernel_counters *n)
{
	if (!may_leave(v) || !fits(skb, n, peer, v->length + KERNEL_OVERHEAD4))
		return TC_ACT_SHOT;
	count(n, kind == PROBE_KERNEL_QUESTION ? probes_asked : probes_answered, 1);
	return to_peer(skb, n, v, peer);
}

/* The flow of a pair that changes its engine: whether it has its former way still. See KERNEL_RECORDS. */
static inline bool lingers(struct __sk_buff *skb, const struct view *v, const struct kernel_peer *peer, bool records)
{
	struct kernel_flow flow = { .source = v->source, .destination = v->destination, .protocol = v->protocol };
	const uint64_t now = boot_ns();

	if (!records && now - peer->moved_ns > KERNEL_MOVE_NS)
		return false;
	if (v->protocol == IPPROTO_TCP && v->fragment == 0)
		load_bytes(skb, v->start + v->header_bytes, &flow.ports, sizeof flow.ports);
	uint64_t *last_ns = look_up(&flows_map, &flow);
	if (last_ns == NULL) {
		if (records)
			update(&flows_map, &flow, &now, BPF_ANY);
		return false;
	}
	if (!records && now - *last_ns > KERNEL_PAUSE_NS)
		return false;
	*last_ns = now;
	return !records;
}

/* Whether the packet goes to the peer by the kernel. */
static inline bool by_kernel(struct __sk_buff *skb, const struct view *v, const struct kernel_peer *peer)
{
	const uint32_t state = peer->state;
	const bool kernel = (state & KERNEL_STATE_MASK) == KERNEL_KERNEL;

	if ((state & (KERNEL_RECORDS | KERNEL_MOVES)) == 0)
		return kernel;
	return kernel != lingers(skb, v, peer, (state & KERNEL_RECORDS) != 0);
}

static inline int send(struct __sk_buff *skb, const uint32_t start)
{
	struct kernel_counters *n = counters();
	struct crossing c;
	struct view v;
	uint32_t number;

	if (n == NULL || see(skb, start, &v) != rx_ok)
		return TC_ACT_UNSPEC;
	const struct kernel_peer *peer = find_peer(v.destination, &number);
	if (peer == NULL)
		return TC_ACT_UNSPEC;
	const uint8_t kind = probe_kind(skb, &v);
	if (kind == 0 && !by_kernel(skb, &v, peer))
		return TC_ACT_UNSPEC;
	const bool measured = measure(skb, &v, &c);
	const uint64_t now = boot_ns();
	if (config.fence != 0)
		return drop(n, tx_fenced, c.packets);
	if (now > config.forward_until_ns)
		return drop(n, tx_orphaned, c.packets);
	if (kind != 0)
		return send_probe(skb, &v, peer, kind, n);
	if (!measured || !may_leave(&v) || (v.dont_fragment && !fits(skb, n, peer, c.longest + KERNEL_OVERHEAD4)))
		return TC_ACT_UNSPEC;
	/* A redirect to a device that is gone would lose the packet. */
	uint32_t any = 0;
	if (check_mtu(skb, config.link, &any, 0, 0) < 0)
		return TC_ACT_UNSPEC;
	const int verdict = to_peer(skb, n, &v, peer);
	if (verdict != TC_ACT_REDIRECT)
		return drop(n, tx_error_other, c.packets);
	count(n, tx_ok, c.packets);
	count(n, tx_bytes, c.bytes);
	struct kernel_traffic *t = traffic_of(number, n);
	t->sent_packets += c.packets;
	t->sent_bytes += c.bytes;
	t->sent_ns = now;
	return verdict;
}

/* The member that sent a datagram; a pointer to it would have to be checked again where it is used, see opaque(). */
struct sender {
	uint32_t number; /* that of the inner source, else one with the outer address */
	uint32_t local;  /* our address towards it */
	uint32_t bound;  /* 1: the inner source is of the peer that has the outer address */
};

static inline bool is_heard(const struct kernel_peer *peer, uint32_t remote)
{
	return peer->remote == remote && (peer->state & KERNEL_STATE_MASK) != KERNEL_REFUSE;
}

/* False if the sender is no member. The inner source may be unknown. */
static inline bool find_sender(const struct bpf_tunnel_key *key, bool is_known, uint32_t source, struct sender *s)
{
	const uint32_t remote = key->remote_ipv4;

	if (key->tunnel_id != config.vni || remote == config.local)
		return false;
	if (is_known) {
		const struct kernel_peer *peer = find_peer(source, &s->number);
		if (peer != NULL && is_heard(peer, remote)) {
			s->local = peer->local;
			s->bound = 1;
			return true;
		}
	}
	const struct kernel_endpoint *e = look_up(&endpoints_map, &remote);
	if (e == NULL)
		return false;
	s->number = e->peer;
	const struct kernel_peer *peer = look_up(&peers_map, &s->number);
	if (peer == NULL || !is_heard(peer, remote))
		return false;
	s->local = peer->local;
	return true;
}

/* The checks of the inner addresses and of fragments; rx_ok if the packet may pass. The stack checks the rest. */
static inline enum counter check_inner(const struct view *v, const struct sender *s)
{
	if (v->ttl == 0)
		return rx_ttl;
	if (is_martian(v->source))
		return rx_martian;
	if ((config.flags & KERNEL_NO_SOURCE_CHECK) == 0 && s->bound == 0)
		return rx_spoof_src;
	if ((config.flags & KERNEL_NO_DESTINATION_CHECK) == 0 && !in_subnet(v->destination))
		return rx_bad_dst;
	if (is_broadcast_of(v->destination, config.network, config.network_mask) ||
	    is_broadcast_of(v->destination, config.subnet, config.subnet_mask))
		return rx_bad_dst;
	return fragment_impossible(v) ? rx_bad_frag : rx_ok;
}

/* A question goes back as its answer, the answer of a peer is noted; neither reaches the stack. */
static inline int take_probe(struct __sk_buff *skb, const struct view *v, const struct bpf_tunnel_key *key,
			     const uint32_t *number, struct kernel_counters *n, struct kernel_traffic *t, uint64_t now)
{
	struct probe_datagram p;

	if (load_bytes(skb, v->start + IPV4_HEADER_BYTES, &p, sizeof p) != 0 || !probe_is_sound(&p, v))
		return drop(n, rx_bad_probe, 1);
	count(n, rx_probe, 1);
	if (p.kind == PROBE_KERNEL_ANSWER) {
		t->answered_ns = now;
		t->answered_sequence = swap32(p.sequence);
		t->answered_opaque = swap64(p.opaque);
		return TC_ACT_SHOT;
	}
	struct kernel_peer *peer = look_up(&peers_map, number);
	if (peer == NULL || !may_answer(&peer->answers, (uint32_t)(now / 1000000000)))
		return drop(n, probes_limited, 1);
	if (!probe_turn(skb, v, &p))
		return TC_ACT_SHOT;
	count(n, probes_answered, 1);
	return tunnel(skb, n, key->remote_ipv4, key->local_ipv4, BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT);
}

static inline int receive(struct __sk_buff *skb, const uint32_t start)
{
	const uint32_t packets = segments(skb);
	struct kernel_counters *n = counters();
	struct sender s = { 0 };
	struct crossing c;
	struct view v;

	if (n == NULL)
		return TC_ACT_SHOT;
	const uint64_t now = boot_ns();
	if (config.fence != 0)
		return drop(n, rx_fenced, packets);
	if (now > config.forward_until_ns)
		return drop(n, rx_orphaned, packets);
	const enum counter fault = see(skb, start, &v);
	if (fault == rx_short)
		return drop(n, rx_short, packets);
	const struct bpf_tunnel_key *key = read_key(skb, n);
	if (key == NULL || opaque(find_sender(key, fault == rx_ok, v.source, &s)) == 0)
		return drop(n, rx_not_member, packets);
	/* tartan-k hears on all addresses of the host. Before Linux 6.0 the key does not tell which it was. */
	if (key->local_ipv4 != 0 && key->local_ipv4 != s.local)
		return drop(n, rx_bad_dst, packets);
	if (fault != rx_ok)
		return drop(n, fault, packets);
	const enum counter why = check_inner(&v, &s);
	if (why != rx_ok)
		return drop(n, why, packets);
	struct kernel_traffic *t = traffic_of(s.number, n);
	t->heard_ns = now;
	if (probe_kind(skb, &v) != 0)
		return take_probe(skb, &v, key, &s.number, n, t, now);
	measure(skb, &v, &c);
	count(n, rx_ok, packets);
	count(n, rx_bytes, c.bytes);
	if (v.header_bytes > IPV4_HEADER_BYTES)
		count(n, rx_opts, packets);
	if (v.total < v.length)
		count(n, rx_trimmed, packets);
	t->received_packets += packets;
	t->received_bytes += c.bytes;
	return (int)redirect(config.tun, BPF_F_INGRESS);
}

SECTION("tc/outbound") int outbound(struct __sk_buff *skb)
{
	return send(skb, 0);
}

SECTION("tc/inbound") int inbound(struct __sk_buff *skb)
{
	return receive(skb, 0);
}

/* BPF_PROG_TEST_RUN puts an Ethernet header before the packet. */
#define TEST_START 14u

SECTION("tc/outbound_test") int outbound_test(struct __sk_buff *skb)
{
	return send(skb, TEST_START);
}

/* The outer addresses and the VNI come in skb->cb; TC_ACT_STOLEN if keys here have no local address (before 6.0). */
SECTION("tc/inbound_test") int inbound_test(struct __sk_buff *skb)
{
	struct kernel_counters *n = counters();

	if (n == NULL)
		return TC_ACT_SHOT;
	/* The kernel keeps one key, so what is sent from there to here came from there. */
	const struct bpf_tunnel_key *key = make_key(n, skb->cb[2], skb->cb[1], skb->cb[0]);
	if (set_tunnel_key(skb, key, sizeof *key, 0) != 0)
		return TC_ACT_STOLEN;
	if (skb->cb[3] != 0)
		return TC_ACT_OK; /* that was the question */
	return receive(skb, TEST_START);
}
